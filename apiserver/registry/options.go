package registry

import (
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	kstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/storage"
)

// Root stands before the keys of all objects.
const Root = "/registry"

// Options says where the objects of a server are kept.
type Options struct {
	Store store.Store
	// Seal encrypts the resources for which it returns a transformer.
	Seal func(schema.GroupResource) value.Transformer
	// Claims returns what objects of a resource hold for themselves alone
	// (storage.Config.Claims), nil for none.
	Claims func(schema.GroupResource) func(runtime.Object) []string
	Log    *slog.Logger
}

// Codec is how one resource is encoded, and in which version.
type Codec func(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner)

// Getter is the hook by which generic registries get their storage: ours.
func (o *Options) Getter(codec Codec) generic.RESTOptionsGetter {
	return &getter{Options: o, codec: codec}
}

func (o *Options) getter(s *Scheme, k *Kind) generic.RESTOptionsGetter {
	return o.Getter(func(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
		codec, gv, err := s.Codec(k)
		if err != nil {
			return nil, nil // the storage refuses a nil codec
		}
		return codec, gv
	})
}

type getter struct {
	*Options

	codec Codec
}

// GetRESTOptions implements generic.RESTOptionsGetter. Each call returns
// fresh values: apiextensions overwrites the codec in them.
func (g *getter) GetRESTOptions(r schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	codec, version := g.codec(r)
	config := storagebackend.Config{Codec: codec, EncodeVersioner: version}
	return generic.RESTOptions{
		StorageConfig:           config.ForResource(r),
		Decorator:               g.decorate,
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 1,
		ResourcePrefix:          prefix(r),
	}, nil
}

// prefix is a resource's own part of its keys. Groups keep resources of one
// name apart.
func prefix(r schema.GroupResource) string {
	if r.Group == "" {
		return "/core/" + r.Resource
	}
	return "/" + r.Group + "/" + r.Resource
}

// Metadata reads the metadata of the objects of r, which kind names.
func (o *Options) Metadata(r schema.GroupResource, kind metav1.TypeMeta) *storage.Metadata {
	return storage.NewMetadata(o.where(r, prefix(r)), kind)
}

// where says where the objects of r are.
func (o *Options) where(r schema.GroupResource, prefix string) storage.Config {
	c := storage.Config{Store: o.Store, Root: Root, Prefix: prefix, Resource: r, Log: o.Log}
	if o.Seal != nil {
		if t := o.Seal(r); t != nil {
			c.Transformer = storage.Deletable(t)
		}
	}
	return c
}

func (g *getter) decorate(config *storagebackend.ConfigForResource, resourcePrefix string, _ func(runtime.Object) (string, error),
	newFunc, newList func() runtime.Object, _ kstorage.AttrFunc, _ kstorage.IndexerFuncs, _ *cache.Indexers,
) (kstorage.Interface, factory.DestroyFunc, error) {
	c := g.where(config.GroupResource, resourcePrefix)
	c.Codec, c.New, c.NewList = config.Codec, newFunc, newList
	if g.Claims != nil {
		c.Claims = g.Claims(config.GroupResource)
	}
	s, err := storage.New(c)
	return s, func() {}, err
}

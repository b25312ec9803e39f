package daemon

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/mesh/v1alpha1"
)

// peerClient reads and writes Peer objects.
type peerClient = *gentype.ClientWithList[*v1alpha1.Peer, *v1alpha1.PeerList]

// newPeerClient returns a client for Peers that acts as cfg says.
func newPeerClient(cfg *rest.Config) (peerClient, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register %s: %w", v1alpha1.SchemeGroupVersion, err)
	}
	cfg = rest.CopyConfig(cfg)
	gv := v1alpha1.SchemeGroupVersion
	cfg.GroupVersion, cfg.APIPath = &gv, "/apis"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	rc, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client for peers: %w", err)
	}
	return gentype.NewClientWithList(
		"peers", rc, runtime.NewParameterCodec(scheme), "",
		func() *v1alpha1.Peer { return &v1alpha1.Peer{} },
		func() *v1alpha1.PeerList { return &v1alpha1.PeerList{} },
	), nil
}

// newPeerInformer follows all Peers through c.
func newPeerInformer(c peerClient) cache.SharedIndexInformer {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, o)
		},
	}
	return cache.NewSharedIndexInformer(lw, &v1alpha1.Peer{}, 0, cache.Indexers{})
}

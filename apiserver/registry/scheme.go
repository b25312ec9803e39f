package registry

import (
	"fmt"
	"reflect"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// Scheme knows the kinds of one server.
type Scheme struct {
	*runtime.Scheme

	// External has only served versions: OpenAPI is named by it.
	External *runtime.Scheme
	Codecs   serializer.CodecFactory
}

// subresources are types that requests carry and no kind declares.
func subresources() map[schema.GroupVersion][]runtime.Object {
	return map[schema.GroupVersion][]runtime.Object{
		corev1.SchemeGroupVersion: {
			&corev1.Binding{}, &corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{},
			&corev1.PodPortForwardOptions{}, &corev1.PodProxyOptions{}, &corev1.NodeProxyOptions{},
			&corev1.ServiceProxyOptions{}, &corev1.SerializedReference{}, &corev1.RangeAllocation{},
			&corev1.ComponentStatus{}, &corev1.ComponentStatusList{},
		},
		policyv1.SchemeGroupVersion:         {&policyv1.Eviction{}},
		autoscalingv1.SchemeGroupVersion:    {&autoscalingv1.Scale{}},
		authenticationv1.SchemeGroupVersion: {&authenticationv1.TokenRequest{}, &authenticationv1.TokenReview{}, &authenticationv1.SelfSubjectReview{}},
		authorizationv1.SchemeGroupVersion: {
			&authorizationv1.SubjectAccessReview{}, &authorizationv1.SelfSubjectAccessReview{},
			&authorizationv1.SelfSubjectRulesReview{}, &authorizationv1.LocalSubjectAccessReview{},
		},
	}
}

// NewScheme registers kinds. Each kind's internal version is its hub type
// itself, so that converting between the two costs nothing.
func NewScheme(kinds []Kind) (*Scheme, error) {
	s := &Scheme{Scheme: runtime.NewScheme(), External: runtime.NewScheme()}
	for gv, objs := range subresources() {
		for _, sc := range []*runtime.Scheme{s.Scheme, s.External} {
			sc.AddKnownTypes(gv, objs...)
			metav1.AddToGroupVersion(sc, gv)
		}
		s.AddKnownTypes(internal(gv.Group), objs...)
	}
	unversioned := schema.GroupVersion{Version: "v1"}
	for _, sc := range []*runtime.Scheme{s.Scheme, s.External} {
		metav1.AddToGroupVersion(sc, unversioned)
		sc.AddUnversionedTypes(unversioned, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{},
			&metav1.APIGroup{}, &metav1.APIResourceList{})
	}
	for i := range kinds {
		if err := s.add(&kinds[i]); err != nil {
			return nil, fmt.Errorf("register %s: %w", kinds[i].Resource.Resource, err)
		}
	}
	if err := addQueries(s.Scheme); err != nil {
		return nil, err
	}
	s.Codecs = serializer.NewCodecFactory(s.Scheme,
		serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf())
	return s, nil
}

func internal(group string) schema.GroupVersion {
	return schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal}
}

func (s *Scheme) add(k *Kind) error {
	hub := k.Resource.GroupVersion()
	for _, sc := range []*runtime.Scheme{s.Scheme, s.External} {
		sc.AddKnownTypeWithName(hub.WithKind(k.Kind), k.New())
		sc.AddKnownTypeWithName(hub.WithKind(k.Kind+"List"), k.NewList())
		metav1.AddToGroupVersion(sc, hub)
	}
	s.alias(k, hub.Group)
	if k.Default != nil {
		s.AddTypeDefaultingFunc(k.New(), func(obj any) { k.Default(obj.(runtime.Object)) })
	}
	if err := s.labels(k, hub, nil); err != nil {
		return err
	}
	preferred := []schema.GroupVersion{hub}
	for i := range k.Versions {
		if err := s.addVersion(k, &k.Versions[i]); err != nil {
			return err
		}
		if gv := k.Versions[i].Resource.GroupVersion(); gv.Group == hub.Group {
			preferred = append(preferred, gv)
		}
	}
	if len(preferred) > 1 {
		return s.SetVersionPriority(preferred...)
	}
	return nil
}

func (s *Scheme) alias(k *Kind, group string) {
	s.AddKnownTypeWithName(internal(group).WithKind(k.Kind), k.New())
	s.AddKnownTypeWithName(internal(group).WithKind(k.Kind+"List"), k.NewList())
}

func (s *Scheme) addVersion(k *Kind, v *Version) error {
	gv := v.Resource.GroupVersion()
	for _, sc := range []*runtime.Scheme{s.Scheme, s.External} {
		sc.AddKnownTypeWithName(gv.WithKind(k.Kind), v.New())
		sc.AddKnownTypeWithName(gv.WithKind(k.Kind+"List"), v.NewList())
		metav1.AddToGroupVersion(sc, gv)
	}
	if gv.Group != k.Resource.Group {
		s.alias(k, gv.Group)
	}
	toHub := func(in, hub runtime.Object) error {
		if err := v.ToHub(in, hub); err != nil {
			return err
		}
		if k.Default != nil {
			k.Default(hub)
		}
		return nil
	}
	for _, c := range []struct {
		in, out func() runtime.Object
		f       func(in, out runtime.Object) error
	}{
		{v.New, k.New, toHub},
		{k.New, v.New, v.FromHub},
		{v.NewList, k.NewList, eachItem(toHub)},
		{k.NewList, v.NewList, eachItem(v.FromHub)},
	} {
		convert := func(in, out any, _ conversion.Scope) error {
			return c.f(in.(runtime.Object), out.(runtime.Object))
		}
		if err := s.AddConversionFunc(c.in(), c.out(), convert); err != nil {
			return err
		}
	}
	return s.labels(k, gv, v.FieldLabel)
}

// eachItem converts a list by its items.
func eachItem(f func(in, out runtime.Object) error) func(in, out runtime.Object) error {
	return func(in, out runtime.Object) error {
		src, dst := reflect.ValueOf(in).Elem(), reflect.ValueOf(out).Elem()
		dst.FieldByName("ListMeta").Set(src.FieldByName("ListMeta"))
		from, to := src.FieldByName("Items"), dst.FieldByName("Items")
		if from.IsNil() {
			return nil
		}
		to.Set(reflect.MakeSlice(to.Type(), from.Len(), from.Len()))
		for i := range from.Len() {
			a, aOK := reflect.TypeAssert[runtime.Object](from.Index(i).Addr())
			b, bOK := reflect.TypeAssert[runtime.Object](to.Index(i).Addr())
			if !aOK || !bOK {
				return fmt.Errorf("convert %T to %T: items are no objects", in, out)
			}
			if err := f(a, b); err != nil {
				return err
			}
		}
		return nil
	}
}

// labels allows the field selectors that the kind declares.
func (s *Scheme) labels(k *Kind, gv schema.GroupVersion, rename func(string) string) error {
	known := map[string]bool{"metadata.name": true}
	if k.Select != nil {
		for label := range k.Select(k.New()) {
			known[label] = !slices.Contains(k.Unselectable, label)
		}
	}
	// Kinds without fields of their own take the namespace even where none has one.
	known["metadata.namespace"] = k.Namespaced || len(known) == 1+len(k.Unselectable)
	return s.AddFieldLabelConversionFunc(gv.WithKind(k.Kind), func(label, value string) (string, string, error) {
		hub := label
		if rename != nil {
			hub = rename(label)
		}
		if !known[hub] {
			return "", "", fmt.Errorf("field label not supported: %s", label)
		}
		return hub, value, nil
	})
}

// Codec returns how k is stored: in protobuf where its type can.
func (s *Scheme) Codec(k *Kind) (runtime.Codec, runtime.GroupVersioner, error) {
	media := runtime.ContentTypeProtobuf
	if !marshals(k.New()) {
		media = runtime.ContentTypeJSON
	}
	info, ok := runtime.SerializerInfoForMediaType(s.Codecs.SupportedMediaTypes(), media)
	if !ok {
		return nil, nil, fmt.Errorf("no serializer for %s", media)
	}
	gv := k.Resource.GroupVersion()
	return s.Codecs.CodecForVersions(info.Serializer, s.Codecs.UniversalDeserializer(), gv, internal(gv.Group)), gv, nil
}

// marshals reports whether obj can be encoded in protobuf.
func marshals(obj runtime.Object) bool {
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "X"})
	_, err := runtime.Encode(protobuf.NewSerializer(nil, nil), obj)
	return err == nil
}

package apiserver_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// metadataIs checks that the metadata informer of a kind shows an object as
// the API does.
func metadataIs(t *testing.T, f *fixture, gvr schema.GroupVersionResource, read func() *unstructured.Unstructured) {
	t.Helper()
	in := f.MetadataInformer(gvr)
	if in == nil {
		t.Errorf("%s: no metadata informer", gvr.GroupResource())
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ran sync.WaitGroup
	ran.Go(func() { in.RunWithContext(ctx) })
	defer ran.Wait()
	defer cancel()
	within(t, "the informer has synced", in.HasSynced)
	// The server itself writes to some kinds, so both are read until they agree.
	var want, got metav1.Object
	within(t, "the informer shows what the API does", func() bool {
		want = read()
		key, err := cache.MetaNamespaceKeyFunc(want)
		if err != nil {
			t.Fatal(err)
		}
		obj, ok, err := in.GetStore().GetByKey(key)
		if err != nil || !ok {
			return false
		}
		if got, err = meta.Accessor(obj); err != nil {
			t.Fatal(err)
		}
		return got.GetResourceVersion() == want.GetResourceVersion()
	})
	type seen struct {
		Name, Namespace, UID, Version string
		Labels                        map[string]string
		Owners                        []metav1.OwnerReference
		Finalizers                    []string
		Made                          time.Time
		Managers                      int
	}
	see := func(m metav1.Object) seen {
		return seen{
			m.GetName(), m.GetNamespace(), string(m.GetUID()), m.GetResourceVersion(), m.GetLabels(), m.GetOwnerReferences(),
			m.GetFinalizers(), m.GetCreationTimestamp().UTC(), len(m.GetManagedFields()),
		}
	}
	if diff := cmp.Diff(see(want), see(got)); diff != "" {
		t.Errorf("metadata of %s (-API +informer):\n%s", gvr.GroupResource(), diff)
	}
}

func TestMetadataOfCustomResourcesComesFromTheReplica(t *testing.T) {
	f := start(t)
	gvr := schema.GroupVersionResource{Group: "stable.example.com", Version: "v1", Resource: "crontabs"}
	if f.MetadataInformer(gvr) != nil {
		t.Fatal("an informer of a kind that nobody has defined")
	}
	defs, err := crdclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := defs.ApiextensionsV1().CustomResourceDefinitions().Create(t.Context(), crontabs(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	dyn, err := dynamic.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	var made *unstructured.Unstructured
	within(t, "the kind is served", func() bool {
		made, err = dyn.Resource(gvr).Namespace("default").Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "stable.example.com/v1", "kind": "CronTab",
			"metadata": map[string]any{"name": "a", "labels": map[string]any{"x": "y"}},
			"spec":     map[string]any{"replicas": int64(1)},
		}}, metav1.CreateOptions{})
		return err == nil
	})
	metadataIs(t, f, gvr, func() *unstructured.Unstructured { return made })
	gvr.Version = "v2"
	metadataIs(t, f, gvr, func() *unstructured.Unstructured { return made })
	if gvr.Version = "v3"; f.MetadataInformer(gvr) != nil {
		t.Error("an informer of a version that is not served")
	}
	for _, gvr := range []schema.GroupVersionResource{
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	} {
		list, err := dyn.Resource(gvr).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) == 0 {
			t.Fatal(list, err)
		}
		metadataIs(t, f, gvr, func() *unstructured.Unstructured { return &list.Items[0] })
	}
}

func TestThinKindsAreReadWhenTheyAreAskedForAndForgottenAtRest(t *testing.T) {
	f := start(t)
	client := f.client(t, f.admin(t))
	factory := f.Informers(f.client(t, f.ClientConfig("system:apiserver")))
	secrets := factory.Core().V1().Secrets()
	in := secrets.Informer()
	factory.Start(t.Context().Done())
	if _, err := client.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s"}, Data: map[string][]byte{"k": []byte("v")},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, "the informer shows the secret", func() bool {
		_, ok, _ := in.GetStore().GetByKey("default/s")
		return ok
	})
	read := func() *corev1.Secret {
		t.Helper()
		s, err := secrets.Lister().Secrets("default").Get("s")
		if err != nil || string(s.Data["k"]) != "v" || s.ResourceVersion == "" {
			t.Fatalf("lister: %v, %v", s, err)
		}
		return s
	}
	same := func() bool {
		first := read()
		return first == read()
	}
	if same() {
		t.Error("the object is held though no request has read it")
	}
	if _, err := client.CoreV1().Secrets("default").Get(t.Context(), "s", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	if !same() {
		t.Error("what a request has had read is read again")
	}
	f.Rest()
	if same() {
		t.Error("the object is held after the server has come to rest")
	}
	if err := client.CoreV1().Secrets("default").Delete(t.Context(), "s", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, "the secret is gone", func() bool { return len(in.GetStore().ListKeys()) == 0 })
}

package apiserver_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	aggclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset/typed/apiregistration/v1"

	"skein.dev/skein/apiserver"
)

func crontabs() *apiextensionsv1.CustomResourceDefinition {
	preserve := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"replicas": {Type: "integer", Minimum: new(float64)}}},
	}}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "crontabs.stable.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "stable.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "crontabs", Singular: "crontab", Kind: "CronTab", ShortNames: []string{"ct"}},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &preserve}},
				{Name: "v2", Served: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &preserve}},
			},
		},
	}
}

func TestCustomResourcesWorkLikeBuiltInOnes(t *testing.T) {
	f := start(t)
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
	v1 := dyn.Resource(schema.GroupVersionResource{Group: "stable.example.com", Version: "v1", Resource: "crontabs"}).Namespace("default")
	v2 := dyn.Resource(schema.GroupVersionResource{Group: "stable.example.com", Version: "v2", Resource: "crontabs"}).Namespace("default")
	tab := func(name string, replicas int64) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"replicas": replicas, "unknown": "pruned"},
		}}
	}
	var made *unstructured.Unstructured
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if made, err = v1.Create(t.Context(), tab("a", 1), metav1.CreateOptions{}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if _, found, _ := unstructured.NestedString(made.Object, "spec", "unknown"); found {
		t.Error("a field outside the schema was kept")
	}
	if _, err := v1.Create(t.Context(), tab("bad", -1), metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("below the minimum: got %v, want 422", err)
	}
	w1, err := v1.Watch(t.Context(), metav1.ListOptions{ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w1.Stop()
	w2, err := v2.Watch(t.Context(), metav1.ListOptions{ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Stop()
	if err := unstructured.SetNestedField(made.Object, int64(2), "spec", "replicas"); err != nil {
		t.Fatal(err)
	}
	if _, err := v1.Update(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// One change, watched in both versions: each sees its own.
	for version, w := range map[string]watch.Interface{"stable.example.com/v1": w1, "stable.example.com/v2": w2} {
		e := next(t, w)
		if got := e.Object.(*unstructured.Unstructured).GetAPIVersion(); e.Type != watch.Modified || got != version {
			t.Errorf("got %s of %s, want MODIFIED of %s", e.Type, got, version)
		}
	}
	groups, err := f.client(t, f.admin(t)).Discovery().ServerGroups()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, g := range groups.Groups {
		found = found || g.Name == "stable.example.com"
	}
	if !found {
		t.Error("the group is not in discovery")
	}
}

func TestAVersionThatIsNotServedAnyMoreIsNotRegistered(t *testing.T) {
	f := start(t)
	client, err := crdclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	defs := client.ApiextensionsV1().CustomResourceDefinitions()
	services, err := aggclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	registered := func(rule string, want ...string) {
		t.Helper()
		within(t, rule, func() bool {
			list, err := services.APIServices().List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range list.Items {
				if s.Spec.Group == "stable.example.com" {
					got = append(got, s.Spec.Version)
				}
			}
			slices.Sort(got)
			return slices.Equal(got, want)
		})
	}
	if _, err := defs.Create(t.Context(), crontabs(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	registered("both versions are registered", "v1", "v2")
	for rule, change := range map[string]string{
		"a version that is renamed": `[{"op":"replace","path":"/spec/versions/1/name","value":"v3"}]`,
		"a version off":             `[{"op":"replace","path":"/spec/versions/1/served","value":false}]`,
	} {
		want := []string{"v1"}
		if strings.Contains(change, "v3") {
			want = append(want, "v3")
		}
		if _, err := defs.Patch(t.Context(), crontabs().Name, types.JSONPatchType, []byte(change), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		registered(rule, want...)
		back := `[{"op":"replace","path":"/spec/versions/1/name","value":"v2"},{"op":"replace","path":"/spec/versions/1/served","value":true}]`
		if _, err := defs.Patch(t.Context(), crontabs().Name, types.JSONPatchType, []byte(back), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		registered(rule+", and back", "v1", "v2")
	}
	if err := defs.Delete(t.Context(), crontabs().Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	registered("nothing of it is left")
}

func TestLogsAndNodeProxyReachTheKubeletOfThePod(t *testing.T) {
	ca := newAuthority(t)
	serverPEM, serverKey := ca.issue(t, "")
	clientPEM, clientKey := ca.issue(t, "kube-apiserver-kubelet-client", "system:masters")
	serverCert, err := tls.X509KeyPair(serverPEM, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	clientCert, err := tls.X509KeyPair(clientPEM, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	kubelet := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || len(r.TLS.PeerCertificates) != 1 {
			http.Error(w, "wrong identity", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, r.URL.Path+"?"+r.URL.RawQuery)
	}))
	kubelet.TLS = &tls.Config{Certificates: []tls.Certificate{serverCert}, ClientCAs: ca.pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	kubelet.StartTLS()
	defer kubelet.Close()
	u, err := url.Parse(kubelet.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *apiserver.Config) {
		c.Kubelet = apiserver.Kubelet{TLS: &tls.Config{Certificates: []tls.Certificate{clientCert}, RootCAs: ca.pool()}, Port: int32(port)}
	})
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	node, err := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = c.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	logs := func() (string, error) {
		stream, err := c.CoreV1().Pods("default").GetLogs("p", &corev1.PodLogOptions{TailLines: new(int64)}).Stream(t.Context())
		if err != nil {
			return "", err
		}
		defer stream.Close()
		raw, err := io.ReadAll(stream)
		return string(raw), err
	}
	if _, err := logs(); err == nil || !strings.Contains(err.Error(), "does not have a host assigned") {
		t.Errorf("before binding: got %v", err)
	}
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	scheduler := f.client(t, f.ClientConfig("system:kube-scheduler"))
	if err := scheduler.CoreV1().Pods("default").Bind(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := scheduler.CoreV1().Pods("default").Bind(t.Context(), bind, metav1.CreateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("second binding: got %v, want a conflict", err)
	}
	if got, err := logs(); err != nil || got != "/containerLogs/default/p/c?tailLines=0" {
		t.Errorf("logs: got %q, %v", got, err)
	}
	raw, err := c.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/n1/proxy/stats/summary").Param("x", "1").DoRaw(context.Background())
	if err != nil || string(raw) != "/stats/summary?x=1" {
		t.Errorf("node proxy: got %q, %v", raw, err)
	}
}

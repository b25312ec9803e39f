package apiserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
)

// A group version that an APIService hands to another server is that server's,
// also for kinds that this one has itself.
func TestAPIServiceOfAnotherServerWinsOverOwnKinds(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	if _, err := c.AppsV1().Deployments("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	agg, err := aggclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	services := agg.ApiregistrationV1().APIServices()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		svc, err := services.Get(t.Context(), "v1.apps", metav1.GetOptions{})
		if err == nil {
			svc.Labels = nil // else this server keeps it as its own
			svc.Spec.InsecureSkipTLSVerify = true
			svc.Spec.Service = &apiregistrationv1.ServiceReference{Namespace: "default", Name: "elsewhere"}
			if _, err = services.Update(t.Context(), svc, metav1.UpdateOptions{}); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := c.AppsV1().Deployments("default").List(t.Context(), metav1.ListOptions{})
		if err != nil && strings.Contains(err.Error(), "unable to handle the request") {
			break // 503: that server is not there
		}
		if time.Now().After(deadline) {
			t.Fatalf("the group is still served here: %v", err)
		}
	}
	if _, err := c.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("another group: %v", err)
	}
}

// What the shortcut does not take goes the library's way, with its answers.
func TestUnusualRequestsGetTheLibrarysAnswers(t *testing.T) {
	f := start(t)
	client, err := rest.HTTPClientFor(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		method, path, accept string
		want                 int
		media                string
	}{
		{"GET", "/api/v1/namespaces/default", "application/json", 200, "application/json"},
		{"GET", "/api/v1/namespaces/default", "application/yaml", 200, "application/yaml"},
		{"GET", "/api/v1/namespaces/default", "application/vnd.kubernetes.protobuf", 200, "application/vnd.kubernetes.protobuf"},
		{"GET", "/api/v1/namespaces/default", "text/x-nothing", 406, ""},
		{"GET", "/api/v1/nothing/default", "", 404, ""},
		{"PUT", "/api/v1/namespaces", "", 405, ""},
		{"GET", "/api/v1", "", 200, "application/json"},
		{"GET", "/api/v1/watch/namespaces?timeoutSeconds=1", "", 200, "application/json"},
		{"PATCH", "/api/v1/namespaces/default", "", 415, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, "https://"+f.addr+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if row.accept != "" {
			req.Header.Set("Accept", row.accept)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if media := resp.Header.Get("Content-Type"); resp.StatusCode != row.want || row.media != "" && media != row.media {
			t.Errorf("%s %s, Accept %q: got %d %q, want %d %q", row.method, row.path, row.accept, resp.StatusCode, media, row.want, row.media)
		}
	}
}

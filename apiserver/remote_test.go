package apiserver_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"

	"skein.dev/skein/apiserver"
)

const flunderAPI = "/apis/wardle.example.com/v1alpha1"

// flunders is another API server: it takes requests only from who shows a
// certificate of ca, and answers with the user's name that came with them.
func flunders(t *testing.T, ca *authority) (port int32) {
	t.Helper()
	certPEM, keyPEM := ca.issue(t, "")
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any
		switch r.URL.Path {
		case flunderAPI:
			answer = &metav1.APIResourceList{
				TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "wardle.example.com/v1alpha1",
				APIResources: []metav1.APIResource{{Name: "flunders", SingularName: "flunder", Kind: "Flunder", Verbs: []string{"get"}}},
			}
		case flunderAPI + "/flunders/who":
			answer = map[string]any{"user": r.Header.Get("X-Remote-User"), "certificate": r.TLS.PeerCertificates[0].Subject.CommonName}
		default:
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(answer) // the client reads it or fails
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: ca.pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

func TestRequestsForAnotherServersGroupAreLedThereUnderTheUsersName(t *testing.T) {
	ca := newAuthority(t)
	port := flunders(t, ca)
	certPEM, keyPEM := ca.issue(t, "front-proxy-client")
	file := filepath.Join(t.TempDir(), "front-proxy.pem")
	if err := os.WriteFile(file, append(certPEM, keyPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *apiserver.Config) {
		c.FrontProxy = apiserver.FrontProxy{CertFile: file, KeyFile: file, CAPEM: ca.pem}
		c.ClientCAPEM = ca.pem
	})
	client := f.client(t, f.admin(t))
	published, err := client.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if published.Data["requestheader-client-ca-file"] != string(ca.pem) || published.Data["requestheader-allowed-names"] != `["front-proxy-client"]` {
		t.Errorf("published %v", published.Data)
	}
	_, err = client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "flunders"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	registrations, err := aggclient.NewForConfig(f.admin(t))
	if err != nil {
		t.Fatal(err)
	}
	_, err = registrations.ApiregistrationV1().APIServices().Create(t.Context(), &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: "wardle.example.com", Version: "v1alpha1", GroupPriorityMinimum: 2000, VersionPriority: 200, InsecureSkipTLSVerify: true,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "flunders", Port: &port},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var raw []byte
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if raw, err = client.RESTClient().Get().AbsPath(flunderAPI + "/flunders/who").DoRaw(t.Context()); err == nil {
			break
		}
		if time.Now().After(deadline) {
			got, _ := registrations.ApiregistrationV1().APIServices().Get(t.Context(), "v1alpha1.wardle.example.com", metav1.GetOptions{})
			t.Fatalf("%v; the registration: %+v", err, got.Status)
		}
	}
	if got := strings.TrimSpace(string(raw)); got != `{"certificate":"front-proxy-client","user":"kubernetes-admin"}` {
		t.Errorf("got %s", got)
	}
}

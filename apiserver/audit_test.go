package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
)

const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}], namespaces: [default]}
- {level: Metadata, nonResourceURLs: ["/version"]}
- {level: None}
`

// auditTo returns a configuration whose log is at path.
func auditTo(t *testing.T, path string) *options.AuditOptions {
	t.Helper()
	o := options.NewAuditOptions()
	o.PolicyFile = filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(o.PolicyFile, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	o.LogOptions.Path = path
	return o
}

func audited(t *testing.T, path string) (all []auditv1.Event, text string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all, string(raw)
}

func TestAuditLogHoldsWhatThePolicySays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "audit.log")
	f := start(t, func(c *apiserver.Config) { c.Audit = auditTo(t, path) })
	c := f.client(t, f.admin(t))
	mustCreate(t, c, configMap("seen", map[string]string{"k": "plain-value"}))
	_, err := c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "s"}, StringData: map[string]string{"k": "hidden-value"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	stranger := &rest.Config{Host: "https://" + f.addr, BearerToken: "nobody", TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem}}
	if code, h := request(t, stranger, "/version"); code != http.StatusUnauthorized || h.Get("Audit-Id") == "" {
		t.Errorf("stranger: got %d, audit id %q", code, h.Get("Audit-Id"))
	}
	events, text := audited(t, path)
	var got []string
	for _, e := range events {
		if e.User.Username == "system:apiserver" || e.User.Username == "" && e.ResponseStatus.Code != http.StatusUnauthorized {
			continue // the cluster's first objects
		}
		resource := e.RequestURI
		if e.ObjectRef != nil {
			resource = e.ObjectRef.Resource
		}
		got = append(got, fmt.Sprintf("%s %s %s %d body=%t", e.Verb, resource, e.Level, e.ResponseStatus.Code, e.RequestObject != nil))
	}
	want := []string{
		"create configmaps RequestResponse 201 body=true", "create secrets Metadata 201 body=false", "get /version Metadata 401 body=false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(text, "hidden-value") || strings.Contains(text, "aGlkZGVuLXZhbHVl") || !strings.Contains(text, "plain-value") {
		t.Error("the log holds what the policy hides, or not what it shows")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log: mode %v, %v", info.Mode(), err)
	}
}

func TestNothingIsAuditedWithoutAPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f := start(t, func(c *apiserver.Config) {
		c.Audit = options.NewAuditOptions()
		c.Audit.LogOptions.Path = path
	})
	if _, h := request(t, f.admin(t), "/version"); h.Get("Audit-Id") != "" {
		t.Error("requests get an audit id that nobody asks for")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a log without a policy: %v", err)
	}
}

func TestFullDiskIsToldAndRequestsGoOn(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	full := func(mode string) *fixture {
		return start(t, func(c *apiserver.Config) {
			c.Audit = auditTo(t, "/dev/full")
			c.Audit.LogOptions.MaxSize, c.Audit.LogOptions.BatchOptions.Mode = 0, mode
		})
	}
	f := full(options.ModeBlocking)
	c := f.client(t, f.admin(t))
	mustCreate(t, c, configMap("lost", nil))
	status, err := c.CoreV1().ComponentStatuses().Get(t.Context(), "audit-log", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := status.Conditions[0]; got.Status != corev1.ConditionFalse || !strings.Contains(got.Error, "no space left on device") {
		t.Errorf("state of the log: got %v", got)
	}
}

func TestAuditEventsReachTheWebhook(t *testing.T) {
	var mu sync.Mutex
	var got []auditv1.Event
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var list auditv1.EventList
		if err := json.Unmarshal(raw, &list); err != nil {
			t.Errorf("webhook got %q: %v", raw, err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, list.Items...)
	}))
	defer hook.Close()
	kubeconfig := filepath.Join(t.TempDir(), "webhook.yaml")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, clusters: [{name: a, cluster: {server: %q}}], contexts: [{name: a, context: {cluster: a}}], current-context: a}", hook.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *apiserver.Config) {
		c.Audit = auditTo(t, "")
		c.Audit.WebhookOptions.ConfigFile, c.Audit.WebhookOptions.BatchOptions.Mode = kubeconfig, options.ModeBlocking
	})
	mustCreate(t, f.client(t, f.admin(t)), configMap("hooked", nil))
	mu.Lock()
	defer mu.Unlock()
	for _, e := range got {
		if e.ObjectRef != nil && e.ObjectRef.Name == "hooked" && e.Verb == "create" {
			return
		}
	}
	t.Errorf("the creation is not among %d events", len(got))
}

package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver"]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: RequestResponse, resources: [{resources: [configmaps]}], verbs: [create]}
- {level: None}
`
	admissionFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins: [
{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration,
  defaults: {enforce: baseline, enforce-version: latest}, exemptions: {namespaces: [trusted]}}},
{name: MutatingAdmissionWebhook, path: webhooks.yaml}]
`
	webhookFile  = "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nkubeConfigFile: %q\n"
	webhookUsers = `{apiVersion: v1, kind: Config, users: [{name: "*", user: {token: %s}}]}
`
	authenticationFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt: [{issuer: {url: %q, certificateAuthority: %q, audiences: [the-mesh]},
  claimMappings: {username: {claim: sub, prefix: "oidc:"}, groups: {claim: teams, prefix: "team-"}}}]
`
	authorizationFile = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers: [
{type: Webhook, name: asked, webhook: {timeout: 3s, failurePolicy: Deny, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1,
  authorizedTTL: 1s, unauthorizedTTL: 1s, connectionInfo: {type: KubeConfigFile, kubeConfigFile: %q},
  matchConditions: [{expression: "request.user == 'webby' || 'team-herders' in request.groups"}]}},
{type: Node, name: node}, {type: RBAC, name: rbac}]
`
)

// given is a peer that was given every file that there is.
type given struct {
	*mesh
	*peer

	out *outsider
	log string // of audit
}

func startGiven(t *testing.T) *given {
	t.Helper()
	g := &given{mesh: &mesh{T: t}, out: newOutsider(t)}
	if *skein == "" {
		t.Skip("-skein names no program; `make clients` does")
	}
	dir := t.TempDir()
	write := func(name, format string, args ...any) string {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	g.log = filepath.Join(dir, "logs", "audit.log")
	if err := os.Mkdir(filepath.Dir(g.log), 0o700); err != nil {
		t.Fatal(err)
	}
	// One that is too old to be kept.
	write("logs/audit-2020-01-01T00-00-00.000.log", "{}\n")
	write("webhooks.yaml", webhookFile, write("users.yaml", webhookUsers, askerToken))
	g.add("up",
		"--audit-policy-file", write("policy.yaml", "%s", auditPolicy), "--audit-log-path", g.log, "--audit-log-mode", "batch",
		"--audit-log-maxsize", "1", "--audit-log-maxbackup", "2", "--audit-log-maxage", "1",
		"--audit-webhook-config-file", write("audit.kubeconfig", "%s", g.out.kubeconfig("/audit")), "--audit-webhook-mode", "batch",
		"--admission-control-config-file", write("admission.yaml", "%s", admissionFile),
		"--authentication-config", write("authentication.yaml", authenticationFile, g.out.issuer(), g.out.ca()),
		"--authentication-token-webhook-config-file", write("tokens.kubeconfig", "%s", g.out.kubeconfig("/tokens")),
		"--authorization-config", write("authorization.yaml", authorizationFile, write("access.kubeconfig", "%s", g.out.kubeconfig("/access"))),
		"--goaway-chance", "0.02", "--strict-transport-security-directives", "max-age=31536000,includeSubDomains")
	g.peer = g.peers[0]
	return g
}

// as is a client that shows a token.
func (g *given) as(token string) *kubernetes.Clientset {
	g.Helper()
	cfg := rest.AnonymousClientConfig(g.config)
	cfg.BearerToken, cfg.QPS = token, -1
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		g.Fatal(err)
	}
	return c
}

// TestFilesOfAnAdministrator gives one peer every file, and sees what each does.
func TestFilesOfAnAdministrator(t *testing.T) {
	g := startGiven(t)
	for name, test := range map[string]func(*testing.T){
		"audit": g.audits, "pod security by default": g.defaultsOfPods, "credentials for webhooks": g.webhooks,
		"tokens of an issuer": g.issued, "tokens that a webhook knows": g.known, "anonymous conditions": g.anonymous,
		"a webhook that decides": g.decided, "clients are moved": g.moved,
	} {
		t.Run(name, test)
	}
	g.out.mu.Lock()
	defer g.out.mu.Unlock()
	if len(g.out.strayers) > 0 {
		t.Errorf("asked without the credentials of the kubeconfig: %v", g.out.strayers)
	}
}

func (g *given) who(t *testing.T, c kubernetes.Interface) (authenticationv1.UserInfo, error) {
	t.Helper()
	r, err := c.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, err
	}
	return r.Status.UserInfo, nil
}

func (g *given) issued(t *testing.T) {
	t.Helper()
	got, err := g.who(t, g.as(g.out.sign(t, "jane", time.Hour)))
	if err != nil || got.Username != "oidc:jane" || !slices.Contains(got.Groups, "team-herders") {
		t.Errorf("got %+v, %v, want oidc:jane of team-herders", got, err)
	}
	if got, err := g.who(t, g.as(g.out.sign(t, "jane", -time.Minute))); !apierrors.IsUnauthorized(err) {
		t.Errorf("an expired token: got %+v, %v, want 401", got, err)
	}
}

func (g *given) known(t *testing.T) {
	t.Helper()
	got, err := g.who(t, g.as("known-to-the-webhook"))
	if err != nil || got.Username != "webby" || !slices.Contains(got.Groups, "webs") {
		t.Errorf("got %+v, %v, want webby of webs", got, err)
	}
	if got, err := g.who(t, g.as("unknown")); !apierrors.IsUnauthorized(err) {
		t.Errorf("an unknown token: got %+v, %v, want 401", got, err)
	}
}

func (g *given) anonymous(t *testing.T) {
	t.Helper()
	c := g.as("")
	if _, err := c.RESTClient().Get().AbsPath("/livez").DoRaw(t.Context()); err != nil {
		t.Errorf("/livez: %v, want that everybody may ask", err)
	}
	if _, err := c.RESTClient().Get().AbsPath("/version").DoRaw(t.Context()); !apierrors.IsUnauthorized(err) {
		t.Errorf("/version: %v, want 401", err)
	}
}

func (g *given) decided(t *testing.T) {
	t.Helper()
	webby, jane := g.as("known-to-the-webhook"), g.as(g.out.sign(t, "jane", time.Hour))
	if _, err := webby.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("what the webhook allows: %v", err)
	}
	if _, err := webby.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what nobody allows: %v, want 403", err)
	}
	// RBAC comes after the webhook, which has no opinion on Pods and forbids Secrets.
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "herders"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "team-herders"}},
	}
	if _, err := g.client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := jane.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("what a role allows: %v", err)
	}
	if _, err := jane.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("what the webhook forbids: %v, want 403", err)
	}
	asked := g.out.times("access")
	if _, err := g.client.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); err != nil || g.out.times("access") != asked {
		t.Errorf("who does not match the conditions: %v, the webhook was asked: %t", err, g.out.times("access") != asked)
	}
}

func (g *given) defaultsOfPods(t *testing.T) {
	t.Helper()
	yes := true
	for ns, want := range map[string]bool{"plain": false, "trusted": true} {
		g.namespace(ns)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "c", Image: "example.com/none:1", SecurityContext: &corev1.SecurityContext{Privileged: &yes}},
			}},
		}
		eventually(t, "the default account of "+ns, func() bool {
			_, err := g.client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
			return err == nil
		})
		_, err := g.client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
		if want && err != nil {
			t.Errorf("in the exempt namespace: %v", err)
		}
		if !want && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `violates PodSecurity "baseline:latest": privileged`)) {
			t.Errorf("privileged: %v, want that PodSecurity forbids it", err)
		}
	}
}

func (g *given) webhooks(t *testing.T) {
	t.Helper()
	url, none, fail := g.out.URL+"/mutate", admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "label"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "label.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, FailurePolicy: &fail,
			ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: []byte(g.out.ca())},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "hooked"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}},
		}},
	}
	if _, err := g.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), hook, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	g.namespace("hooked")
	n := 0
	eventually(t, "the webhook is asked, with the credentials of the file", func() bool {
		n++
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", n)}}
		got, err := g.client.CoreV1().Secrets("hooked").Create(t.Context(), s, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return got.Labels["seen"] == "yes"
	})
}

// event is what is looked at of an audit event.
type event struct {
	Level, Stage, Verb, RequestURI string

	User          struct{ Username string }
	RequestObject map[string]any
}

// audited reads the log and what was rotated of it.
func (g *given) audited(t *testing.T) (events []event, files []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(filepath.Dir(g.log), "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // it was rotated meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Base(path))
		lines := bufio.NewScanner(bytes.NewReader(raw))
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err == nil { // else it is being written
				events = append(events, e)
			}
		}
	}
	return events, files
}

func (g *given) audits(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "audited"}, Data: map[string]string{"big": strings.Repeat("x", 200<<10)}}
	if _, err := g.client.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "audited"}, StringData: map[string]string{"a": "never-in-a-log"}}
	if _, err := g.client.CoreV1().Secrets("default").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	find := func(uri string, events []event) *event {
		i := slices.IndexFunc(events, func(e event) bool {
			return e.Verb == "create" && strings.HasPrefix(e.RequestURI, uri) && e.User.Username == "kubernetes-admin"
		})
		if i < 0 {
			return nil
		}
		return &events[i]
	}
	const ofMaps, ofSecrets = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets"
	eventually(t, "both in the log", func() bool {
		events, _ := g.audited(t)
		return find(ofMaps, events) != nil && find(ofSecrets, events) != nil
	})
	events, _ := g.audited(t)
	if e := find(ofMaps, events); e.Level != "RequestResponse" || e.Stage != "ResponseComplete" || e.RequestObject == nil {
		t.Errorf("the ConfigMap's event: %+v", *e)
	}
	if e := find(ofSecrets, events); e.Level != "Metadata" || e.RequestObject != nil {
		t.Errorf("the Secret's event has level %s and object %v", e.Level, e.RequestObject)
	}
	eventually(t, "both at the webhook", func() bool {
		g.out.mu.Lock()
		defer g.out.mu.Unlock()
		has := func(uri string) bool {
			return slices.ContainsFunc(g.out.audited, func(u string) bool { return strings.HasPrefix(u, uri) })
		}
		return has(ofMaps) && has(ofSecrets)
	})
	// Some 400 KiB an event: the log of one MiB is rotated again and again.
	for i := range 12 {
		cm.Name = fmt.Sprint("audited-", i)
		if _, err := g.client.CoreV1().ConfigMaps("default").Create(ctx, cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "two rotated logs beside the current one, without the old one", func() bool {
		events, files := g.audited(t)
		return len(files) == 3 && !slices.Contains(files, "audit-2020-01-01T00-00-00.000.log") && slices.ContainsFunc(events, func(e event) bool {
			return strings.Contains(fmt.Sprint(e.RequestObject["metadata"]), "audited-11")
		})
	})
	_, files := g.audited(t)
	for _, name := range files {
		if s, err := os.Stat(filepath.Join(filepath.Dir(g.log), name)); err != nil || s.Mode().Perm() != 0o600 || s.Size() > 1<<20 {
			t.Errorf("%s: %v, mode %v, %d bytes", name, err, s.Mode(), s.Size())
		}
	}
}

// moved counts the connections of a client that asks again and again.
func (g *given) moved(t *testing.T) {
	t.Helper()
	var dials atomic.Int64
	cfg := rest.CopyConfig(g.config)
	d := &net.Dialer{}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return d.DialContext(ctx, network, address)
	}
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // without a GOAWAY in 2,000 at 2 %: once in 10^17
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, cfg.Host+"/livez", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Strict-Transport-Security"); got != "max-age=31536000; includeSubDomains" {
			t.Fatalf("Strict-Transport-Security: %q", got)
		}
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("/livez: %s", resp.Status)
		}
		if dials.Load() > 2 {
			return
		}
	}
	t.Errorf("%d connections for 2,000 requests, want some more", dials.Load())
}

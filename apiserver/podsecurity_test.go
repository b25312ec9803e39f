package apiserver_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
)

// heard keeps the warnings that a server sends.
type heard struct {
	mu  sync.Mutex // guards the fields below
	all []string
}

func (h *heard) HandleWarningHeader(_ int, _, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, text)
}

func (h *heard) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := strings.Join(h.all, "\n")
	h.all = nil
	return out
}

func labelled(t *testing.T, c kubernetes.Interface, name string, labels map[string]string) {
	t.Helper()
	_, err := c.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CoreV1().ServiceAccounts(name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func privilegedSpec() corev1.PodSpec {
	yes := true
	return corev1.PodSpec{Containers: []corev1.Container{{
		Name: "c", Image: "i", SecurityContext: &corev1.SecurityContext{Privileged: &yes},
	}}}
}

func privilegedPod(c kubernetes.Interface, namespace string) error {
	_, err := c.CoreV1().Pods(namespace).Create(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: privilegedSpec()}, metav1.CreateOptions{})
	return err
}

func privilegedDeployment(c kubernetes.Interface, namespace string) error {
	match := map[string]string{"a": "b"}
	_, err := c.AppsV1().Deployments(namespace).Create(context.Background(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: match},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: match}, Spec: privilegedSpec()},
		},
	}, metav1.CreateOptions{})
	return err
}

const privilegedDetail = `privileged (container "c" must not set securityContext.privileged=true)`

func TestPodsAreHeldToTheLevelOfTheirNamespace(t *testing.T) {
	f := start(t)
	cfg := f.admin(t)
	warnings := &heard{}
	cfg.WarningHandler = warnings
	c := f.client(t, cfg)

	labelled(t, c, "plain", nil)
	if err := privilegedPod(c, "plain"); err != nil || warnings.take() != "" {
		t.Errorf("namespace without labels: got %v, want no word", err)
	}

	labelled(t, c, "held", map[string]string{"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.24"})
	err := privilegedPod(c, "held")
	if want := `pods "p" is forbidden: violates PodSecurity "baseline:v1.24": ` + privilegedDetail; !apierrors.IsForbidden(err) || err.Error() != want {
		t.Errorf("enforced pod: got %v, want %s", err, want)
	}
	if err := privilegedDeployment(c, "held"); err != nil {
		t.Errorf("enforcing holds pods alone: got %v", err)
	}
	if got, want := warnings.take(), `would violate PodSecurity "baseline:v1.24": `+privilegedDetail; got != want {
		t.Errorf("what would make such pods: got warning %q, want %q", got, want)
	}

	labelled(t, c, "warned", map[string]string{"pod-security.kubernetes.io/warn": "baseline"})
	for what, create := range map[string]func(kubernetes.Interface, string) error{"pod": privilegedPod, "deployment": privilegedDeployment} {
		if err := create(c, "warned"); err != nil {
			t.Errorf("warned %s: %v", what, err)
		}
		if got, want := warnings.take(), `would violate PodSecurity "baseline:latest": `+privilegedDetail; got != want {
			t.Errorf("warned %s: got warning %q, want %q", what, got, want)
		}
	}
}

func TestNamespaceIsToldWhatItsNewLevelRefuses(t *testing.T) {
	f := start(t)
	cfg := f.admin(t)
	warnings := &heard{}
	cfg.WarningHandler = warnings
	c := f.client(t, cfg)
	labelled(t, c, "n", nil)
	if err := privilegedPod(c, "n"); err != nil {
		t.Fatal(err)
	}
	relabel := func(level string) error {
		ns, err := c.CoreV1().Namespaces().Get(t.Context(), "n", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ns.Labels["pod-security.kubernetes.io/enforce"] = level
		_, err = c.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{})
		return err
	}
	if err := relabel("baseline"); err != nil {
		t.Fatal(err)
	}
	want := `existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"` + "\n" + "p: privileged"
	if got := warnings.take(); got != want {
		t.Errorf("got warnings %q, want %q", got, want)
	}
	if err := relabel("harmless"); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "must be one of privileged, baseline, restricted") {
		t.Errorf("unknown level: got %v", err)
	}
}

func TestAdmissionFileSetsDefaultsAndExemptions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {namespaces: [free], usernames: [trusted]}
`)
	f := start(t, func(c *apiserver.Config) { c.AdmissionFile = path })
	admin := f.client(t, f.admin(t))
	trusted := f.client(t, f.user(t, "trusted", "system:masters"))
	for _, ns := range []string{"strict", "free"} {
		labelled(t, admin, ns, nil)
	}
	if err := privilegedPod(admin, "strict"); !apierrors.IsForbidden(err) {
		t.Errorf("default: got %v, want 403", err)
	}
	if err := privilegedPod(admin, "free"); err != nil {
		t.Errorf("exempt namespace: %v", err)
	}
	if err := privilegedPod(trusted, "strict"); err != nil {
		t.Errorf("exempt user: %v", err)
	}
	for what, bad := range map[string]string{
		"plugin that is not there": "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: EventRateLimit}]}",
		"unknown level": "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: PodSecurity, " +
			"configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: x}}}]}",
		"no configuration": "{apiVersion: v1, kind: Pod}",
	} {
		write(bad)
		if _, err := apiserver.New(apiserver.Config{Store: f.store, AdmissionFile: path, Kinds: kinds.All()}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

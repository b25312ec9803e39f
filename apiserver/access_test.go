package apiserver_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/role"
	"skein.dev/skein/apiserver"
)

func account(t *testing.T, c kubernetes.Interface, name string) *corev1.ServiceAccount {
	t.Helper()
	sa, err := c.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func bearer(f *fixture, token string) *rest.Config {
	return &rest.Config{Host: "https://" + f.addr, BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem}}
}

func TestABoundTokenLivesAsLongAsItsPod(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "bot")
	pod, err := c.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{ServiceAccountName: "bot", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if v := pod.Spec.Volumes; len(v) != 1 || v[0].Projected == nil || !strings.HasPrefix(v[0].Name, "kube-api-access-") {
		t.Errorf("volumes: got %+v, want the projected token", v)
	}
	if n := len(pod.Spec.Tolerations); n != 2 {
		t.Errorf("tolerations: got %+v, want not-ready and unreachable", pod.Spec.Tolerations)
	}
	req, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bot", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p", UID: pod.UID}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	review := func() authenticationv1.TokenReviewStatus {
		r, err := c.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: req.Status.Token},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	got := review()
	if !got.Authenticated || got.User.Username != "system:serviceaccount:default:bot" || got.User.Extra["authentication.kubernetes.io/pod-name"][0] != "p" {
		t.Fatalf("while the pod lives: %+v", got)
	}
	who, err := f.client(t, bearer(f, req.Status.Token)).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "system:serviceaccount:default:bot" {
		t.Errorf("as a bearer: %+v, %v", who, err)
	}
	if err := c.CoreV1().Pods("default").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// Good results are kept for seconds; the truth shows when they are gone.
	for deadline := time.Now().Add(30 * time.Second); review().Authenticated; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the token outlives its pod")
		}
	}
}

func TestANodeGetsTheTokensOfItsPodsAndNoOthers(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	if _, err := c.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := c.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := f.client(t, f.user(t, "system:node:n1", "system:nodes"))
	for audience, allowed := range map[string]bool{"": true, "elsewhere": false} {
		req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}
		if audience != "" {
			req.Spec.Audiences = []string{audience}
		}
		_, err := node.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", req, metav1.CreateOptions{})
		if allowed && err != nil || !allowed && !apierrors.IsForbidden(err) {
			t.Errorf("audience %q: got %v, allowed %t", audience, err, allowed)
		}
	}
}

func TestForgedAndForeignTokensAreRefused(t *testing.T) {
	f, other := start(t), start(t)
	c := other.client(t, other.admin(t))
	account(t, c, "bot")
	account(t, f.client(t, f.admin(t)), "bot")
	req, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{req.Status.Token, "abcdef.0123456789abcdef", "nonsense"} {
		_, err := f.client(t, bearer(f, token)).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsUnauthorized(err) {
			t.Errorf("token %.12s: got %v, want 401", token, err)
		}
	}
}

func TestNobodyGivesAwayRightsHeHasNot(t *testing.T) {
	f := start(t)
	admin := f.client(t, f.admin(t))
	_, err := admin.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "ann"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "ann"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ann := f.client(t, f.user(t, "ann"))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := ann.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Namespace: "default"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status.Allowed {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the binding has no effect")
		}
	}
	role := func(name string, rule rbacv1.PolicyRule) error {
		_, err := ann.RbacV1().Roles("default").Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
		return err
	}
	if err := role("less", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}); err != nil {
		t.Errorf("a role with less: %v", err)
	}
	if err := role("more", rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}); !apierrors.IsForbidden(err) {
		t.Errorf("a role with more: got %v, want forbidden", err)
	}
	if _, err := ann.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another namespace: got %v, want forbidden", err)
	}
}

func TestFencesAreHonouredOnlyFromThoseWhoMayHoldTheRole(t *testing.T) {
	f := start(t)
	f.store.SetEpoch(role.Controllers, 5)
	old := role.With(t.Context(), role.Fence{Role: role.Controllers, Epoch: 4})
	now := role.With(t.Context(), role.Fence{Role: role.Controllers, Epoch: 5})
	const publisher = "system:serviceaccount:kube-system:root-ca-cert-publisher"
	control := f.client(t, f.ClientConfig(publisher))
	if _, err := control.CoreV1().ConfigMaps("default").Create(old, configMap("old", nil), metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "fenced") {
		t.Errorf("old epoch: got %v, want a fenced write", err)
	}
	if _, err := control.CoreV1().ConfigMaps("default").Create(now, configMap("now", nil), metav1.CreateOptions{}); err != nil {
		t.Errorf("present epoch: %v", err)
	}
	// From anyone else the header means nothing, in process or not.
	if _, err := f.client(t, f.ClientConfig("system:apiserver")).CoreV1().ConfigMaps("default").Create(old, configMap("self", nil), metav1.CreateOptions{}); err != nil {
		t.Errorf("another user in process: %v", err)
	}
	raw := f.client(t, f.user(t, publisher)).CoreV1().RESTClient()
	err := raw.Post().Namespace("default").Resource("configmaps").SetHeader(role.Header, "controllers=4").Body(configMap("wire", nil)).Do(t.Context()).Error()
	if !apierrors.IsForbidden(err) {
		t.Errorf("old epoch over the network: got %v, want forbidden", err)
	}
}

func TestAControllerHasTheRightsOfItsOwnAccount(t *testing.T) {
	f := start(t)
	for who, want := range map[string]bool{
		"system:serviceaccount:kube-system:root-ca-cert-publisher": true,
		"system:serviceaccount:kube-system:replicaset-controller":  false,
		"system:serviceaccount:default:root-ca-cert-publisher":     false,
		"system:kube-controller-manager":                           false,
	} {
		c := f.client(t, f.ClientConfig(who))
		_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("made", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if got := err == nil; got != want || !want && !apierrors.IsForbidden(err) {
			t.Errorf("%s makes config maps: %v, want %v (%v)", who, got, want, err)
		}
	}
	me, err := f.client(t, f.ClientConfig("system:serviceaccount:kube-system:job-controller")).AuthenticationV1().SelfSubjectReviews().Create(
		t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:kube-system"}
	if got := slices.Sorted(slices.Values(me.Status.UserInfo.Groups)); !slices.Equal(got, want) {
		t.Errorf("its groups are %v, want %v", got, want)
	}
}

func TestClusterAddressesAndNodePortsAreGivenOutOnce(t *testing.T) {
	f := start(t, func(c *apiserver.Config) {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/26")}
		c.NodePorts = apiserver.PortRange{First: 30000, Last: 30040}
	})
	c := f.client(t, f.admin(t))
	var mu sync.Mutex
	ips, ports := map[string]bool{}, map[int32]bool{}
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			s, err := c.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i)},
				Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}},
			}, metav1.CreateOptions{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			if ips[s.Spec.ClusterIP] || ports[s.Spec.Ports[0].NodePort] {
				t.Errorf("%s:%d was given out twice", s.Spec.ClusterIP, s.Spec.Ports[0].NodePort)
			}
			ips[s.Spec.ClusterIP], ports[s.Spec.Ports[0].NodePort] = true, true
		})
	}
	wg.Wait()
	s, err := c.CoreV1().Services("default").Get(t.Context(), "s0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	same := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "same"}, Spec: corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), same, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "already allocated") {
		t.Errorf("an address in use: got %v", err)
	}
	if err := c.CoreV1().Services("default").Delete(t.Context(), "s0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), same, metav1.CreateOptions{}); err != nil {
		t.Errorf("the address of a deleted service: %v", err)
	}
	out := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "out"}, Spec: corev1.ServiceSpec{ClusterIP: "10.97.0.1", Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := c.CoreV1().Services("default").Create(t.Context(), out, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("an address out of range: got %v", err)
	}
}

func TestInformersShareTheReplicasObjects(t *testing.T) {
	f := start(t)
	client := f.client(t, f.ClientConfig("system:apiserver"))
	one, two := f.Informers(client), f.Informers(client)
	a, b := one.Core().V1().ServiceAccounts(), two.Core().V1().ServiceAccounts()
	var stores []cache.SharedIndexInformer
	stores = append(stores, a.Informer(), b.Informer())
	one.Start(t.Context().Done())
	two.Start(t.Context().Done())
	account(t, client, "shared")
	for _, s := range stores {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, ok, _ := s.GetStore().GetByKey("default/shared"); ok {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the informer does not see the object")
			}
		}
	}
	x, err := a.Lister().ServiceAccounts("default").Get("shared")
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.Lister().ServiceAccounts("default").Get("shared")
	if err != nil || x != y {
		t.Errorf("two informers hold %p and %p, want one object", x, y)
	}
	if err := client.CoreV1().ServiceAccounts("default").Delete(t.Context(), "shared", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, ok, _ := stores[0].GetStore().GetByKey("default/shared"); !ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the informer does not see the deletion")
		}
	}
}

func TestFurtherHandlersAreOpenOrAuthorized(t *testing.T) {
	say := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(what)) })
	}
	f := start(t, func(c *apiserver.Config) {
		c.Handlers = []apiserver.Handler{{Path: "/mesh/v1/join", Handler: say("join"), Open: true}, {Path: "/mesh/v1/status", Handler: say("status")}}
	})
	get := func(cfg *rest.Config, path string) (string, error) {
		raw, err := f.client(t, cfg).CoreV1().RESTClient().Get().AbsPath(path).DoRaw(t.Context())
		return string(raw), err
	}
	nobody := &rest.Config{Host: "https://" + f.addr, TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem}}
	if got, err := get(nobody, "/mesh/v1/join"); err != nil || got != "join" {
		t.Errorf("open: %q, %v", got, err)
	}
	if _, err := get(nobody, "/mesh/v1/status"); !apierrors.IsForbidden(err) {
		t.Errorf("status for nobody: got %v, want forbidden", err)
	}
	if got, err := get(f.admin(t), "/mesh/v1/status"); err != nil || got != "status" {
		t.Errorf("status for an admin: %q, %v", got, err)
	}
}

package outofprocess_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/kubelet"
	"skein.dev/skein/kubelet/cri/critest"
	"skein.dev/skein/tests/realapi"
)

const image = "example.test/app:1"

// startKubelet runs a kubelet as system:node:n1 on a runtime in memory.
func startKubelet(t *testing.T, api *realapi.Server) (*critest.Runtime, kubernetes.Interface, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups and mounts need root")
	}
	dir := t.TempDir()
	r, err := critest.Listen(t.Context(), filepath.Join(dir, "r.sock"), image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	kit := api.Kit("n1", "kubelet", "system:node:n1", "system:nodes")
	kit.Informers = kubelet.Informers(kit.Client, "n1")
	cfg := kubelet.Config{
		// The disk of the machine that the test runs on is not what is tested.
		EvictionHard: map[string]string{"memory.available": "100Mi"}, ImageHigh: 100,
		Kit: kit, Apart: true, NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, CRIEndpoint: filepath.Join(dir, "r.sock"),
		RootDir: filepath.Join(dir, "kubelet"), LogDir: filepath.Join(dir, "logs"), Listen: "-", Version: "v1.37.2",
		CgroupRoot: "skein-apart-" + filepath.Base(dir) + "-" + filepath.Base(filepath.Dir(dir)),
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*/" + cfg.CgroupRoot)
		for _, d := range append(left, "/sys/fs/cgroup/"+cfg.CgroupRoot) {
			_ = os.Remove(d)
		}
	})
	k, err := kubelet.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Clean(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	run(t, kit.Informers, k.Run)
	return r, kit.Client, dir
}

// pod is one that is bound already.
func pod(name, node string, edit func(*corev1.Pod)) *corev1.Pod {
	zero, no := int64(0), false
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &zero, AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{Name: "app", Image: image, Command: []string{"sleep"}}},
		},
	}
	if edit != nil {
		edit(p)
	}
	return p
}

// given creates what the tests' pods refer to.
func given(t *testing.T, admin kubernetes.Interface) {
	t.Helper()
	for _, name := range []string{"used", "other"} {
		_, err := admin.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": "one"},
		}, metav1.CreateOptions{})
		check(t, err)
		_, err = admin.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"key": []byte("hush")},
		}, metav1.CreateOptions{})
		check(t, err)
		_, err = admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		check(t, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, admin kubernetes.Interface, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	p, err := admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
	check(t, err)
	return p
}

// loaded has all that a node must read for a pod.
func loaded(p *corev1.Pod) {
	ref := corev1.LocalObjectReference{Name: "used"}
	p.Spec.ServiceAccountName = "used"
	p.Spec.Volumes = []corev1.Volume{{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref}},
			{Secret: &corev1.SecretProjection{LocalObjectReference: ref, Items: []corev1.KeyToPath{{Key: "key", Path: "secret"}}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "somebody"}},
		},
	}}}}
	p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "all", MountPath: "/all"}}
}

func TestTheKubeletRunsPodsFromAnAPIApart(t *testing.T) {
	api := realapi.Serve(t, realapi.Config{})
	given(t, api.Admin)
	runtime, node, dir := startKubelet(t, api)
	realapi.Eventually(t, "the node has registered itself and is Ready", func() bool {
		n, err := api.Admin.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		return err == nil && len(n.Status.Conditions) == 4 && n.Status.Conditions[3].Status == corev1.ConditionTrue
	})
	p := create(t, api.Admin, pod("app", "n1", loaded))
	realapi.Eventually(t, "the pod is Ready", func() bool { return isReady(t, api.Admin, "app") })

	volume := filepath.Join(dir, "kubelet", "pods", string(p.UID), "volumes", "kubernetes.io~projected", "all")
	token, err := os.ReadFile(filepath.Join(volume, "token"))
	check(t, err)
	review, err := api.Admin.AuthenticationV1().TokenReviews().Create(t.Context(), &authv1.TokenReview{
		Spec: authv1.TokenReviewSpec{Token: string(token), Audiences: []string{"somebody"}},
	}, metav1.CreateOptions{})
	check(t, err)
	if !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:default:used" {
		t.Errorf("the pod's token: %+v", review.Status)
	}
	if b, err := os.ReadFile(filepath.Join(volume, "secret")); err != nil || string(b) != "hush" {
		t.Errorf("the pod's secret: %q, %v", b, err)
	}
	cm, err := api.Admin.CoreV1().ConfigMaps("default").Get(t.Context(), "used", metav1.GetOptions{})
	check(t, err)
	cm.Data["key"] = "two"
	_, err = api.Admin.CoreV1().ConfigMaps("default").Update(t.Context(), cm, metav1.UpdateOptions{})
	check(t, err)
	realapi.Eventually(t, "a changed config map reaches the volume", func() bool {
		b, err := os.ReadFile(filepath.Join(volume, "key"))
		return err == nil && string(b) == "two"
	})
	realapi.Eventually(t, "events are written", func() bool {
		l, err := api.Admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=app,reason=Started"})
		return err == nil && len(l.Items) > 0
	})
	check(t, runtime.Crash("app", 1))
	realapi.Eventually(t, "the restart is told", func() bool {
		p, err := api.Admin.CoreV1().Pods("default").Get(t.Context(), "app", metav1.GetOptions{})
		return err == nil && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	t.Run("rights", func(t *testing.T) { nodeRights(t, api, node, p) })
	check(t, api.Admin.CoreV1().Pods("default").Delete(t.Context(), "app", metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
	realapi.Eventually(t, "a deleted pod goes", func() bool {
		_, err := api.Admin.CoreV1().Pods("default").Get(t.Context(), "app", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	if s, c := runtime.Left(); s+c != 0 {
		t.Errorf("%d sandboxes and %d containers are left", s, c)
	}
}

func isReady(t *testing.T, admin kubernetes.Interface, name string) bool {
	t.Helper()
	p, err := admin.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// nodeRights asks for what a node that somebody took over would try.
func nodeRights(t *testing.T, api *realapi.Server, node kubernetes.Interface, own *corev1.Pod) {
	t.Helper()
	create(t, api.Admin, pod("theirs", "n2", func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "other"
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}}}}
	}))
	_, err := api.Admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}, metav1.CreateOptions{})
	check(t, err)
	for want, all := range map[bool][]string{
		true: {
			"get secrets used", "get configmaps used", "get pods app", "patch pods/status app", "delete pods app", "get nodes n1",
			"create serviceaccounts/token used", "get leases.coordination.k8s.io n1", "list services ",
		},
		false: {
			"list secrets ", "get secrets other", "update secrets used", "list configmaps ", "get configmaps other",
			"get pods theirs", "list pods ", "patch pods/status theirs", "delete pods theirs", "create pods/binding app", "patch pods app",
			"create pods/exec app", "create serviceaccounts/token other", "get nodes n2", "list nodes ", "patch nodes/status n2", "delete nodes n1",
			"list namespaces ", "list peers.mesh.skein.dev ", "get leases.coordination.k8s.io n2", "create deployments.apps ",
			"create clusterrolebindings.rbac.authorization.k8s.io ", "impersonate users admin",
		},
	} {
		for _, a := range all {
			if got := may(t, node, attributes(a)); got != want {
				t.Errorf("may %s: %v, want %v", a, got, want)
			}
		}
	}
	tries := map[string]func() error{
		"a token for no pod": func() error {
			_, err := node.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "used", &authv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
		"a token for a pod that does not use the account": func() error {
			_, err := node.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "other", &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
				BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: own.Name, UID: own.UID},
			}}, metav1.CreateOptions{})
			return err
		},
		"an ordinary pod": func() error {
			_, err := node.CoreV1().Pods("default").Create(t.Context(), pod("mine", "n1", nil), metav1.CreateOptions{})
			return err
		},
		"pods of other nodes": func() error {
			_, err := node.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=n2"})
			return err
		},
		"a label that isolates nodes": func() error {
			n, err := node.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				return nil //nolint:nilerr // only the update may be what is refused
			}
			n.Labels["node-restriction.kubernetes.io/trusted"] = "yes"
			_, err = node.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{})
			return err
		},
	}
	for what, try := range tries {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
	api.Refused() // those above
}

// attributes reads "verb resource[.group][/sub] name".
func attributes(s string) authorizationv1.ResourceAttributes {
	f := strings.SplitN(s, " ", 3)
	res, sub, _ := strings.Cut(f[1], "/")
	res, group, _ := strings.Cut(res, ".")
	a := authorizationv1.ResourceAttributes{Verb: f[0], Group: group, Resource: res, Subresource: sub, Name: f[2], Namespace: "default"}
	switch res {
	case "nodes", "namespaces", "clusterrolebindings", "users", "peers":
		a.Namespace = ""
	case "leases":
		a.Namespace = corev1.NamespaceNodeLease
	}
	return a
}

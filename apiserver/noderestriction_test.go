package apiserver_test

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// podOn makes a pod that is bound to a node.
func podOn(t *testing.T, c kubernetes.Interface, node, name string, volumes ...corev1.Volume) *corev1.Pod {
	t.Helper()
	p, err := c.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Volumes: volumes, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestANodeTouchesOnlyPodsOfItsOwn(t *testing.T) {
	f := start(t)
	admin, node := f.client(t, f.admin(t)), f.client(t, f.user(t, "system:node:n1", "system:nodes"))
	account(t, admin, "default")
	podOn(t, admin, "n1", "mine")
	podOn(t, admin, "n2", "theirs")
	pods := node.CoreV1().Pods("default")
	evict := func(name string) error {
		return pods.EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	for name, row := range map[string]struct {
		err  error
		want func(error) bool
	}{
		"delete another's":      {pods.Delete(t.Context(), "theirs", now), apierrors.IsForbidden},
		"evict another's":       {evict("theirs"), apierrors.IsForbidden},
		"delete what is not":    {pods.Delete(t.Context(), "none", now), apierrors.IsForbidden},
		"evict what is not":     {evict("none"), apierrors.IsForbidden},
		"delete one of its own": {pods.Delete(t.Context(), "mine", now), func(err error) bool { return err == nil }},
	} {
		if !row.want(row.err) {
			t.Errorf("%s: %v", name, row.err)
		}
	}
}

func TestANodeDoesNotSayWhatDevicesItsPodsGot(t *testing.T) {
	f := start(t)
	admin, node := f.client(t, f.admin(t)), f.client(t, f.user(t, "system:node:n1", "system:nodes"))
	account(t, admin, "default")
	p := podOn(t, admin, "n1", "p")
	update := func(change func(*corev1.PodStatus)) error {
		up := p.DeepCopy()
		up.ResourceVersion = ""
		change(&up.Status)
		_, err := node.CoreV1().Pods("default").UpdateStatus(t.Context(), up, metav1.UpdateOptions{})
		return err
	}
	for field, change := range map[string]func(*corev1.PodStatus){
		"resource claim statues": func(s *corev1.PodStatus) {
			s.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c"}}
		},
		"extended resource claim status": func(s *corev1.PodStatus) {
			s.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "c"}
		},
		"node allocatable resource claim statuses": func(s *corev1.PodStatus) {
			s.NodeAllocatableResourceClaimStatuses = []corev1.NodeAllocatableResourceClaimStatus{{ResourceClaimName: "c"}}
		},
	} {
		if err := update(change); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want it forbidden", field, err)
		}
	}
	if err := update(func(s *corev1.PodStatus) { s.Phase = corev1.PodRunning }); err != nil {
		t.Errorf("what it may say: %v", err)
	}
}

func TestANodeGetsTheTokensThatDriversOfItsVolumesAskFor(t *testing.T) {
	f := start(t)
	admin, node := f.client(t, f.admin(t)), f.client(t, f.user(t, "system:node:n1", "system:nodes"))
	account(t, admin, "default")
	if _, err := admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	driver := func(name, audience string) {
		t.Helper()
		if _, err := admin.StorageV1().CSIDrivers().Create(t.Context(), &storagev1.CSIDriver{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: audience}}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	driver("csi.example.com", "new")
	driver("file.csi.azure.com", "old")
	pods := map[string]*corev1.Pod{
		"of a driver": podOn(t, admin, "n1", "new", corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
			CSI: &corev1.CSIVolumeSource{Driver: "csi.example.com"},
		}}),
		"of a kind that became a driver's": podOn(t, admin, "n1", "old", corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
			AzureFile: &corev1.AzureFileVolumeSource{SecretName: "s", ShareName: "s"},
		}}),
	}
	for volume, p := range pods {
		for _, audience := range []string{"new", "old", "else"} {
			_, err := node.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
				Audiences: []string{audience}, BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
			}}, metav1.CreateOptions{})
			if want := audience == p.Name; want != (err == nil) || !want && !apierrors.IsForbidden(err) {
				t.Errorf("a volume %s, audience %s: %v, want it %v", volume, audience, err, want)
			}
		}
	}
	_, err := node.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "none", UID: "none"},
	}}, metav1.CreateOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("a token of a pod that is not: %v, want not found", err)
	}
}

package apiserver_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func amounts(cpu, memory string) corev1.ResourceList {
	out := corev1.ResourceList{}
	if cpu != "" {
		out[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func demanding(name string, requests, limits corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits},
		}}},
	}
}

func TestLimitRangesFillInAndBound(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	pods := c.CoreV1().Pods("default")
	_, err := c.CoreV1().LimitRanges("default").Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "bounds"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
			{
				Type: corev1.LimitTypeContainer, Min: amounts("50m", ""), Max: amounts("500m", ""),
				DefaultRequest: amounts("100m", "20Mi"), Default: amounts("300m", "50Mi"), MaxLimitRequestRatio: amounts("4", ""),
			},
			{Type: corev1.LimitTypePersistentVolumeClaim, Max: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pods.Create(t.Context(), demanding("plain", nil, nil), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := p.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "100m" || r.Limits.Memory().String() != "50Mi" {
		t.Errorf("the container got %v", r)
	}
	if got, want := p.Annotations["kubernetes.io/limit-ranger"],
		"LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"; got != want {
		t.Errorf("noted %q, want %q", got, want)
	}
	for name, row := range map[string]struct {
		requests, limits corev1.ResourceList
		want             string
	}{
		"less":  {amounts("10m", ""), amounts("40m", ""), "minimum cpu usage per Container is 50m, but request is 10m"},
		"more":  {amounts("400m", ""), amounts("600m", ""), "maximum cpu usage per Container is 500m, but limit is 600m"},
		"ratio": {amounts("60m", ""), amounts("480m", ""), "cpu max limit to request ratio per Container is 4, but provided ratio is 8.000000"},
	} {
		_, err := pods.Create(t.Context(), demanding(name, row.requests, row.limits), metav1.CreateOptions{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "big"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("3Gi")}},
	}}
	if _, err := c.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), claim, metav1.CreateOptions{}); err == nil ||
		!strings.Contains(err.Error(), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi") {
		t.Errorf("a large claim: %v", err)
	}
}

func TestDefaultClassesAndProtection(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	_, err := c.StorageV1().StorageClasses().Create(t.Context(), &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: "usual", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "skein.test/disk",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := c.CoreV1().PersistentVolumeClaims("default").Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil || claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != "usual" || !slices.Contains(claim.Finalizers, "kubernetes.io/pvc-protection") {
		t.Errorf("the claim is %v (%v)", claim, err)
	}
	_, err = c.NetworkingV1().IngressClasses().Create(t.Context(), &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: "usual", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: "skein.test/ingress"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ing, err := c.NetworkingV1().Ingresses("default").Create(t.Context(), &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "some"}, Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}},
	}, metav1.CreateOptions{})
	if err != nil || ing.Spec.IngressClassName == nil || *ing.Spec.IngressClassName != "usual" {
		t.Errorf("the ingress is %v (%v)", ing, err)
	}
}

func TestARuntimeClassSetsOverheadAndPlace(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	pods := c.CoreV1().Pods("default")
	name := "heavy"
	p := demanding("a", nil, nil)
	p.Spec.RuntimeClassName = &name
	if _, err := pods.Create(t.Context(), p, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), `pod rejected: RuntimeClass "heavy" not found`) {
		t.Errorf("without its class: %v", err)
	}
	_, err := c.NodeV1().RuntimeClasses().Create(t.Context(), &nodev1.RuntimeClass{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: "runc",
		Overhead:   &nodev1.Overhead{PodFixed: amounts("10m", "")},
		Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"disk": "fast"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil || got.Spec.Overhead.Cpu().String() != "10m" || got.Spec.NodeSelector["disk"] != "fast" {
		t.Errorf("the pod is %v (%v)", got, err)
	}
	odd := demanding("b", nil, nil)
	odd.Spec.Overhead = amounts("1", "")
	if _, err := pods.Create(t.Context(), odd, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "without corresponding RuntimeClass") {
		t.Errorf("overhead of its own: %v", err)
	}
}

func TestANewClusterHasTheUsualObjects(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	cidr, err := c.NetworkingV1().ServiceCIDRs().Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil || len(cidr.Spec.CIDRs) == 0 || len(cidr.Status.Conditions) != 1 {
		t.Errorf("the range of services is %v (%v)", cidr, err)
	}
	class, err := c.SchedulingV1().PriorityClasses().Get(t.Context(), "system-node-critical", metav1.GetOptions{})
	if err != nil || class.Value != 2000001000 {
		t.Errorf("the highest priority is %v (%v)", class, err)
	}
}

func TestAQuotaIsBookedBeforeTheObjectExists(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "default")
	quotas := c.CoreV1().ResourceQuotas("default")
	hard := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1"), corev1.ResourceRequestsCPU: resource.MustParse("200m"), "count/configmaps": resource.MustParse("2")}
	q, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: hard}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	q.Status.Hard, q.Status.Used = hard, corev1.ResourceList{ // as the controller counts them
		corev1.ResourcePods: resource.MustParse("0"), corev1.ResourceRequestsCPU: resource.MustParse("0"), "count/configmaps": resource.MustParse("1"),
	}
	if _, err := quotas.UpdateStatus(t.Context(), q, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	pods := c.CoreV1().Pods("default")
	_, err = pods.Create(t.Context(), demanding("silent", nil, nil), metav1.CreateOptions{})
	refused("a pod that asks for nothing", err, "failed quota: few: must specify requests.cpu for: c")
	_, err = pods.Create(t.Context(), demanding("greedy", amounts("300m", ""), nil), metav1.CreateOptions{})
	refused("a pod that asks for too much", err, "exceeded quota: few, requested: requests.cpu=300m, used: requests.cpu=0, limited: requests.cpu=200m")
	if _, err := pods.Create(t.Context(), demanding("modest", amounts("100m", ""), nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if q, err = quotas.Get(t.Context(), "few", metav1.GetOptions{}); err != nil || q.Status.Used.Pods().String() != "1" {
		t.Errorf("booked %v (%v), want one pod", q.Status.Used, err)
	}
	_, err = pods.Create(t.Context(), demanding("second", amounts("10m", ""), nil), metav1.CreateOptions{})
	refused("a second pod", err, "exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1")
	for i, name := range []string{"one", "two"} {
		_, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if (err == nil) != (i == 0) {
			t.Errorf("config map %s: %v", name, err)
		}
	}
}

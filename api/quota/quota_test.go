package quota_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/quota"
)

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func pod(requests, limits corev1.ResourceList, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}}}
	for _, f := range edit {
		f(p)
	}
	return p
}

func TestUsage(t *testing.T) {
	now := time.Unix(10000, 0)
	class := "gold"
	in := quota.Objects{
		Pods: []*corev1.Pod{
			pod(list("cpu", "500m", "memory", "1Gi", "example.com/gpu", "2"), list("cpu", "1")),
			pod(nil, nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(5)); p.Spec.PriorityClassName = "high" }),
			pod(list("cpu", "8"), nil, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
			pod(list("cpu", "8"), nil, func(p *corev1.Pod) { // stuck on a lost node
				p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(-time.Hour)}, new(int64(30))
			}),
		},
		Services: []*corev1.Service{
			{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: make([]corev1.ServicePort, 2)}},
			{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: make([]corev1.ServicePort, 3), AllocateLoadBalancerNodePorts: new(false)}},
		},
		Claims: []*corev1.PersistentVolumeClaim{{Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "3Gi")},
		}}},
		Counts: map[string]int{"configmaps": 4, "replicasets.apps": 2},
	}
	for _, row := range []struct {
		name   string
		scopes []corev1.ResourceQuotaScope
		sel    *corev1.ScopeSelector
		hard   string
		want   string
	}{
		{name: "pods that have not ended", hard: "pods", want: "2"},
		{name: "all pods that exist", hard: "count/pods", want: "4"},
		{name: "cpu is requests.cpu", hard: "cpu", want: "500m"},
		{name: "limits", hard: "limits.cpu", want: "1"},
		{name: "extended resources", hard: "requests.example.com/gpu", want: "2"},
		{name: "best effort only", scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}, hard: "pods", want: "1"},
		{name: "terminating only", scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating}, hard: "pods", want: "1"},
		{name: "all scopes must hold", scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotBestEffort}, hard: "pods", want: "0"},
		{name: "by priority class", sel: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{"high"}},
		}}, hard: "pods", want: "1"},
		{name: "services", hard: "services", want: "2"},
		{name: "node ports that are given", hard: "services.nodeports", want: "2"},
		{name: "load balancers", hard: "services.loadbalancers", want: "1"},
		{name: "scoped quotas count pods only", scopes: []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeBestEffort}, hard: "services", want: "0"},
		{name: "storage", hard: "requests.storage", want: "3Gi"},
		{name: "storage of a class", hard: "gold.storageclass.storage.k8s.io/requests.storage", want: "3Gi"},
		{name: "of another", hard: "tin.storageclass.storage.k8s.io/requests.storage", want: "0"},
		{name: "config maps by their old name", hard: "configmaps", want: "4"},
		{name: "objects of any kind", hard: "count/replicasets.apps", want: "2"},
	} {
		q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list(row.hard, "100"), Scopes: row.scopes, ScopeSelector: row.sel}}
		got := quota.Used(q, in, now)[corev1.ResourceName(row.hard)]
		if want := resource.MustParse(row.want); got.Cmp(want) != 0 {
			t.Errorf("%s: %s of %s, want %s", row.name, got.String(), row.hard, row.want)
		}
	}
}

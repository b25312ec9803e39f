package kinds

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Pod declares pods.
func Pod() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("pods"), Kind: "Pod", Singular: "pod",
		ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true,
		New: func() runtime.Object { return &corev1.Pod{} }, NewList: func() runtime.Object { return &corev1.PodList{} },
		Columns: podColumns(), Row: row(podRow), Select: selects(podFields), Default: defaults(defaulting.Pod),
		Strategy: rules[*corev1.Pod]{
			create: createPod, update: updatePod, warn: warnPod,
			validate: validation.Pod, validateUpdate: validation.PodUpdate,
		}.strategy(),
		Status:       rules[*corev1.Pod]{update: updatePodStatus, validateUpdate: validation.PodStatusUpdate}.status(),
		Subresources: podSubresources(),
		Grace:        gracePod,
	}
}

func podFields(p *corev1.Pod) fields.Set {
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             ip,
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

func createPod(p *corev1.Pod) {
	p.Generation = 1
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: metav1.Now(),
		})
	}
	dropAlpha(&p.Spec, nil)
	mergeLabelKeys(p)
	defaulting.PodLevelResources(p)
	p.Status.QOSClass = qosClass(p)
}

func updatePod(p, old *corev1.Pod) {
	p.Status = old.Status
	if p.Spec.Resources == nil && old.Spec.Resources != nil {
		p.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	dropAlpha(&p.Spec, &old.Spec)
	bump(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec)
}

func updatePodStatus(p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp = nil
	p.OwnerReferences = old.OwnerReferences
	s, had := &p.Status, &old.Status
	if s.QOSClass == "" {
		s.QOSClass = had.QOSClass
	}
	if s.ResourceClaimStatuses == nil {
		s.ResourceClaimStatuses = had.ResourceClaimStatuses
	}
	if s.ExtendedResourceClaimStatus == nil {
		s.ExtendedResourceClaimStatus = had.ExtendedResourceClaimStatus
	}
	keepObservedGenerations(s, had)
	dropAlphaStatus(s)
}

// keepObservedGenerations protects observed generations from writers that do
// not know them. Conditions of one type are matched in order.
func keepObservedGenerations(s, had *corev1.PodStatus) {
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = had.ObservedGeneration
	}
	seen := map[corev1.PodConditionType][]int64{}
	for _, c := range had.Conditions {
		seen[c.Type] = append(seen[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		queue := seen[c.Type]
		if len(queue) == 0 {
			continue
		}
		seen[c.Type] = queue[1:]
		if c.ObservedGeneration == 0 {
			c.ObservedGeneration = queue[0]
		}
	}
}

// gracePod gives a pod the time that the deletion or its spec names, and none
// if no node runs it.
func gracePod(_ context.Context, o runtime.Object, options *metav1.DeleteOptions) bool {
	if options == nil {
		return false
	}
	p := o.(*corev1.Pod)
	seconds := valueOr(p.Spec.TerminationGracePeriodSeconds, 0)
	if options.GracePeriodSeconds != nil {
		seconds = *options.GracePeriodSeconds
	}
	done := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	switch {
	case p.Spec.NodeName == "" || done:
		seconds = 0
	case seconds < 0:
		seconds = 1
	}
	options.GracePeriodSeconds = &seconds
	return true
}

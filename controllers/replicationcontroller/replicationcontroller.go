// Package replicationcontroller runs ReplicationControllers as the ReplicaSets
// that they are.
//
// Its invariant: nothing of a ReplicationController is lost or invented on the
// way; what only ReplicaSets have is never written.
package replicationcontroller

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/replicaset"
	"skein.dev/skein/controllers/run"
)

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	rcs := kit.Informers.Core().V1().ReplicationControllers()
	return replicaset.For(kit, "replicationcontroller-controller", "replicationcontrollers/status", rcs.Informer(), store{kit: kit, rcs: rcs.Lister()})
}

type store struct {
	kit component.Kit
	rcs corelisters.ReplicationControllerLister
}

// AsSet is rc as a ReplicaSet.
func AsSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return rs
}

// StatusOf is a ReplicaSet's status as that of a ReplicationController.
func StatusOf(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}

func (store) Kind() schema.GroupVersionKind {
	return corev1.SchemeGroupVersion.WithKind("ReplicationController")
}

func (s store) Get(namespace, name string) (*appsv1.ReplicaSet, runtime.Object, error) {
	rc, err := s.rcs.ReplicationControllers(namespace).Get(name)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the caller wraps it
	}
	return AsSet(rc), rc, nil
}

func (s store) Live(ctx context.Context, namespace, name string) (metav1.Object, error) {
	return s.kit.Client.CoreV1().ReplicationControllers(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s store) WriteStatus(ctx context.Context, set runtime.Object, status appsv1.ReplicaSetStatus) error {
	rc, ok := set.(*corev1.ReplicationController)
	if !ok {
		return fmt.Errorf("write status: %T is no ReplicationController", set)
	}
	up := rc.DeepCopy()
	up.Status = StatusOf(status)
	_, err := s.kit.Client.CoreV1().ReplicationControllers(rc.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	return err //nolint:wrapcheck // the caller wraps it
}

func (s store) Selecting(p *corev1.Pod) []run.Key {
	all, err := s.rcs.GetPodControllers(p)
	if err != nil { // none selects it
		return nil
	}
	return run.KeysOf(all)
}

package defaulting

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	revisionHistory         = 10
	progressDeadlineSeconds = 600
	quarter                 = "25%"
)

// Deployment defaults a deployment: one replica, rolled by quarters.
func Deployment(d *appsv1.Deployment) {
	s := &d.Spec
	point(&s.Replicas, 1)
	set(&s.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		point(&s.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		point(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString(quarter))
		point(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString(quarter))
	}
	point(&s.RevisionHistoryLimit, revisionHistory)
	point(&s.ProgressDeadlineSeconds, progressDeadlineSeconds)
	PodSpec(&s.Template.Spec)
}

// ReplicaSet defaults a replica set.
func ReplicaSet(r *appsv1.ReplicaSet) {
	point(&r.Spec.Replicas, 1)
	PodSpec(&r.Spec.Template.Spec)
}

// ReplicationController defaults a replication controller; it takes its
// labels and selector from the template if it has none.
func ReplicationController(r *corev1.ReplicationController) {
	if t := r.Spec.Template; t != nil {
		if t.Labels != nil {
			if len(r.Spec.Selector) == 0 {
				r.Spec.Selector = t.Labels
			}
			if len(r.Labels) == 0 {
				r.Labels = t.Labels
			}
		}
		PodSpec(&t.Spec)
	}
	point(&r.Spec.Replicas, 1)
}

// DaemonSet defaults a daemon set: rolled one node at a time.
func DaemonSet(d *appsv1.DaemonSet) {
	s := &d.Spec
	set(&s.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if s.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		point(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		point(&s.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		point(&s.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	point(&s.RevisionHistoryLimit, revisionHistory)
	PodSpec(&s.Template.Spec)
}

// StatefulSet defaults a stateful set: in order, rolled from the last
// ordinal, its claims retained.
func StatefulSet(sts *appsv1.StatefulSet) {
	s := &sts.Spec
	set(&s.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	u := &s.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateStatefulSetStrategyType
		point(&u.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if u.Type == appsv1.RollingUpdateStatefulSetStrategyType && u.RollingUpdate != nil {
		point(&u.RollingUpdate.Partition, 0)
		point(&u.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	point(&s.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	set(&s.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	set(&s.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	point(&s.Replicas, 1)
	point(&s.RevisionHistoryLimit, revisionHistory)
	PodSpec(&s.Template.Spec)
	for i := range s.VolumeClaimTemplates {
		t := &s.VolumeClaimTemplates[i]
		PersistentVolumeClaim(t)
		t.APIVersion, t.Kind = "v1", "PersistentVolumeClaim" // whatever the user said
	}
}

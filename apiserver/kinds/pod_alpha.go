package kinds

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// dropAlpha clears the fields of features that v1.37 has switched off, except
// those that the object used before. old is nil on creation.
func dropAlpha(s, old *corev1.PodSpec) {
	used := map[string]bool{}
	if old != nil {
		eachAlpha(old, func(feature string, _ func()) { used[feature] = true })
	}
	eachAlpha(s, func(feature string, clearField func()) {
		if !used[feature] {
			clearField()
		}
	})
}

// dropAlphaJob is dropAlpha for jobs and their pods.
func dropAlphaJob(s, old *batchv1.JobSpec) {
	var pods *corev1.PodSpec
	if old != nil {
		pods = &old.Template.Spec
	}
	if old == nil || old.Scheduling == nil {
		s.Scheduling = nil
	}
	dropAlpha(&s.Template.Spec, pods)
}

// dropAlphaStatus clears what nodes report of features that v1.37 has
// switched off. No status has them: there is no other way in.
func dropAlphaStatus(s *corev1.PodStatus) {
	s.VolumeHealth, s.NodeAllocatableResourceClaimStatuses = nil, nil
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			for j := range list[i].VolumeMounts {
				list[i].VolumeMounts[j].VolumeStatus = nil
			}
		}
	}
}

// eachAlpha visits every alpha field that is set.
func eachAlpha(s *corev1.PodSpec, visit func(feature string, clearField func())) {
	if s.SchedulingGroup != nil {
		visit("SchedulingGroup", func() { s.SchedulingGroup = nil })
	}
	if s.EvictionResponders != nil {
		visit("EvictionResponders", func() { s.EvictionResponders = nil })
	}
	for i := range s.InitContainers {
		alphaContainer(&s.InitContainers[i], visit)
	}
	for i := range s.Containers {
		alphaContainer(&s.Containers[i], visit)
	}
	for i := range s.EphemeralContainers {
		alphaContainer((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), visit)
	}
	for i := range s.Volumes {
		alphaVolume(&s.Volumes[i], visit)
	}
}

func alphaContainer(c *corev1.Container, visit func(string, func())) {
	for i := range c.VolumeMounts {
		if m := &c.VolumeMounts[i]; m.BindMountOptions != nil {
			visit("BindMountOptions", func() { m.BindMountOptions = nil })
		}
	}
	gets := []*corev1.HTTPGetAction{}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		gets = append(gets, p.HTTPGet)
		if p.GRPC != nil && p.GRPC.Mode != nil {
			visit("GRPCMode", func() { p.GRPC.Mode = nil })
		}
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				gets = append(gets, h.HTTPGet)
			}
		}
		if l.StopSignal != nil {
			visit("StopSignal", func() {
				if l.StopSignal = nil; *l == (corev1.Lifecycle{}) {
					c.Lifecycle = nil
				}
			})
		}
	}
	for _, g := range gets {
		if g != nil && g.Protocol != nil {
			visit("HTTPProtocol", func() { g.Protocol = nil })
		}
	}
}

func alphaVolume(v *corev1.Volume, visit func(string, func())) {
	user := func(f **int64) {
		if *f != nil {
			visit("FileUser", func() { *f = nil })
		}
	}
	items := func(list []corev1.KeyToPath) {
		for i := range list {
			user(&list[i].User)
		}
	}
	downward := func(list []corev1.DownwardAPIVolumeFile) {
		for i := range list {
			user(&list[i].User)
		}
	}
	switch {
	case v.EmptyDir != nil && v.EmptyDir.Mode != nil:
		visit("EmptyDirMode", func() { v.EmptyDir.Mode = nil })
	case v.Secret != nil:
		user(&v.Secret.DefaultUser)
		items(v.Secret.Items)
	case v.ConfigMap != nil:
		user(&v.ConfigMap.DefaultUser)
		items(v.ConfigMap.Items)
	case v.DownwardAPI != nil:
		user(&v.DownwardAPI.DefaultUser)
		downward(v.DownwardAPI.Items)
	case v.Projected != nil:
		user(&v.Projected.DefaultUser)
		for i := range v.Projected.Sources {
			s := &v.Projected.Sources[i]
			switch { // of several sources, which are refused, only the first
			case s.Secret != nil:
				items(s.Secret.Items)
			case s.DownwardAPI != nil:
				downward(s.DownwardAPI.Items)
			case s.ConfigMap != nil:
				items(s.ConfigMap.Items)
			case s.ServiceAccountToken != nil:
				user(&s.ServiceAccountToken.User)
			case s.ClusterTrustBundle != nil:
				user(&s.ClusterTrustBundle.User)
			case s.PodCertificate != nil:
				user(&s.PodCertificate.User)
			}
		}
	}
}

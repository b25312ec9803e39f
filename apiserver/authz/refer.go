package authz

import (
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// ownPods yields a node's pods of a namespace that give it rights. Mirror pods,
// which a node makes itself, give none.
func (n *Node) ownPods(node, namespace string) iter.Seq[*corev1.Pod] {
	return func(yield func(*corev1.Pod) bool) {
		for o := range n.Objects.Each("/pods", namespace) {
			p, ok := o.(*corev1.Pod)
			if !ok || p.Spec.NodeName != node {
				continue
			}
			if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror && !yield(p) {
				return
			}
		}
	}
}

// refers reports whether a pod of the node needs the named object of its
// namespace.
func (n *Node) refers(node string, a authorizer.Attributes) bool {
	if a.GetName() == "" || a.GetNamespace() == "" {
		return false
	}
	for p := range n.ownPods(node, a.GetNamespace()) {
		if needs(p, a.GetResource(), a.GetName()) {
			return true
		}
	}
	return false
}

// mounts reports whether a pod of the node uses the claim that a volume is
// bound to.
func (n *Node) mounts(node, volume string) bool {
	if volume == "" {
		return false
	}
	v, ok := n.Objects.Get("/persistentvolumes", "", volume).(*corev1.PersistentVolume)
	return ok && n.claims(node, v)
}

func (n *Node) claims(node string, v *corev1.PersistentVolume) bool {
	ref := v.Spec.ClaimRef
	if ref == nil {
		return false
	}
	for p := range n.ownPods(node, ref.Namespace) {
		if needs(p, "persistentvolumeclaims", ref.Name) {
			return true
		}
	}
	return false
}

// opens reports whether a volume that the node mounts is opened with a secret.
func (n *Node) opens(node, namespace, secret string) bool {
	if namespace == "" || secret == "" {
		return false
	}
	for o := range n.Objects.Each("/persistentvolumes", "") {
		v, ok := o.(*corev1.PersistentVolume)
		if ok && slices.Contains(volumeSecrets(v), corev1.SecretReference{Namespace: namespace, Name: secret}) && n.claims(node, v) {
			return true
		}
	}
	return false
}

// volumeSecrets are those that a node needs to mount a volume.
func volumeSecrets(v *corev1.PersistentVolume) []corev1.SecretReference {
	var all []corev1.SecretReference
	add := func(refs ...*corev1.SecretReference) {
		for _, r := range refs {
			if r == nil {
				continue
			}
			ref := *r
			if ref.Namespace == "" && v.Spec.ClaimRef != nil {
				ref.Namespace = v.Spec.ClaimRef.Namespace
			}
			all = append(all, ref)
		}
	}
	switch s := &v.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		add(s.CSI.NodePublishSecretRef, s.CSI.NodeStageSecretRef, s.CSI.NodeExpandSecretRef)
	case s.FlexVolume != nil:
		add(s.FlexVolume.SecretRef)
	case s.ISCSI != nil:
		add(s.ISCSI.SecretRef)
	case s.RBD != nil:
		add(s.RBD.SecretRef)
	case s.CephFS != nil:
		add(s.CephFS.SecretRef)
	case s.Cinder != nil:
		add(s.Cinder.SecretRef)
	case s.AzureFile != nil:
		ref := corev1.SecretReference{Name: s.AzureFile.SecretName}
		if s.AzureFile.SecretNamespace != nil {
			ref.Namespace = *s.AzureFile.SecretNamespace
		}
		add(&ref)
	}
	return all
}

// needs reports whether a pod needs the named object of its namespace.
func needs(p *corev1.Pod, resource, name string) bool {
	switch resource {
	case "serviceaccounts":
		return p.Spec.ServiceAccountName == name
	case "persistentvolumeclaims":
		return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == name ||
				v.Ephemeral != nil && p.Name+"-"+v.Name == name
		})
	case "secrets":
		return slices.Contains(Secrets(p), name)
	case "configmaps":
		return slices.Contains(ConfigMaps(p), name)
	case "resourceclaims":
		if s := p.Status.ExtendedResourceClaimStatus; s != nil && s.ResourceClaimName == name {
			return true
		}
		return slices.ContainsFunc(p.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool {
			claim, _, err := resourceclaim.Name(p, &c)
			return err == nil && claim != nil && *claim == name
		})
	}
	return false
}

func containersOf(p *corev1.Pod) []corev1.Container {
	all := append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...)
	for _, e := range p.Spec.EphemeralContainers {
		all = append(all, corev1.Container(e.EphemeralContainerCommon))
	}
	return all
}

// Secrets are the names of all that a pod refers to, in its own namespace.
func Secrets(p *corev1.Pod) (names []string) {
	local := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			names = append(names, ref.Name)
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		names = append(names, s.Name)
	}
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil {
				names = append(names, e.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				names = append(names, e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i].VolumeSource; {
		case v.Secret != nil:
			names = append(names, v.Secret.SecretName)
		case v.Projected != nil:
			for _, src := range v.Projected.Sources {
				if src.Secret != nil {
					names = append(names, src.Secret.Name)
				}
			}
		case v.CSI != nil:
			local(v.CSI.NodePublishSecretRef)
		case v.FlexVolume != nil:
			local(v.FlexVolume.SecretRef)
		case v.ISCSI != nil:
			local(v.ISCSI.SecretRef)
		case v.RBD != nil:
			local(v.RBD.SecretRef)
		case v.CephFS != nil:
			local(v.CephFS.SecretRef)
		case v.Cinder != nil:
			local(v.Cinder.SecretRef)
		case v.ScaleIO != nil:
			local(v.ScaleIO.SecretRef)
		case v.StorageOS != nil:
			local(v.StorageOS.SecretRef)
		case v.AzureFile != nil:
			names = append(names, v.AzureFile.SecretName)
		}
	}
	return names
}

// ConfigMaps are the names of all that a pod refers to.
func ConfigMaps(p *corev1.Pod) (names []string) {
	for _, c := range containersOf(p) {
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				names = append(names, e.ConfigMapRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				names = append(names, e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.ConfigMap != nil {
			names = append(names, v.ConfigMap.Name)
		}
		if v.Projected == nil {
			continue
		}
		for _, src := range v.Projected.Sources {
			if src.ConfigMap != nil {
				names = append(names, src.ConfigMap.Name)
			}
		}
	}
	return names
}

package spec

import corev1 "k8s.io/api/core/v1"

// Uses reports whether the pod's volumes or environment refer to the config
// map or secret of that name.
func Uses(pod *corev1.Pod, kind, name string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil && kind == "ConfigMap" && v.ConfigMap.Name == name,
			v.Secret != nil && kind == "Secret" && v.Secret.SecretName == name:
			return true
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil && kind == "ConfigMap" && s.ConfigMap.Name == name ||
					s.Secret != nil && kind == "Secret" && s.Secret.Name == name {
					return true
				}
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if envUses(&list[i], kind, name) {
				return true
			}
		}
	}
	if kind == "Secret" {
		for _, s := range pod.Spec.ImagePullSecrets {
			if s.Name == name {
				return true
			}
		}
	}
	return false
}

func envUses(c *corev1.Container, kind, name string) bool {
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil && kind == "ConfigMap" && f.ConfigMapRef.Name == name ||
			f.SecretRef != nil && kind == "Secret" && f.SecretRef.Name == name {
			return true
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil && kind == "ConfigMap" && r.Name == name {
			return true
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil && kind == "Secret" && r.Name == name {
			return true
		}
	}
	return false
}

package validation

import (
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// RuntimeClass validates a runtime class.
func RuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	return runtimeClass(c, content.IsDNS1123Label)
}

func runtimeClass(c *nodev1.RuntimeClass, label func(string) []string) field.ErrorList {
	p := bareMeta(&c.ObjectMeta, false, apimachinery.NameIsDNSSubdomain)
	p.requireFormat(field.NewPath("handler"), c.Handler, label)
	pod := &podCheck{problems: &p, spec: &corev1.PodSpec{}}
	if c.Overhead != nil {
		pod.checkRequirements(field.NewPath("overhead"), &corev1.ResourceRequirements{Limits: c.Overhead.PodFixed}, containerResourceName)
	}
	s := c.Scheduling
	if s == nil {
		return p.list
	}
	path := field.NewPath("scheduling")
	p.labels(path.Child("nodeSelector"), s.NodeSelector)
	pod.checkTolerations(path.Child("tolerations"), s.Tolerations)
	seen := map[corev1.Toleration]bool{}
	for i, t := range s.Tolerations {
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			p.duplicate(path.Child("tolerations").Index(i), printed(t))
		}
		seen[key] = true
	}
	return p.list
}

// RuntimeClassUpdate validates a change of a runtime class; its handler stays.
func RuntimeClassUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	p := problems{runtimeClass(c, validation.IsDNS1123Label)} // generated rules stop at what may not change
	p.add(bareMetaUpdate(&c.ObjectMeta, &old.ObjectMeta)...)
	p.fixed(field.NewPath("handler"), c.Handler, old.Handler)
	return p.list
}

package admit

import (
	"cmp"
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

// Annotations that make a class the default one, and the older names of a
// class on those who use it.
const (
	defaultStorageClass     = "storageclass.kubernetes.io/is-default-class"
	oldDefaultStorageClass  = "storageclass.beta.kubernetes.io/is-default-class"
	ingressClassAnnotation  = "kubernetes.io/ingress.class"
	claimProtection         = "kubernetes.io/pvc-protection"
	volumeProtection        = "kubernetes.io/pv-protection"
	attributesClassInUse    = "kubernetes.io/vac-protection"
	attributesClassResource = "volumeattributesclasses"
)

// newest returns the class of the resource that pick chooses: the youngest of
// several, and of those of one second the first by name.
func newest[T metav1.Object](c Config, resource string, pick func(T) bool) (best T, found bool) {
	for obj := range c.Reader.Each(resource, "") {
		t, ok := obj.(T)
		if !ok || !pick(t) {
			continue
		}
		if !found || cmp.Or(
			t.GetCreationTimestamp().Compare(best.GetCreationTimestamp().Time),
			cmp.Compare(best.GetName(), t.GetName()),
		) > 0 {
			best, found = t, true
		}
	}
	return best, found
}

// storageClass gives a claim that names no class the default one.
func (c Config) storageClass(_ context.Context, a admission.Attributes) error {
	claim, ok := a.GetObject().(*corev1.PersistentVolumeClaim)
	if !ok || !is(a, "", "persistentvolumeclaims", "") || claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return nil
	}
	class, ok := newest(c, storagev1.GroupName+"/storageclasses", func(s *storagev1.StorageClass) bool {
		return s.Annotations[defaultStorageClass] == "true" || s.Annotations[oldDefaultStorageClass] == "true"
	})
	if ok {
		claim.Spec.StorageClassName = &class.Name
	}
	return nil
}

// ingressClass gives an Ingress that names no class the default one.
func (c Config) ingressClass(_ context.Context, a admission.Attributes) error {
	ing, ok := a.GetObject().(*networkingv1.Ingress)
	if !ok || !is(a, networkingv1.GroupName, "ingresses", "") || ing.Spec.IngressClassName != nil {
		return nil
	}
	if _, ok := ing.Annotations[ingressClassAnnotation]; ok {
		return nil
	}
	class, ok := newest(c, networkingv1.GroupName+"/ingressclasses", func(k *networkingv1.IngressClass) bool {
		return k.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	if ok {
		ing.Spec.IngressClassName = &class.Name
	}
	return nil
}

// inUse puts the finalizer on what may not vanish while somebody uses it.
func inUse(_ context.Context, a admission.Attributes) error {
	finalizer := map[string]string{
		"/persistentvolumeclaims": claimProtection, "/persistentvolumes": volumeProtection,
		storagev1.GroupName + "/" + attributesClassResource: attributesClassInUse,
	}[a.GetResource().Group+"/"+a.GetResource().Resource]
	obj, ok := a.GetObject().(metav1.Object)
	if !ok || finalizer == "" || a.GetSubresource() != "" || slices.Contains(obj.GetFinalizers(), finalizer) {
		return nil
	}
	obj.SetFinalizers(append(obj.GetFinalizers(), finalizer))
	return nil
}

// runtimeClass returns the class of a new pod, nil if it names none.
func (c Config) runtimeClass(a admission.Attributes, p *corev1.Pod) (*nodev1.RuntimeClass, error) {
	if p.Spec.RuntimeClassName == nil {
		return nil, nil //nolint:nilnil // most pods have none
	}
	name := *p.Spec.RuntimeClassName
	class, ok := newest(c, nodev1.GroupName+"/runtimeclasses", func(k *nodev1.RuntimeClass) bool { return k.Name == name })
	if !ok {
		return nil, refuse(a, "pod rejected: RuntimeClass %q not found", name)
	}
	return class, nil
}

// overhead gives a new pod what its RuntimeClass costs and where it runs.
func (c Config) overhead(_ context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil {
		return nil
	}
	class, err := c.runtimeClass(a, p)
	if err != nil || class == nil {
		return err
	}
	if o := class.Overhead; o != nil {
		if len(p.Spec.Overhead) > 0 && !equality.Semantic.DeepEqual(o.PodFixed, p.Spec.Overhead) {
			return refuse(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		p.Spec.Overhead = o.PodFixed.DeepCopy()
	}
	if class.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(class.Scheduling.NodeSelector)) {
		want := class.Scheduling.NodeSelector[key]
		if got, ok := p.Spec.NodeSelector[key]; ok && got != want {
			return refuse(a, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, want, key, got)
		}
		if p.Spec.NodeSelector == nil {
			p.Spec.NodeSelector = map[string]string{}
		}
		p.Spec.NodeSelector[key] = want
	}
	for _, t := range class.Scheduling.Tolerations {
		same := func(has corev1.Toleration) bool { return equality.Semantic.DeepEqual(has, t) }
		if !slices.ContainsFunc(p.Spec.Tolerations, same) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	return nil
}

// checkOverhead refuses an overhead that no RuntimeClass has.
func (c Config) checkOverhead(_ context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil {
		return nil
	}
	class, err := c.runtimeClass(a, p)
	switch {
	case err != nil:
		return err
	case class == nil || class.Overhead == nil:
		if p.Spec.Overhead != nil {
			return refuse(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
		}
	case !equality.Semantic.DeepEqual(class.Overhead.PodFixed, p.Spec.Overhead):
		return refuse(a, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	}
	return nil
}

package kinds

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func podSpecWords() doc { return corev1.PodSpec{} }

// templateGeneration counts the templates of a daemon set in the annotation
// that took the place of a field; users may not set it.
func templateGeneration(d, old *appsv1.DaemonSet) {
	n := int64(1)
	if old == nil {
		if asked, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64); err == nil && asked > 1 {
			n = asked
		}
	} else {
		if had, err := strconv.ParseInt(old.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64); err == nil {
			n = had
		}
		if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
			n++
		}
	}
	annotations := make(map[string]string, len(d.Annotations)+1)
	maps.Copy(annotations, d.Annotations)
	annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
	d.Annotations = annotations
}

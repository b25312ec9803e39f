package kinds

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ControllerRevision declares the snapshots from which stateful sets and
// daemon sets roll back.
func ControllerRevision() registry.Kind {
	k := namespaced[appsv1.ControllerRevision, appsv1.ControllerRevisionList](appsv1.SchemeGroupVersion, "controllerrevisions")
	k.Columns = []metav1.TableColumnDefinition{
		str("Controller", "Controller of the object"), str("Revision", describe(appsv1.ControllerRevision{}, "revision")), ageColumn(),
	}
	k.Row = row(func(r *appsv1.ControllerRevision) []any {
		owner := none
		if ref := metav1.GetControllerOf(r); ref != nil {
			if gv, err := schema.ParseGroupVersion(ref.APIVersion); err == nil {
				owner = strings.ToLower(gv.WithKind(ref.Kind).GroupKind().String()) + "/" + ref.Name
			}
		}
		return []any{owner, r.Revision, age(r.CreationTimestamp)}
	})
	k.Strategy = rules[*appsv1.ControllerRevision]{
		validate: validation.ControllerRevision, validateUpdate: validation.ControllerRevisionUpdate,
	}.strategy()
	return k
}

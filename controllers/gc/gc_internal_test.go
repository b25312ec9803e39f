package gc

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata/fake"
)

// Whoever names an owner wrongly must not make it absent for those who name it
// rightly: they would be deleted.
func TestAnOwnerNamedWronglyIsNotAbsentForOthers(t *testing.T) {
	gvr := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	scheme := fake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &Controller{metadata: fake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "theirs", Name: "web", UID: "owner"},
	})}
	c.reset()
	c.kinds = map[schema.GroupKind]kind{{Group: "apps", Kind: "Deployment"}: {gvr: gvr, namespaced: true}}
	ask := func(namespace, name string) ownerState {
		t.Helper()
		state, err := c.owner(t.Context(), &object{namespace: namespace}, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: "owner"})
		if err != nil {
			t.Fatal(err)
		}
		return state
	}
	for _, wrong := range [][2]string{{"theirs", "other"}, {"mine", "web"}} {
		if got := ask(wrong[0], wrong[1]); got != isAbsent {
			t.Errorf("%v: state %d, want absent", wrong, got)
		}
	}
	if got := ask("theirs", "web"); got != isSolid {
		t.Errorf("the owner itself: state %d, want solid", got)
	}
}

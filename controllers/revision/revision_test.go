package revision_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"skein.dev/skein/controllers/revision"
	"skein.dev/skein/controllers/run"
)

func TestTheNewestOfEqualRevisionsIsThePresentOne(t *testing.T) {
	kind := appsv1.SchemeGroupVersion.WithKind("DaemonSet")
	owner := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "d", UID: "u"}}
	one, two := corev1.PodTemplateSpec{}, corev1.PodTemplateSpec{}
	two.Spec.TerminationGracePeriodSeconds = new(int64)
	data, err := revision.Data(&one)
	if err != nil {
		t.Fatal(err)
	}
	made := func(name string, number int64) *appsv1.ControllerRevision {
		return &appsv1.ControllerRevision{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)}},
			Data:       runtime.RawExtension{Raw: data}, Revision: number,
		}
	}
	// The second is somebody's copy of the first.
	client := fake.NewClientset(made("a", 1), made("copy", 2))
	f := informers.NewSharedInformerFactory(client, 0)
	k := revision.Keeper{Client: client.AppsV1(), Informer: f.Apps().V1().ControllerRevisions().Informer(), Kind: kind}
	if err := run.IndexByOwner(k.Informer); err != nil {
		t.Fatal(err)
	}
	f.Start(t.Context().Done())
	f.WaitForCacheSync(t.Context().Done())

	got, old, err := k.Current(t.Context(), owner, &one, nil)
	if err != nil || got.Name != "copy" || got.Revision != 2 || len(old) != 1 || old[0].Name != "a" {
		t.Errorf("got %v, old %v, %v; want the copy with its number", got, old, err)
	}
	got, old, err = k.Current(t.Context(), owner, &two, nil)
	if err != nil || got.Revision != 3 || len(old) != 2 {
		t.Errorf("a new template: got %v, old %v, %v; want number 3", got, old, err)
	}
}

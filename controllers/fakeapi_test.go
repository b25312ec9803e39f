package controllers_test

import (
	"reflect"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// fakeAPI adds to the fake clientset what controllers rely on in a real API:
// resource versions with conflicts, UIDs, and status as a subresource.
type fakeAPI struct {
	*fake.Clientset

	mu  sync.Mutex // one write at a time; guards the field below
	rev uint64
}

func newFakeAPI(t *testing.T, objects ...runtime.Object) *fakeAPI {
	t.Helper()
	f := &fakeAPI{Clientset: fake.NewClientset()}
	for _, o := range objects {
		f.stamp(o)
		if err := f.Tracker().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	f.PrependReactor("create", "*", f.create)
	f.PrependReactor("update", "*", f.update)
	f.PrependReactor("patch", "*", f.patch)
	return f
}

func (f *fakeAPI) stamp(o runtime.Object) {
	m, err := meta.Accessor(o)
	if err != nil {
		return
	}
	f.rev++
	m.SetResourceVersion(strconv.FormatUint(f.rev, 10))
	if m.GetUID() == "" {
		m.SetUID(types.UID("uid-" + m.GetResourceVersion()))
	}
}

func (f *fakeAPI) create(a clienttesting.Action) (bool, runtime.Object, error) {
	if a.GetSubresource() != "" {
		return false, nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := a.(clienttesting.CreateAction).GetObject().DeepCopyObject()
	f.stamp(o)
	return true, o, f.Tracker().Create(a.GetResource(), o, a.GetNamespace())
}

func (f *fakeAPI) update(a clienttesting.Action) (bool, runtime.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := a.(clienttesting.UpdateAction).GetObject().DeepCopyObject()
	m, err := meta.Accessor(o)
	if err != nil {
		return true, nil, err
	}
	live, err := f.Tracker().Get(a.GetResource(), a.GetNamespace(), m.GetName())
	if err != nil {
		return true, nil, err
	}
	was, err := meta.Accessor(live)
	if err != nil {
		return true, nil, err
	}
	if v := m.GetResourceVersion(); v != "" && v != was.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), m.GetName(), nil)
	}
	status := func(o runtime.Object) reflect.Value { return reflect.ValueOf(o).Elem().FieldByName("Status") }
	if s := status(o); s.IsValid() {
		if a.GetSubresource() == "status" {
			next := live.DeepCopyObject()
			status(next).Set(s)
			o = next
		} else {
			s.Set(status(live.DeepCopyObject()))
		}
	}
	f.stamp(o)
	return true, o, f.Tracker().Update(a.GetResource(), o, a.GetNamespace())
}

func (f *fakeAPI) patch(a clienttesting.Action) (bool, runtime.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, o, err := clienttesting.ObjectReaction(f.Tracker())(a)
	if err != nil {
		return true, nil, err
	}
	o = o.DeepCopyObject()
	f.stamp(o)
	return true, o, f.Tracker().Update(a.GetResource(), o, a.GetNamespace())
}

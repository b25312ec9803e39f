package kinds_test

import (
	"encoding/json"
	"math/rand"
	"testing"

	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/registry"
)

const seeds = 30

// TestEveryKindBearsAnything sends random objects of every kind through
// defaulting, both strategies and the columns: nothing panics, defaults are
// idempotent and survive JSON, and each row fits its columns.
func TestEveryKindBearsAnything(t *testing.T) {
	scheme := runtime.NewScheme()
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{},
		&metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{}) // what raw data are filled with
	codecs := serializer.NewCodecFactory(scheme)
	for _, k := range kinds.All() {
		t.Run(k.Kind, func(t *testing.T) {
			for seed := range int64(seeds) {
				fill := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(seed), codecs)
				obj, old := k.New(), k.New()
				fill.Fill(obj)
				fill.Fill(old)
				bears(t, k, obj, old)
			}
		})
	}
}

func bears(t *testing.T, k registry.Kind, obj, old runtime.Object) {
	t.Helper()
	if k.Default != nil {
		k.Default(obj)
		k.Default(old)
		again := obj.DeepCopyObject()
		if k.Default(again); !equality.Semantic.DeepEqual(obj, again) {
			t.Errorf("defaulting twice changes the object")
		}
	}
	for _, s := range []*registry.Strategy{&k.Strategy, k.Status, k.Finalize} {
		if s == nil {
			continue
		}
		ctx, now, before := t.Context(), obj.DeepCopyObject(), old.DeepCopyObject()
		if s.PrepareUpdate != nil {
			s.PrepareUpdate(ctx, now, before)
		}
		if !equality.Semantic.DeepEqual(before, old) {
			t.Errorf("preparing an update changes the old object")
		}
		kept := now.DeepCopyObject()
		if s.ValidateUpdate != nil {
			s.ValidateUpdate(ctx, now, before)
		}
		if s.PrepareCreate != nil {
			s.PrepareCreate(ctx, before)
		}
		if s.Validate != nil {
			s.Validate(ctx, before)
		}
		if s.Warn != nil {
			s.Warn(ctx, now, before)
			s.Warn(ctx, now, nil)
		}
		if !equality.Semantic.DeepEqual(kept, now) {
			t.Errorf("validation changes the object")
		}
	}
	if k.Row != nil {
		if row := k.Row(obj); len(row) != len(k.Columns) {
			t.Errorf("row has %d cells, columns are %d", len(row), len(k.Columns))
		}
	}
	if k.Select != nil {
		k.Select(obj)
	}
	if k.TTL != nil {
		k.TTL(obj)
	}
}

func TestEveryKindKeepsAPlainObject(t *testing.T) {
	for _, k := range kinds.All() {
		obj := k.New()
		m, err := meta.Accessor(obj)
		if err != nil {
			t.Fatalf("%s: %v", k.Kind, err)
		}
		m.SetName("x")
		if k.Default != nil {
			k.Default(obj)
		}
		b, err := json.Marshal(obj)
		if err != nil {
			t.Fatalf("%s: %v", k.Kind, err)
		}
		back := k.New()
		if err := json.Unmarshal(b, back); err != nil {
			t.Fatalf("%s: %v", k.Kind, err)
		}
		if k.Default != nil {
			k.Default(back)
		}
		if !equality.Semantic.DeepEqual(obj, back) {
			t.Errorf("%s: does not survive JSON", k.Kind)
		}
	}
}

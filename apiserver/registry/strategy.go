package registry

import (
	"context"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// strategy is a Strategy as the generic registry wants it.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator

	kind  *Kind
	rules *Strategy
	reset *fieldpath.Set
}

var (
	_ rest.RESTCreateStrategy  = strategy{}
	_ rest.RESTUpdateStrategy  = strategy{}
	_ rest.ResetFieldsStrategy = strategy{}
)

func newStrategy(typer runtime.ObjectTyper, k *Kind, rules *Strategy, reset ...string) strategy {
	s := strategy{ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, kind: k, rules: rules}
	if len(reset) > 0 {
		s.reset = fieldpath.NewSet()
	}
	for _, f := range reset {
		var path []any
		for name := range strings.SplitSeq(f, ".") {
			path = append(path, name)
		}
		s.reset.Insert(fieldpath.MakePathOrDie(path...))
	}
	return s
}

func (s strategy) NamespaceScoped() bool { return s.kind.Namespaced }

func (s strategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	if s.rules.PrepareCreate != nil {
		s.rules.PrepareCreate(ctx, obj)
	}
}

func (s strategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	if s.rules.PrepareUpdate != nil {
		s.rules.PrepareUpdate(ctx, obj, old)
	}
}

func (s strategy) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	if s.rules.Validate == nil {
		return nil
	}
	return s.rules.Validate(ctx, obj)
}

func (s strategy) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	if s.rules.ValidateUpdate == nil {
		return nil
	}
	return s.rules.ValidateUpdate(ctx, obj, old)
}

func (s strategy) WarningsOnCreate(ctx context.Context, obj runtime.Object) []string {
	return s.WarningsOnUpdate(ctx, obj, nil)
}

func (s strategy) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	if s.rules.Warn == nil {
		return nil
	}
	return s.rules.Warn(ctx, obj, old)
}

func (strategy) Canonicalize(runtime.Object) {}

func (s strategy) AllowCreateOnUpdate(context.Context) bool      { return s.rules.CreateOnUpdate }
func (s strategy) AllowUnconditionalUpdate(context.Context) bool { return !s.rules.NeedsVersion }

// GetResetFields tells server-side apply which fields a request cannot set.
func (s strategy) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	if s.reset == nil {
		return nil
	}
	out := map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(s.kind.Resource.GroupVersion().String()): s.reset}
	for _, v := range s.kind.Versions {
		out[fieldpath.APIVersion(v.Resource.GroupVersion().String())] = s.reset
	}
	return out
}

// graceful is the strategy of kinds whose deletion waits.
type graceful struct{ strategy }

var _ rest.RESTGracefulDeleteStrategy = graceful{}

func (g graceful) CheckGracefulDelete(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
	return g.kind.Grace(ctx, obj, options)
}

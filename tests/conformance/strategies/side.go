package strategies

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
)

// A side is one of the two whose answers are compared.
type side struct {
	// internal turns a decoded object into what the rules work on, with its
	// defaults; external turns the result back into the version it came in.
	internal func(obj runtime.Object) (runtime.Object, error)
	external func(obj runtime.Object, gv schema.GroupVersion) (runtime.Object, error)
	store    *genericregistry.Store
}

// answer is what a side says to one question.
type answer struct {
	Errors   []string
	Warnings []string
	Accepted bool
	Object   runtime.Object // nil if it was refused, or got a name at random
	Cells    [][]any
	Fields   map[string]string
}

type warnings struct{ texts []string }

// AddWarning implements warning.Recorder.
func (w *warnings) AddWarning(_, text string) { w.texts = append(w.texts, text) }

// question is what is asked: to create obj, or to change old to obj, at a path.
type question struct {
	gvr         schema.GroupVersionResource
	subresource string
	obj, old    runtime.Object // as a client sends them
}

func (q question) context() (context.Context, *warnings) {
	verb := "create"
	if q.old != nil {
		verb = "update"
	}
	namespace := ""
	if m, err := meta.Accessor(q.obj); err == nil {
		namespace = m.GetNamespace()
	}
	ctx := request.WithNamespace(context.Background(), namespace)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{
		IsResourceRequest: true, Verb: verb, APIGroup: q.gvr.Group, APIVersion: q.gvr.Version, Resource: q.gvr.Resource,
		Subresource: q.subresource, Namespace: namespace,
	})
	w := &warnings{}
	return warning.WithWarningRecorder(ctx, w), w
}

// ask puts the question to a side.
func (s side) ask(q question) (out answer, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	ctx, warned := q.context()
	obj, err := s.internal(q.obj.DeepCopyObject())
	if err != nil {
		return out, fmt.Errorf("convert: %w", err)
	}
	if q.old == nil {
		err = rest.BeforeCreate(s.store.CreateStrategy, ctx, obj)
	} else {
		var old runtime.Object
		if old, err = s.internal(q.old.DeepCopyObject()); err != nil {
			return out, fmt.Errorf("convert: %w", err)
		}
		err = rest.BeforeUpdate(s.store.UpdateStrategy, ctx, obj, old)
	}
	out.Errors = causes(err)
	if out.Accepted = err == nil; out.Accepted && !nameless(q) {
		out.Warnings = warned.texts
		if out.Object, err = s.external(obj, q.gvr.GroupVersion()); err != nil {
			return out, fmt.Errorf("convert: %w", err)
		}
		out.Object.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		if out.Cells, err = s.cells(ctx, obj); err != nil {
			return out, err
		}
		if _, fields, err := s.store.PredicateFunc(nil, nil).GetAttrs(obj); err == nil {
			out.Fields = fields
		}
	}
	sort.Strings(out.Warnings)
	return out, nil
}

// nameless tells whether the object has no name, and can only get a random one.
func nameless(q question) bool {
	m, err := meta.Accessor(q.obj)
	return err == nil && m.GetName() == ""
}

// causes are the single errors of a refusal, sorted. What is said twice counts
// once, and of a detail only its first line: upstream's updates of pods print
// the difference of types that nobody else has.
func causes(err error) []string {
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		return []string{err.Error()}
	}
	// Values that are printed whole have addresses in them, and fields of
	// upstream's internal types that v1 has not.
	own := regexp.MustCompile(`0x[0-9a-f]+|"PKIXPublicKey":null,"ProofOfPossession":null,`)
	var out []string
	for _, c := range status.Status().Details.Causes {
		message, _, _ := strings.Cut(c.Message, "\n")
		out = append(out, string(c.Type)+" "+c.Field+": "+own.ReplaceAllString(message, ""))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s side) cells(ctx context.Context, obj runtime.Object) ([][]any, error) {
	t, err := s.store.ConvertToTable(ctx, obj, &metav1.TableOptions{})
	if err != nil {
		return nil, fmt.Errorf("make table: %w", err)
	}
	var out [][]any
	for _, c := range t.ColumnDefinitions {
		out = append(out, []any{strings.Join([]string{c.Name, c.Type, c.Format}, " "), c.Priority})
	}
	for _, r := range t.Rows {
		out = append(out, r.Cells)
	}
	return out, nil
}

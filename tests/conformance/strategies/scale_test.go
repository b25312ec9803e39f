package strategies

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// scaled is one side's kind with its scale subresource.
type scaled struct {
	side

	scale rest.Storage
	// own turns a Scale of autoscaling/v1 into the type that the side works on.
	own func(runtime.Object) (runtime.Object, error)
}

// TestScalesAreUpstreams creates an object on both sides, reads its scale and
// changes it, and compares the answers and what has become of the object.
func TestScalesAreUpstreams(t *testing.T) {
	all, _, err := pairs()
	if err != nil {
		t.Fatal(err)
	}
	objs, _ := samples(t)
	for _, p := range all {
		if p.subresource != "" || p.kind.Scale == nil {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			theirs := scaled{p.theirs, p.theirScale, toInternal}
			ours := scaled{p.ours, p.ourScale, func(o runtime.Object) (runtime.Object, error) { return o, nil }}
			for i, sample := range objs[p.gvr.GroupVersion().WithKind(p.kind.Kind)] {
				want, got := theirs.tell(p.gvr, sample, i), ours.tell(p.gvr, sample, i)
				for _, line := range lines("", want, got) {
					t.Error(line)
				}
				if len(want) < 10 {
					t.Errorf("upstream's answers are too few: %v", want)
				}
			}
		})
	}
}

// changes of a scale: what is wrong and what is right with it.
func changes() []func(*autoscalingv1.Scale) {
	return []func(*autoscalingv1.Scale){
		func(s *autoscalingv1.Scale) { s.Spec.Replicas = 5 },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.ResourceVersion = 6, "" },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.Status.Replicas = 0, 9 },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas = -1 },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.ResourceVersion = 7, "1000000" },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.UID = 7, "another" },
		func(s *autoscalingv1.Scale) { s.Spec.Replicas, s.Labels = 8, map[string]string{"x": "y"} },
		func(s *autoscalingv1.Scale) { s.Name = "another" },
	}
}

// tell asks one side everything, and says what it answered.
func (s scaled) tell(gvr schema.GroupVersionResource, sample runtime.Object, i int) (said []string) {
	uids := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`) // each side has its own
	say := func(what string, v any, err error) {
		if err != nil {
			refusal := uids.ReplaceAllString(strings.Join(causes(err), "; "), "uid")
			said = append(said, fmt.Sprintf("%s: refused: %s", what, refusal))
			return
		}
		for _, leaf := range leaves(without(v, "uid", "creationTimestamp", "resourceVersion", "managedFields")) {
			said = append(said, what+": "+leaf)
		}
	}
	ctx := request.WithNamespace(context.Background(), metav1.NamespaceDefault)
	ctx = request.WithRequestInfo(ctx, &request.RequestInfo{APIGroup: gvr.Group, APIVersion: gvr.Version, Resource: gvr.Resource, Subresource: "scale"})
	name := fmt.Sprintf("sample-%d", i)
	_, err := s.get(ctx, name)
	say("get before", nil, err)
	obj, err := s.internal(named(sample.DeepCopyObject(), name))
	if err != nil {
		return append(said, err.Error())
	}
	if _, err := s.store.Create(ctx, obj, rest.ValidateAllObjectFunc, &metav1.CreateOptions{}); err != nil {
		return append(said, "create: "+err.Error())
	}
	for n, change := range changes() {
		now, err := s.get(ctx, name)
		if err != nil {
			return append(said, "get: "+err.Error())
		}
		say(fmt.Sprint("before change ", n), tree(now), nil)
		change(now)
		answer, err := s.put(ctx, name, now)
		say(fmt.Sprint("change ", n), tree(answer), err)
		stored, err := s.store.Get(ctx, name, &metav1.GetOptions{})
		if err == nil {
			stored, err = s.external(stored, gvr.GroupVersion())
			stored.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		}
		say(fmt.Sprint("object after change ", n), tree(stored), err)
	}
	return said
}

func named(o runtime.Object, name string) runtime.Object {
	if m, err := meta.Accessor(o); err == nil {
		m.SetName(name)
		m.SetNamespace(metav1.NamespaceDefault)
		m.SetResourceVersion("")
	}
	return o
}

func (s scaled) get(ctx context.Context, name string) (*autoscalingv1.Scale, error) {
	getter, ok := s.scale.(rest.Getter)
	if !ok {
		return nil, fmt.Errorf("%T cannot be read", s.scale)
	}
	obj, err := getter.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return v1Scale(obj)
}

func (s scaled) put(ctx context.Context, name string, sc *autoscalingv1.Scale) (runtime.Object, error) {
	updater, ok := s.scale.(rest.Updater)
	if !ok {
		return nil, fmt.Errorf("%T cannot be written", s.scale)
	}
	obj, err := s.own(sc)
	if err != nil {
		return nil, err
	}
	out, _, err := updater.Update(ctx, name, rest.DefaultUpdatedObjectInfo(obj), rest.ValidateAllObjectFunc,
		rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return v1Scale(out)
}

func v1Scale(o runtime.Object) (*autoscalingv1.Scale, error) {
	if sc, ok := o.(*autoscalingv1.Scale); ok {
		return sc, nil
	}
	out, err := legacyscheme.Scheme.ConvertToVersion(o, autoscalingv1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	sc, ok := out.(*autoscalingv1.Scale)
	if !ok {
		return nil, fmt.Errorf("a scale became a %T", out)
	}
	sc.TypeMeta = metav1.TypeMeta{}
	return sc, nil
}

package strategies

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

//nolint:gochecknoglobals // the test's own flags
var (
	cases = flag.Int("oracle.cases", 150, "random questions for each path of each kind")
	seed  = flag.Uint64("oracle.seed", 1, "seed of the random questions")
	only  = flag.String("oracle.only", "", "regular expression of the paths to ask for")
	shown = flag.Int("oracle.show", 3, "differences shown for each path")
)

// samples are the objects that questions begin with, by kind.
func samples(t *testing.T) (map[schema.GroupVersionKind][]runtime.Object, []string) {
	t.Helper()
	out := map[schema.GroupVersionKind][]runtime.Object{}
	words := map[string]bool{}
	for _, file := range []string{"../../../apiserver/testdata/kinds.yaml", "testdata/rich.yaml"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for text := range bytes.SplitSeq(raw, []byte("\n---\n")) {
			if len(bytes.TrimSpace(text)) == 0 {
				continue
			}
			js, err := yaml.ToJSON(text)
			if err != nil {
				t.Fatal(err)
			}
			obj, gvk, err := scheme.Codecs.UniversalDeserializer().Decode(js, nil, nil)
			if runtime.IsNotRegisteredError(err) {
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", file, err, text)
			}
			m, err := meta.Accessor(obj)
			if err != nil {
				t.Fatal(err)
			}
			m.SetUID("2f6d1a8e-0000-4000-8000-000000000001")
			m.SetCreationTimestamp(metav1.Unix(1e9, 0))
			m.SetResourceVersion("1")
			obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			out[*gvk] = append(out[*gvk], obj)
			for _, w := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(string(js), -1) {
				words[w[1]] = true
			}
		}
	}
	return out, slices.Sorted(maps.Keys(words))
}

// TestAnswersAreUpstreams asks both sides and compares.
func TestAnswersAreUpstreams(t *testing.T) {
	all, missing, err := pairs()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("not compared here: %v", missing)
	objs, words := samples(t)
	for _, p := range all {
		if !regexp.MustCompile(*only).MatchString(p.String()) {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			o := oracle{pair: p, T: t, mutator: mutator{rand.New(rand.NewPCG(*seed, 7)), words}}
			starts := objs[p.gvr.GroupVersion().WithKind(p.kind.Kind)]
			if len(starts) == 0 {
				t.Fatalf("no sample of %s", p.kind.Kind)
			}
			for _, s := range starts {
				if m, err := meta.Accessor(s); err == nil && p.kind.Namespaced {
					m.SetNamespace("default")
				}
				o.judge(o.questions(s, s.DeepCopyObject()))
			}
			for range *cases {
				s := starts[o.IntN(len(starts))].DeepCopyObject()
				o.Object(s, o.IntN(4))
				n := s.DeepCopyObject()
				o.Object(n, 1+o.IntN(3))
				o.judge(o.questions(s, n))
			}
			o.report()
		})
	}
}

// oracle judges the answers for one path.
type oracle struct {
	*testing.T
	mutator

	pair        pair
	asked       int
	accepted    int
	differ      int
	known       map[string]int
	differences []string
}

// questions are those about an object and what it is changed to.
func (o *oracle) questions(first, second runtime.Object) []question {
	create := question{gvr: o.pair.gvr, obj: first}
	// What is changed was stored before: it is what a creation has made of it.
	stored, err := o.pair.main.ask(create)
	var out []question
	if o.pair.subresource == "" {
		out = append(out, create)
	}
	if err != nil || stored.Object == nil {
		return out
	}
	old := stored.Object
	if from, to := status(first), status(old); from.IsValid() {
		to.Set(from) // as its controller has left it
	}
	return append(out, question{gvr: o.pair.gvr, subresource: o.pair.subresource, old: old, obj: second})
}

// status is an object's, invalid if it has none.
func status(o runtime.Object) reflect.Value { return reflect.ValueOf(o).Elem().FieldByName("Status") }

func (o *oracle) judge(qs []question) {
	for _, q := range qs {
		o.asked++
		want, err := o.pair.theirs.ask(q)
		if err != nil {
			o.Errorf("upstream: %v", err)
			continue
		}
		if want.Object != nil {
			o.accepted++
		}
		got, err := o.pair.ours.ask(q)
		diff := ""
		if err != nil {
			diff = "ours: " + err.Error()
		} else {
			diff = compare(want, got)
		}
		if diff == "" {
			continue
		}
		o.differ++
		if why := argued(o.pair.String(), diff); why != "" {
			o.differ--
			if o.known == nil {
				o.known = map[string]int{}
			}
			o.known[why]++
			continue
		}
		if len(o.differences) < *shown {
			js, _ := json.Marshal(q.obj)
			old, _ := json.Marshal(q.old)
			o.differences = append(o.differences, fmt.Sprintf("%s\nobject: %s\nold: %s", diff, js, old))
		}
	}
}

func (o *oracle) report() {
	for why, n := range o.known {
		o.Logf("%d known: %s", n, why)
	}
	if o.differ > 0 {
		o.Errorf("%d of %d answers differ (%d accepted)\n%s", o.differ, o.asked, o.accepted, strings.Join(o.differences, "\n\n"))
	}
}

// compare tells what differs, upstream's with "-".
func compare(want, got answer) string {
	var out []string
	add := func(what string, want, got any) {
		if d := cmp.Diff(want, got); d != "" {
			out = append(out, what+": "+d)
		}
	}
	add("errors", want.Errors, got.Errors)
	add("warnings", want.Warnings, got.Warnings)
	if want.Object != nil && got.Object != nil {
		if !equality.Semantic.DeepEqual(want.Object, got.Object) {
			w, g := text(want.Object), text(got.Object)
			if w == g {
				w, g = fmt.Sprintf("%#v", want.Object), fmt.Sprintf("%#v", got.Object)
			}
			out = append(out, "object: "+cmp.Diff(strings.Split(w, "\n"), strings.Split(g, "\n")))
		}
		add("table", plain(want.Cells), plain(got.Cells))
		add("fields", want.Fields, got.Fields)
	}
	return strings.Join(out, "\n")
}

func text(o runtime.Object) string {
	js, _ := json.MarshalIndent(o, "", " ")
	return string(js)
}

// plain makes cells comparable as clients see them.
func plain(cells [][]any) string {
	js, _ := json.Marshal(cells)
	return strings.ReplaceAll(string(js), "],[", "],\n[")
}

// TestNamesAreUpstreams compares short names, categories, singular names and
// field selectors.
func TestNamesAreUpstreams(t *testing.T) {
	all, _, err := pairs()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.subresource != "" {
			continue
		}
		t.Run(p.String(), func(t *testing.T) {
			type names struct{ Short, Categories, Singular any }
			of := func(s any) names {
				var n names
				if x, ok := s.(interface{ ShortNames() []string }); ok && len(x.ShortNames()) > 0 {
					n.Short = x.ShortNames()
				}
				if x, ok := s.(interface{ Categories() []string }); ok && len(x.Categories()) > 0 {
					n.Categories = x.Categories()
				}
				if x, ok := s.(interface{ GetSingularName() string }); ok {
					n.Singular = x.GetSingularName()
				}
				return n
			}
			if d := cmp.Diff(of(p.theirRaw), of(p.ourRaw)); d != "" {
				t.Errorf("names differ (-upstream +ours):\n%s", d)
			}
			if got, want := reflect.TypeOf(p.ours.store.CreateStrategy) != nil, reflect.TypeOf(p.theirs.store.CreateStrategy) != nil; got != want {
				t.Errorf("created: ours %t, upstream's %t", got, want)
			}
			if got, want := p.ours.store.CreateStrategy.NamespaceScoped(), p.theirs.store.CreateStrategy.NamespaceScoped(); got != want {
				t.Errorf("namespaced: ours %t, upstream's %t", got, want)
			}
			if got, want := p.ours.store.UpdateStrategy.AllowCreateOnUpdate(t.Context()), p.theirs.store.UpdateStrategy.AllowCreateOnUpdate(t.Context()); got != want {
				t.Errorf("PUT creates: ours %t, upstream's %t", got, want)
			}
			if got, want := p.ours.store.UpdateStrategy.AllowUnconditionalUpdate(t.Context()), p.theirs.store.UpdateStrategy.AllowUnconditionalUpdate(t.Context()); got != want {
				t.Errorf("PUT without a version: ours %t, upstream's %t", got, want)
			}
			gvk := p.gvr.GroupVersion().WithKind(p.kind.Kind)
			labels := []string{"metadata.name", "metadata.namespace", "nonsuch", "spec.nodeName", "status.phase", "spec.unschedulable", "type", "status.successful"}
			if p.kind.Select != nil {
				labels = slices.AppendSeq(labels, maps.Keys(p.kind.Select(p.kind.New())))
			}
			for _, l := range labels {
				_, _, their := legacyscheme.Scheme.ConvertFieldLabel(gvk, l, "x")
				_, _, our := p.scheme.ConvertFieldLabel(gvk, l, "x")
				if (their == nil) != (our == nil) {
					t.Errorf("field selector %s: upstream says %v, we %v", l, their, our)
				}
			}
		})
	}
}

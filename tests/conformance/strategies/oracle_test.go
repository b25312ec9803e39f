package strategies

import (
	"bytes"
	"encoding/json"
	"flag"

	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
)

//nolint:gochecknoglobals // the test's own flags
var (
	cases = flag.Int("oracle.cases", 150, "random questions for each path of each kind")
	seed  = flag.Uint64("oracle.seed", 1, "seed of the random questions")
	only  = flag.String("oracle.only", "", "regular expression of the paths to ask for")
	shown = flag.Int("oracle.show", 4, "kinds of difference shown for each path")
)

func TestMain(m *testing.M) {
	flag.Parse()
	klog.SetLogger(logr.Discard()) // upstream logs each error that two of its rules find
	capabilities.Setup(true, 0)    // as nearly every cluster allows it, ours too
	os.Exit(m.Run())
}

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
			starts := objs[p.gvr.GroupVersion().WithKind(p.kind.Kind)]
			if len(starts) == 0 {
				t.Fatalf("no sample of %s", p.kind.Kind)
			}
			// In a bubble both sides see the same time.
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Until(time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC)))
				o := oracle{pair: p, T: t, mutator: mutator{rand.New(rand.NewPCG(*seed, 7)), words}, known: map[string]int{}}
				o.interrogate(starts)
				o.report()
			})
		})
	}
}

// oracle judges the answers for one path.
type oracle struct {
	*testing.T
	mutator

	pair            pair
	asked, accepted int
	known           map[string]int // by why it is right
	found           findings
}

// interrogate asks about samples as they are and changed at random.
func (o *oracle) interrogate(samples []runtime.Object) {
	for _, s := range samples {
		if m, err := meta.Accessor(s); err == nil && o.pair.kind.Namespaced {
			m.SetNamespace("default")
		}
		o.judge(o.questions(s, s.DeepCopyObject()))
	}
	for range *cases {
		s := samples[o.IntN(len(samples))].DeepCopyObject()
		o.Object(s, o.IntN(4))
		n := s.DeepCopyObject()
		o.Object(n, 1+o.IntN(3))
		o.judge(o.questions(s, n))
	}
}

// questions are those about an object and what it is changed to.
func (o *oracle) questions(first, second runtime.Object) []question {
	first, second = sent(first), sent(second)
	create := question{gvr: o.pair.gvr, obj: first}
	var out []question
	if o.pair.subresource == "" {
		out = append(out, create)
	}
	old := o.stored(create)
	if old == nil {
		return out
	}
	rename(second, old) // requests that disagree with their URL get no further
	return append(out, question{gvr: o.pair.gvr, subresource: o.pair.subresource, old: old, obj: second})
}

// sent is an object as it arrives from a client: JSON does not tell an empty
// list from none where it leaves both out.
func sent(o runtime.Object) runtime.Object {
	out, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(runtime.Object)
	if !ok || json.Unmarshal([]byte(line(o)), out) != nil {
		return o
	}
	return out
}

func rename(obj, like runtime.Object) {
	m, err := meta.Accessor(obj)
	n, err2 := meta.Accessor(like)
	if err == nil && err2 == nil {
		m.SetName(n.GetName())
	}
}

// stored is what an object has become before it is changed: what upstream's
// creation has made of it, and then its controller's first word on its status.
func (o *oracle) stored(create question) runtime.Object {
	created, err := o.pair.main.ask(create)
	if err != nil || created.Object == nil {
		return nil
	}
	from := status(create.obj)
	if !from.IsValid() {
		return created.Object
	}
	next := created.Object.DeepCopyObject()
	status(next).Set(from)
	if o.pair.status.store == nil {
		return next
	}
	said, err := o.pair.status.ask(question{gvr: create.gvr, subresource: "status", old: created.Object, obj: next})
	if err != nil || said.Object == nil {
		return created.Object
	}
	return said.Object
}

// status is an object's, invalid if it has none.
func status(o runtime.Object) reflect.Value { return reflect.ValueOf(o).Elem().FieldByName("Status") }

func (o *oracle) judge(qs []question) {
	for _, q := range qs {
		o.asked++
		want, err := o.pair.theirs.ask(q)
		if err != nil {
			o.known[upstreamPanics]++ // ours must answer all the same
			if _, err := o.pair.ours.ask(q); err != nil {
				o.Errorf("ours: %v\n%s", err, line(q.obj))
			}
			continue
		}
		if want.Accepted {
			o.accepted++
		}
		got, err := o.pair.ours.ask(q)
		diff := ""
		if err != nil {
			diff = "ours: " + err.Error()
		} else {
			diff = compare(want, got)
		}
		if diff != "" {
			diff = unargued(o.pair.String(), diff, o.known)
		}
		if diff != "" {
			o.found.add(diff, q.obj, q.old)
		}
	}
}

func (o *oracle) report() {
	for why, n := range o.known {
		o.Logf("%d known: %s", n, why)
	}
	if o.found.total > 0 {
		o.Errorf("%d of %d answers differ (%d accepted)%s", o.found.total, o.asked, o.accepted, o.found.shown(*shown))
	}
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
			if got, want := p.ours.store.ReturnDeletedObject, p.theirs.store.ReturnDeletedObject; got != want {
				t.Errorf("deletion returns the object: ours %t, upstream's %t", got, want)
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
				if (their == nil) != (our == nil) && unargued(p.String(), "field selector "+l, map[string]int{}) != "" {
					t.Errorf("field selector %s: upstream says %v, we %v", l, their, our)
				}
			}
		})
	}
}

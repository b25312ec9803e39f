package main

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

func TestSerialTestsRunAloneAndLast(t *testing.T) {
	var names []string
	for _, b := range batches([]test{
		"[sig-b] x [Conformance] [Serial]", "[sig-b] y [Conformance]", "[sig-a] z [Conformance]", "[sig-a] d [Conformance] [Disruptive] [Serial]",
	}, 4) {
		names = append(names, b.name)
		if b.procs != 1 {
			t.Errorf("%s: %d processes for one test", b.name, b.procs)
		}
	}
	if got, want := strings.Join(names, " "), "a b a-serial b-serial"; got != want {
		t.Errorf("got batches %s, want %s", got, want)
	}
}

func TestFocusMatchesNoOtherTest(t *testing.T) {
	b := batch{tests: []test{"[sig-a] x (root,0644) [Conformance]", "[sig-a] *not* y"}}
	re := regexp.MustCompile(b.focus())
	for name, want := range map[string]bool{
		"Kubernetes e2e suite [sig-a] x (root,0644) [Conformance]": true, "[sig-a] *not* y": true, "[sig-a] y": false, "root,0644": false,
	} {
		if re.MatchString(name) != want {
			t.Errorf("%s: matches %t", name, !want)
		}
	}
}

func TestWhatDidNotRunHasNotPassed(t *testing.T) {
	spec := func(text string, state types.SpecState, message string) types.SpecReport {
		return types.SpecReport{LeafNodeType: types.NodeTypeIt, LeafNodeText: text, State: state, RunTime: time.Second, Failure: types.Failure{Message: message}}
	}
	b := batch{tests: []test{"a passed", "b failed", "c lost", "d skipped"}}
	got := b.results([]types.SpecReport{
		spec("a passed", types.SpecStatePassed, ""), spec("b failed", types.SpecStateFailed, "it\n broke"),
		spec("d skipped", types.SpecStateSkipped, ""), spec("of another batch", types.SpecStateSkipped, ""),
		{LeafNodeType: types.NodeTypeSynchronizedBeforeSuite, State: types.SpecStateFailed, Failure: types.Failure{Message: "no nodes"}},
	})
	want := []string{"", "it broke", "it did not run: SynchronizedBeforeSuite: no nodes", "it did not run: SynchronizedBeforeSuite: no nodes"}
	for i, r := range got {
		if r.reason != want[i] || (r.state == types.SpecStatePassed) != (i == 0) {
			t.Errorf("%s: got %s %q, want %q", r.test, r.state, r.reason, want[i])
		}
	}
	s := summarize(got, time.Minute)
	if s.total.passed != 1 || s.total.total != 4 || len(s.failed) != 3 {
		t.Errorf("got %+v", s.total)
	}
}

func TestPathsInTheLabAreShortEnoughForSockets(t *testing.T) {
	for _, out := range []string{"/src/build/conformance", "/home/somebody/a/deep/path/to/skein/build/conformance"} {
		if got := labDir(out) + "/p1/run"; len(got) > 40 {
			t.Errorf("%s: the state of a peer is in %s", out, got)
		}
	}
	if labDir("/home/a/long/path/of/one/checkout/build") == labDir("/home/a/long/path/of/another/checkout/build") {
		t.Error("two checkouts share a lab")
	}
}

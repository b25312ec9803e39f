package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// tally counts tests.
type tally struct {
	passed, total int
	took          time.Duration // the sum of the tests' own times
}

func (t *tally) add(r result) {
	t.total++
	t.took += r.took
	if r.state == types.SpecStatePassed {
		t.passed++
	}
}

// summary is a whole run.
type summary struct {
	sigs   []string // sorted
	by     map[string]*tally
	total  tally
	failed []result // in the order of names
	wall   time.Duration
}

func summarize(results []result, wall time.Duration) summary {
	s := summary{by: map[string]*tally{}, wall: wall}
	for _, r := range results {
		sig := r.test.sig()
		if s.by[sig] == nil {
			s.by[sig] = &tally{}
			s.sigs = append(s.sigs, sig)
		}
		s.by[sig].add(r)
		s.total.add(r)
		if r.state != types.SpecStatePassed {
			s.failed = append(s.failed, r)
		}
	}
	slices.Sort(s.sigs)
	slices.SortStableFunc(s.failed, func(a, b result) int { return strings.Compare(string(a.test), string(b.test)) })
	return s
}

// print writes the summary for a person.
func (s summary) print(out io.Writer) {
	for _, r := range s.failed {
		_, _ = fmt.Fprintf(out, "FAILED %s\n       %s\n", r.test, r.reason)
		for _, k := range r.kills {
			_, _ = fmt.Fprintf(out, "       %s, the store's leader, was killed %s after the test began\n", k.peer, k.at.Sub(r.begin).Round(time.Second))
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "SIG\tpassed\tfailed\ttotal\ttime of tests\t")
	for _, sig := range s.sigs {
		s.by[sig].row(w, sig)
	}
	s.total.row(w, "all")
	_ = w.Flush() // a person's terminal, as above
	_, _ = fmt.Fprintf(out, "wall time %s\n", s.wall.Round(time.Second))
}

func (t tally) row(w io.Writer, name string) {
	_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t\n", name, t.passed, t.total-t.passed, t.total, t.took.Round(time.Second))
}

// The document's part between these lines is written here; the rest stays.
const (
	docBegin = "<!-- result: written by `make conformance` -->"
	docEnd   = "<!-- end of result -->"
)

// document writes the summary into the document that c names.
func (s summary) document(c config) error {
	old, err := os.ReadFile(c.document)
	if err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	before, rest, ok := strings.Cut(string(old), docBegin)
	_, after, closed := strings.Cut(rest, docEnd)
	if !ok || !closed {
		return fmt.Errorf("write document: %s lacks the lines %q and %q", c.document, docBegin, docEnd)
	}
	text := before + docBegin + "\n" + s.markdown(c) + docEnd + after
	if err := os.WriteFile(c.document, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write document: %w", err)
	}
	return nil
}

func (s summary) markdown(c config) string {
	var b strings.Builder
	mode := ""
	if c.spread {
		mode += ", connections spread over all peers"
	}
	if c.killLeader > 0 {
		mode += fmt.Sprintf(", the store's leader killed every %s", c.killLeader)
	}
	fmt.Fprintf(&b, "\nCommit %s, %s, %d at a time%s, %s of wall time.\n\n| SIG | passed | failed | total |\n|---|---|---|---|\n",
		c.commit, time.Now().UTC().Format(time.DateOnly), c.procs, mode, s.wall.Round(time.Second))
	row := func(name string, t tally) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", name, t.passed, t.total-t.passed, t.total)
	}
	for _, sig := range s.sigs {
		row(sig, *s.by[sig])
	}
	row("all", s.total)
	if len(s.failed) > 0 {
		b.WriteString("\nNot passed:\n\n")
	}
	for _, r := range s.failed {
		fmt.Fprintf(&b, "- %s\n  `%s`\n", r.test, strings.ReplaceAll(r.reason, "`", "'"))
		for _, k := range r.kills {
			fmt.Fprintf(&b, "  (the store's leader was killed %s after the test began)\n", k.at.Sub(r.begin).Round(time.Second))
		}
	}
	return b.String() + "\n"
}

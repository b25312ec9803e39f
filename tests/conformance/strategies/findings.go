package strategies

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
)

// findings are what differed at one path. Differences that only differ in
// their values are one finding.
type findings struct {
	by    map[string]*finding
	total int
}

type finding struct {
	diff, question string
	times          int
}

func (f *findings) add(diff string, obj, old runtime.Object) {
	f.total++
	if f.by == nil {
		f.by = map[string]*finding{}
	}
	values := regexp.MustCompile(`"(\\.|[^"\\])*"|[0-9]+`)
	key := values.ReplaceAllStringFunc(diff, func(s string) string {
		if strings.Contains(s, " ") { // a message: its words tell what differs
			return regexp.MustCompile(`\\"[^ ]*\\"|[0-9]+`).ReplaceAllString(s, "~")
		}
		return "~"
	})
	seen, question := f.by[key], fmt.Sprintf("object: %s\nold: %s", line(obj), line(old))
	if seen == nil {
		seen = &finding{diff: diff, question: question}
		f.by[key] = seen
	}
	if seen.times++; len(question) < len(seen.question) {
		seen.diff, seen.question = diff, question
	}
}

// shown tells the first n findings, the most frequent first.
func (f *findings) shown(n int) string {
	var all []*finding
	for _, x := range f.by {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *finding) int { return cmp.Or(b.times-a.times, cmp.Compare(a.diff, b.diff)) })
	var out strings.Builder
	for i, x := range all {
		if i == n {
			fmt.Fprintf(&out, "\nand %d more kinds of difference", len(all)-n)
			break
		}
		fmt.Fprintf(&out, "\n%d times:\n%s\n%s\n", x.times, x.diff, x.question)
	}
	return out.String()
}

func line(o runtime.Object) string {
	js, _ := json.Marshal(o)
	return string(js)
}

// compare tells what differs, upstream's with "-".
func compare(want, got answer) string {
	out := append(lines("error", want.Errors, got.Errors), lines("warning", want.Warnings, got.Warnings)...)
	if want.Object != nil && got.Object != nil {
		if !equality.Semantic.DeepEqual(want.Object, got.Object) {
			changed := lines("object", fieldsOf(want.Object), fieldsOf(got.Object))
			if len(changed) == 0 {
				changed = []string{"object: " + gocmp.Diff(want.Object, got.Object, gocmp.Exporter(func(reflect.Type) bool { return true }))}
			}
			out = append(out, changed...)
		}
		out = append(out, lines("table", rows(want.Cells), rows(got.Cells))...)
		if d := gocmp.Diff(want.Fields, got.Fields); d != "" {
			out = append(out, "fields: "+d)
		}
	}
	return strings.Join(out, "\n")
}

// fieldsOf are an object's, a line each: path and value.
func fieldsOf(o runtime.Object) []string {
	return leaves(tree(o))
}

// tree is an object as the JSON that clients see.
func tree(o runtime.Object) any {
	var out any
	if err := json.Unmarshal([]byte(line(o)), &out); err != nil {
		return err.Error()
	}
	return out
}

// leaves are those of a tree of JSON, a line each.
func leaves(tree any) (out []string) {
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if len(v) == 0 {
				out = append(out, path+": {}")
			}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(path+"."+key, v[key])
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), e)
			}
		default:
			out = append(out, fmt.Sprintf("%s: %q", path, fmt.Sprint(v)))
		}
	}
	walk("", tree)
	return out
}

// lines are those that only one side has.
func lines(what string, want, got []string) (out []string) {
	only := func(sign string, these, those []string) {
		left := map[string]int{}
		for _, s := range those {
			left[s]++
		}
		for _, s := range these {
			if left[s]--; left[s] < 0 {
				out = append(out, sign+" "+what+" "+s)
			}
		}
	}
	only("-", want, got)
	only("+", got, want)
	return out
}

// rows makes cells comparable as clients see them.
func rows(cells [][]any) (out []string) {
	for _, c := range cells {
		js, _ := json.Marshal(c)
		out = append(out, string(js))
	}
	return out
}

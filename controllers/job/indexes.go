package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Indexes is a set of completion indexes, as spans in order that do not touch.
// A Job may have a hundred thousand, mostly in long runs.
type Indexes []Span

// Span is the indexes from First to Last.
type Span struct{ First, Last int }

// ParseIndexes reads "1,3-5"; what is malformed or not below completions is
// left out.
func ParseIndexes(s string, completions int) Indexes {
	var out Indexes
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < 0 || first >= completions || last < first {
			continue
		}
		out = append(out, Span{first, min(last, completions-1)})
	}
	return out.normal()
}

// normal sorts spans and joins those that touch.
func (x Indexes) normal() Indexes {
	slices.SortFunc(x, func(a, b Span) int { return a.First - b.First })
	out := x[:0:0]
	for _, s := range x {
		if n := len(out); n > 0 && s.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, s.Last)
			continue
		}
		out = append(out, s)
	}
	return out
}

// With returns x and the given indexes; x is not changed.
func (x Indexes) With(more ...int) Indexes {
	out := slices.Clone(x)
	for _, i := range more {
		out = append(out, Span{i, i})
	}
	return out.normal()
}

// Has reports whether i is in x.
func (x Indexes) Has(i int) bool {
	n, _ := slices.BinarySearchFunc(x, i, func(s Span, i int) int { return s.Last - i })
	return n < len(x) && x[n].First <= i
}

// Len is how many indexes x holds.
func (x Indexes) Len() int {
	n := 0
	for _, s := range x {
		n += s.Last - s.First + 1
	}
	return n
}

// String writes x as [ParseIndexes] reads it; two neighbours are no range.
func (x Indexes) String() string {
	var b strings.Builder
	for i, s := range x {
		if i > 0 {
			b.WriteByte(',')
		}
		switch s.Last - s.First {
		case 0:
			b.WriteString(strconv.Itoa(s.First))
		case 1:
			fmt.Fprintf(&b, "%d,%d", s.First, s.Last)
		default:
			fmt.Fprintf(&b, "%d-%d", s.First, s.Last)
		}
	}
	return b.String()
}

// Missing returns the first n indexes below limit that x does not hold.
func (x Indexes) Missing(n, limit int) []int {
	var out []int
	next := 0
	for _, s := range append(slices.Clone(x), Span{limit, limit}) {
		for ; next < min(s.First, limit) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, s.Last+1)
	}
	return out
}

// common is how many indexes are in both x and y.
func (x Indexes) common(y Indexes) int {
	n, j := 0, 0
	for _, s := range x {
		for j > 0 && j < len(y) && y[j].First > s.First {
			j--
		}
		for ; j < len(y) && y[j].First <= s.Last; j++ {
			n += max(0, min(s.Last, y[j].Last)-max(s.First, y[j].First)+1)
		}
		if j == len(y) && j > 0 {
			j--
		}
	}
	return n
}

// none: the pod has no completion index.
const none = -1

func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return none
	}
	return n
}

func indexesOf(all []*corev1.Pod) Indexes {
	var out []int
	for _, p := range all {
		if i := indexOf(p); i != none {
			out = append(out, i)
		}
	}
	return Indexes(nil).With(out...)
}

// counted is a number that the controller keeps in a pod's annotation.
func counted(p *corev1.Pod, annotation string) int {
	n, err := strconv.ParseInt(p.Annotations[annotation], 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}

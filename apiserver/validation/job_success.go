package validation

import (
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxSuccessRules   = 20
	maxSuccessIndexes = 64 * 1024
	notIncreasing     = "non-increasing order, previous: %d, current: %d"
)

// successPolicy validates which indexes make an indexed job a success.
func successPolicy(p *problems, path *field.Path, s *batchv1.JobSpec) {
	rules := s.SuccessPolicy.Rules
	if len(rules) == 0 {
		p.required(path, "at least one rules must be specified when the successPolicy is specified")
	}
	if len(rules) > maxSuccessRules {
		p.add(field.TooMany(path, len(rules), maxSuccessRules))
	}
	completions := deref(s.Completions)
	for i, r := range rules {
		at := path.Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			p.required(at, "at least one of succeededCount or succeededIndexes must be specified")
		}
		total := int32(0)
		if r.SucceededIndexes != nil {
			if len(*r.SucceededIndexes) > maxSuccessIndexes {
				p.add(field.TooLong(at.Child("succeededIndexes"), "", maxSuccessIndexes))
			}
			n, complaint := countIndexes(*r.SucceededIndexes, completions)
			if total = n; complaint != "" {
				p.invalid(at.Child("succeededIndexes"), *r.SucceededIndexes, "error parsing succeededIndexes: "+complaint)
			}
		}
		if n := r.SucceededCount; n != nil {
			at = at.Child("succeededCount")
			p.nonNegative(at, int64(*n))
			if *n > completions {
				p.invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions))
			}
			if r.SucceededIndexes != nil && *n > total {
				p.invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total))
			}
		}
	}
}

// countIndexes counts the indexes of a list like "0,2-4", which ascends and
// stays below completions.
func countIndexes(list string, completions int32) (total int32, complaint string) {
	if list == "" {
		return 0, ""
	}
	last := -1
	for text := range strings.SplitSeq(list, ",") {
		i, complaint := parseInterval(text, completions)
		if complaint != "" {
			return 0, complaint
		}
		if last >= i.first {
			return 0, fmt.Sprintf(notIncreasing, last, i.first)
		}
		total += int32(i.last - i.first + 1)
		last = i.last
	}
	return total, ""
}

// interval is one or more indexes of a job.
type interval struct{ first, last int }

// parseInterval reads "3" or "2-4"; completions is above all indexes.
func parseInterval(text string, completions int32) (i interval, complaint string) {
	limits := strings.Split(text, "-")
	if len(limits) > 2 {
		return i, fmt.Sprintf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", text)
	}
	var bounds []int
	for _, limit := range limits {
		n, err := strconv.Atoi(limit)
		if err != nil {
			return i, fmt.Sprintf("cannot convert string to integer for index: %q", limit)
		}
		if n >= int(completions) {
			return i, fmt.Sprintf("too large index: %q", limit)
		}
		bounds = append(bounds, n)
	}
	i = interval{bounds[0], bounds[len(bounds)-1]}
	if len(bounds) == 2 && i.first >= i.last {
		return i, fmt.Sprintf(notIncreasing, i.first, i.last)
	}
	return i, ""
}

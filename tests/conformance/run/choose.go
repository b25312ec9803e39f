package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"k8s.io/kubernetes/test/conformance/testdata"
	"sigs.k8s.io/yaml"
)

// choice says which of the conformance tests are to run.
type choice struct{ focus, skip, list string }

// test is the full name of a conformance test, as ginkgo has it.
type test string

// sig is the group of Kubernetes' people that the test is of.
func (t test) sig() string {
	_, rest, ok := strings.Cut(string(t), "[sig-")
	name, _, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return "other"
	}
	return name
}

// serial reports whether no other test may run beside it.
func (t test) serial() bool {
	return strings.Contains(string(t), "[Serial]") || strings.Contains(string(t), "[Disruptive]")
}

// tests is what was chosen, in the order of names.
func (c choice) tests() ([]test, error) {
	all, err := conformance()
	if err != nil {
		return nil, err
	}
	if c.list != "" {
		if all, err = listed(c.list, all); err != nil {
			return nil, err
		}
	}
	focus, err := regexp.Compile(c.focus)
	if err != nil {
		return nil, fmt.Errorf("focus: %w", err)
	}
	skip, err := regexp.Compile(c.skip)
	if err != nil {
		return nil, fmt.Errorf("skip: %w", err)
	}
	chosen := slices.DeleteFunc(all, func(t test) bool {
		return !focus.MatchString(string(t)) || c.skip != "" && skip.MatchString(string(t))
	})
	if len(chosen) == 0 {
		return nil, fmt.Errorf("choose tests: none matches %q without %q", c.focus, c.skip)
	}
	return chosen, nil
}

// conformance is upstream's own list of its conformance tests.
func conformance() ([]test, error) {
	data, err := testdata.GetConformanceTestdataFS().ReadTestFile("test/conformance/testdata/conformance.yaml")
	if err != nil {
		return nil, fmt.Errorf("read list of tests: %w", err)
	}
	var entries []struct {
		Codename test `json:"codename"`
	}
	if err := yaml.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("read list of tests: %w", err)
	}
	var all []test
	for _, e := range entries {
		all = append(all, e.Codename)
	}
	slices.Sort(all)
	return all, nil
}

// listed reads the file of names; each must be a conformance test's.
func listed(file string, all []test) ([]test, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read chosen tests: %w", err)
	}
	var out []test
	for line := range strings.Lines(string(data)) {
		t := test(strings.TrimSpace(line))
		if t == "" || strings.HasPrefix(string(t), "#") {
			continue
		}
		if !slices.Contains(all, t) {
			return nil, fmt.Errorf("read chosen tests: %s has no conformance test's name: %q", file, t)
		}
		out = append(out, t)
	}
	return out, nil
}

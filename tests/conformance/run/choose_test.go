package main

import (
	"testing"
)

func TestUpstreamsListIsWhole(t *testing.T) {
	all, err := conformance()
	if err != nil {
		t.Fatal(err)
	}
	sigs := map[string]int{}
	for _, name := range all {
		sigs[name.sig()]++
	}
	want := map[string]int{
		"api-machinery": 100, "apps": 60, "architecture": 1, "auth": 27, "cli": 17, "instrumentation": 4,
		"network": 47, "node": 104, "scheduling": 11, "storage": 91,
	}
	for sig, n := range want {
		if sigs[sig] != n {
			t.Errorf("sig-%s: got %d tests, want %d", sig, sigs[sig], n)
		}
	}
	if len(sigs) != len(want) {
		t.Errorf("got SIGs %v", sigs)
	}
}

func TestTheSampleNamesTestsOfAllSIGs(t *testing.T) {
	chosen, err := choice{list: "../sample.txt"}.tests()
	if err != nil {
		t.Fatal(err)
	}
	sigs := map[string]bool{}
	for _, name := range chosen {
		sigs[name.sig()] = true
	}
	if len(sigs) != 10 || len(chosen) < 25 || len(chosen) > 35 {
		t.Errorf("got %d tests of %d SIGs, want about 30 of 10", len(chosen), len(sigs))
	}
}

func TestFocusAndSkipChoose(t *testing.T) {
	chosen, err := choice{focus: "sig-apps", skip: `Serial|Slow`}.tests()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range chosen {
		if name.sig() != "apps" || name.serial() {
			t.Errorf("chose %s", name)
		}
	}
	if _, err := (choice{focus: "no such test"}).tests(); err == nil {
		t.Error("no error where nothing matches")
	}
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFiguresStandBesideThoseOfTheCommitBefore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bench")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, c := range []struct {
		commit string
		value  float64
	}{{"old", 1}, {"before", 22.5}, {"later", 3}} {
		r := &report{Commit: c.commit, Time: at.Add(time.Duration(i) * time.Hour)}
		r.add("get", "GET", c.value, "/s", "")
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
	}
	r := &report{Commit: "now", Time: at.Add(90 * time.Minute)}
	r.add("get", "GET", 30, "/s", "")
	r.add("get", "never measured before", 1, "/s", "")
	old, err := r.earlier(dir)
	if err != nil || old == nil || old.Commit != "before" {
		t.Fatalf("got %+v, %v, want the figures of the commit before", old, err)
	}
	var table bytes.Buffer
	if err := r.writeTable(&table, old); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"BEFORE", "22.5", "+33 %"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("table has no %q:\n%s", want, table.String())
		}
	}
}

func TestARunOfSomeSectionsKeepsTheOthersOfItsCommit(t *testing.T) {
	dir := t.TempDir()
	first := &report{Commit: "c", Time: time.Unix(1, 0).UTC()}
	first.add("up", "to Ready", 1, "s", "3")
	first.add("get", "GET", 10, "/s", "")
	second := &report{Commit: "c", Time: time.Unix(2, 0).UTC()}
	second.add("get", "GET", 20, "/s", "")
	for _, r := range []*report{first, second} {
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loadReport(filepath.Join(dir, "c.json"))
	if err != nil || len(got.Figures) != 2 || got.find(first.Figures[0]) == nil || got.find(second.Figures[0]).Value != 20 {
		t.Errorf("got %+v, %v, want both sections, the newer value", got, err)
	}
}

func TestFiguresThatCannotBeReadAreAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &report{Commit: "c"}
	if _, err := r.earlier(dir); err == nil {
		t.Error("got no error")
	}
	if old, err := r.earlier(t.TempDir()); err != nil || old != nil {
		t.Errorf("got %v, %v of nothing", old, err)
	}
}

package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

func TestAKillDuringAFailedTestIsTold(t *testing.T) {
	begin := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	k := &killer{kills: []kill{
		{peer: "p1", at: begin.Add(-time.Second)}, {peer: "p2", at: begin.Add(40 * time.Second)}, {peer: "p3", at: begin.Add(2 * time.Minute)},
	}}
	r := result{test: "[sig-a] x", state: types.SpecStateFailed, begin: begin, took: time.Minute, reason: "EOF"}
	r.kills = k.during(r.begin, r.begin.Add(r.took))
	var b strings.Builder
	summarize([]result{r}, time.Hour).print(&b)
	if got := b.String(); !strings.Contains(got, "p2, the store's leader, was killed 40s after the test began") || strings.Contains(got, "p1") || strings.Contains(got, "p3") {
		t.Errorf("got %s", got)
	}
}

func TestWithoutAKillerNobodyIsKilled(t *testing.T) {
	var k *killer
	k.start(t.Context())()
	if got := k.during(time.Time{}, time.Now()); got != nil {
		t.Errorf("got %v", got)
	}
}

// skein is a program that tells who leads and notes what it is asked to do.
const skein = `#!/bin/sh
echo "$@" >> CALLS
case "$*" in
"status -o json") echo '{"leaders":{"store":"p2"}}' ;;
"lab status"*) echo '{"peers":[{"name":"p1"},{"name":"p2","dir":"/lab/p2"}]}' ;;
esac
`

func TestTheLeaderIsKilledAndStartedAgainThoughTheRunEnds(t *testing.T) {
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	program := filepath.Join(dir, "skein")
	if err := os.WriteFile(program, []byte(strings.ReplaceAll(skein, "CALLS", calls)), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var back []string
	k := &killer{
		lab: lab{skein: program, dir: "/lab", out: io.Discard}, out: writerFunc(func(p []byte) {
			if strings.Contains(string(p), "killed p2") {
				cancel() // the run ends while the peer is off
			}
		}),
		back: func(_ context.Context, p peer) error { back = append(back, p.Dir); return nil },
	}
	if err := k.once(ctx); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	want := "status -o json\nlab status --lab-dir /lab -o json\nlab kill --lab-dir /lab p2\nlab start --lab-dir /lab p2\n"
	if string(raw) != want || len(back) != 1 || back[0] != "/lab/p2" || len(k.kills) != 1 {
		t.Errorf("got %s%v %v", raw, back, k.kills)
	}
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

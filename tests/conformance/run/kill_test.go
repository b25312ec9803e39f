package main

import (
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

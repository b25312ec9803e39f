package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	list := func(n int) []time.Duration {
		var l []time.Duration
		for i := range n {
			l = append(l, time.Duration(i+1))
		}
		return l
	}
	for name, c := range map[string]struct {
		n    int
		p    float64
		want time.Duration
	}{
		"none":                   {0, 50, 0},
		"one is every":           {1, 99, 1},
		"median of odd":          {9, 50, 5},
		"median of even":         {10, 50, 5},
		"99th of hundred":        {100, 99, 99},
		"99th of few is highest": {9, 99, 9},
		"0th is lowest":          {9, 0, 1},
		"100th is highest":       {9, 100, 9},
	} {
		if got := percentile(list(c.n), c.p); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestSummarizeSortsFirst(t *testing.T) {
	got := summarize([]time.Duration{3e6, 1e6, 2e6}, 2*time.Second)
	want := loadResult{Count: 3, Seconds: 2, P50: 2, P99: 3}
	if got != want || got.rate() != 1.5 {
		t.Errorf("got %+v at %v/s, want %+v at 1.5/s", got, got.rate(), want)
	}
}

func TestProcessStatusIsParsed(t *testing.T) {
	const text = "Name:\tskein\nVmRSS:\t  217352 kB\nRssAnon:\t   78896 kB\nThreads:\t9\n"
	for name, want := range map[string]int64{"VmRSS": 217352, "RssAnon": 78896} {
		if got, err := statusField(text, name); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"RssFile", "Name"} {
		if got, err := statusField(text, name); err == nil {
			t.Errorf("%s: got %d, want an error", name, got)
		}
	}
}

func TestProcessTimesSurviveAStrangeName(t *testing.T) {
	const text = "5430 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 1596 1599 0 0 20 0 9 0 571906"
	if got, err := cpuSeconds(text); err != nil || got != 31.95 {
		t.Errorf("got %v, %v, want 31.95", got, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "no parenthesis at all 1 2 3 4 5 6 7 8 9 10 11 12 13 14"} {
		if got, err := cpuSeconds(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func TestPeerGroupIsFoundInAnyHierarchy(t *testing.T) {
	for name, text := range map[string]string{
		"version 1": "4:memory:/skein-lab-0a/p1\n0::/\n",
		"version 2": "0::/skein-lab-0a/p1\n",
		"below it":  "0::/skein-lab-0a/p1/daemon\n",
	} {
		if got, err := peerGroup(text, "p1"); err != nil || got != "/skein-lab-0a/p1" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for _, text := range []string{"", "0::/\n", "0::/skein-lab-0a/p2\n", "0::/other/p1\n"} {
		if got, err := peerGroup(text, "p1"); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

func TestDNSAddressIsTheTenthOfTheRange(t *testing.T) {
	if got, err := dnsAddress("10.96.0.1"); err != nil || got.String() != "10.96.0.10" {
		t.Errorf("got %v, %v, want 10.96.0.10", got, err)
	}
	if _, err := dnsAddress("None"); err == nil {
		t.Error("got no error for None")
	}
}

func TestPayloadIsUniqueAndOfItsSize(t *testing.T) {
	a, b := payload(), payload()
	if len(a) != payloadSize || a == b {
		t.Errorf("got %d bytes, equal %t, want %d different ones", len(a), a == b, payloadSize)
	}
}

func TestDriveMakesExactlyItsCountAndTellsErrors(t *testing.T) {
	var made atomic.Int64
	o := loadOptions{workers: 4, limit: time.Hour, count: 100}
	got := o.drive(t.Context(), func(int) request {
		return func(_ context.Context, n int64) error {
			made.Add(1)
			if n%10 == 0 {
				return errors.New("no")
			}
			return nil
		}
	})
	if made.Load() != 100 || got.Count != 90 || got.Errors != 10 || got.Error != "no" {
		t.Errorf("made %d, got %+v, want 100 made, 90 good, 10 bad", made.Load(), got)
	}
}

func TestDriveEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := loadOptions{workers: 2, limit: time.Hour, count: maxRequests}
	got := o.drive(ctx, func(int) request {
		return func(_ context.Context, n int64) error {
			if n == 5 {
				cancel()
			}
			return nil
		}
	})
	if got.Count < 6 || got.Count >= maxRequests {
		t.Errorf("got %d requests, want a few", got.Count)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	o, err := parse([]string{"-only", "create,dns", "-idle", "2m"})
	b := &bench{options: o}
	if err != nil || !b.wants("dns") || b.wants("idle") || o.idle != 2*time.Minute {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, bad := range []string{"-only=none", "-o=xml", "-idle=0s", "-each=-1s"} {
		if _, err := parse([]string{bad}); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

func TestReportIsATableAndJSON(t *testing.T) {
	r := newReport()
	r.add("up", "to Ready", 2.5, "s", "3")
	r.note("alone")
	var table, raw bytes.Buffer
	if err := r.writeTable(&table, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"to Ready", "2.50", "3", "alone", "load average"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("table has no %q:\n%s", want, table.String())
		}
	}
	if err := r.writeJSON(&raw); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(raw.Bytes(), &back); err != nil || len(back.Figures) != 1 || back.Figures[0] != r.Figures[0] {
		t.Errorf("got %+v, %v, want %+v", back, err, r.Figures)
	}
}

func TestTheAgeOfAProcessIsFoundInTicksAfterBoot(t *testing.T) {
	const stat = "5430 (a) b) S 1 2 3 4 5 6 7 8 9 10 1596 1599 0 0 20 0 9 0 571906 1 2"
	if got, err := processAge(stat, "5720.06 9000.00\n"); err != nil || got.Round(time.Millisecond) != time.Second {
		t.Errorf("got %v, %v, want 1s", got, err)
	}
	if _, err := processAge("1 (x) S 1", "1 2"); err == nil {
		t.Error("got no error for too few fields")
	}
}

func TestTheObjectOfAnEventIsKnownWithoutDecoding(t *testing.T) {
	n, ok := watched([]byte(`{"type":"ADDED","object":{"metadata":{"name":"watched-17.x","namespace":"bench"}}}`))
	if !ok || n != 17 {
		t.Errorf("got %d, %t, want 17", n, ok)
	}
	for _, other := range []string{"", `{"type":"BOOKMARK"}`, `{"metadata":{"name":"m17"}}`, `{"metadata":{"name":"watched-x."}}`} {
		if _, ok := watched([]byte(other)); ok {
			t.Errorf("%q was taken for an event", other)
		}
	}
}

package daemon_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/daemon"
)

type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) { j.mu.Lock(); j.lines = append(j.lines, s); j.mu.Unlock() }

func (j *journal) part(name string) daemon.Part {
	return daemon.Part{Name: name, Run: func(ctx context.Context) error {
		j.add("+" + name)
		<-ctx.Done()
		j.add("-" + name)
		return nil
	}}
}

func TestPartsStopInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		parts := []daemon.Part{j.part("store"), j.part("api"), j.part("kubelet")}
		for i := range parts {
			parts[i].Ready = func(context.Context) error { synctest.Wait(); return nil }
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := daemon.RunParts(ctx, slog.New(slog.DiscardHandler), parts); err != nil {
			t.Fatal(err)
		}
		want := []string{"+store", "+api", "+kubelet", "-kubelet", "-api", "-store"}
		if !slices.Equal(j.lines, want) {
			t.Errorf("got %v, want %v", j.lines, want)
		}
	})
}

func TestAFailingPartEndsThePeerAndNamesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		boom := errors.New("boom")
		err := daemon.RunParts(t.Context(), slog.New(slog.DiscardHandler), []daemon.Part{
			j.part("store"),
			{Name: "api", Run: func(context.Context) error { return boom }},
		})
		if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "api: ") {
			t.Errorf("got %v, want api: boom", err)
		}
	})
}

func TestAPanickingPartIsStartedAgainAndThenParkedWhileOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		starts := 0
		parts := []daemon.Part{
			j.part("store"),
			{Name: "proxy", Restart: true, Run: func(context.Context) error { starts++; panic("poison") }},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		err := daemon.RunParts(ctx, slog.New(slog.DiscardHandler), parts)
		if err == nil || !strings.Contains(err.Error(), "parked") || !strings.Contains(err.Error(), "poison") {
			t.Errorf("got %v, want the parked part's panic", err)
		}
		if starts != 5 {
			t.Errorf("got %d starts, want 5", starts)
		}
		if time.Since(begin) != time.Hour {
			t.Errorf("the peer ended after %v, before its context", time.Since(begin))
		}
	})
}

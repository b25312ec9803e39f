package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/api/role"
)

// records is a role table that one test writes.
type records struct {
	mu       sync.Mutex
	held     role.Assignment
	changed  chan struct{}
	resigned []role.Fence

	stale atomic.Bool
}

func (r *records) set(holder string, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = role.Assignment{Role: role.Scheduler, Holder: holder, Epoch: epoch}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *records) Assignments() []role.Assignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return []role.Assignment{r.held}
}

func (r *records) RoleChanged() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *records) ReportProgress(role.Name, uint64) {}

func (r *records) Verified() bool { return !r.stale.Load() }

func (r *records) Resign(_ context.Context, name role.Name, epoch uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resigned = append(r.resigned, role.Fence{Role: name, Epoch: epoch})
	return nil
}

func TestARoleIsWorkedOncePerEpochAndOnlyWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &records{changed: make(chan struct{})}
		var log []string
		r := roleRunner{
			role: role.Scheduler, self: "a", store: table, log: slog.New(slog.DiscardHandler),
			work: func(ctx context.Context, f role.Fence, _ func()) error {
				if carried, _ := role.From(ctx); carried != f {
					t.Errorf("context carries %v, want %v", carried, f)
				}
				log = append(log, fmt.Sprint("start ", f.Epoch))
				<-ctx.Done()
				log = append(log, fmt.Sprint("stop ", f.Epoch))
				return nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		for epoch, holder := range []string{"b", "a", "a", "b", "a"} {
			table.set(holder, uint64(epoch+1))
			synctest.Wait()
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []string{"start 2", "stop 2", "start 3", "stop 3", "start 5", "stop 5"}
		if !slices.Equal(log, want) {
			t.Errorf("got %v, want %v", log, want)
		}
	})
}

func TestAPanicInARoleGivesTheRoleBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &records{changed: make(chan struct{})}
		r := roleRunner{
			role: role.Scheduler, self: "a", store: table, log: slog.New(slog.DiscardHandler),
			work: func(context.Context, role.Fence, func()) error { panic("poisonous object") },
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		table.set("a", 7)
		synctest.Wait()
		if want := []role.Fence{{Role: role.Scheduler, Epoch: 7}}; !slices.Equal(table.resigned, want) {
			t.Errorf("got %v, want %v", table.resigned, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestARecordOfThePastStartsNoWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &records{changed: make(chan struct{})}
		table.stale.Store(true)
		table.set("a", 1)
		var worked []uint64
		r := roleRunner{
			role: role.Scheduler, self: "a", store: table, log: slog.New(slog.DiscardHandler),
			work: func(ctx context.Context, f role.Fence, _ func()) error {
				worked = append(worked, f.Epoch)
				<-ctx.Done()
				return nil
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		table.set("a", 4) // what catching up brings
		table.stale.Store(false)
		time.Sleep(time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []uint64{4}; !slices.Equal(worked, want) {
			t.Errorf("worked for epochs %v, want %v", worked, want)
		}
	})
}

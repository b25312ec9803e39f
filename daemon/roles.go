package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
)

// roleStore is what the role runner needs of the replicated store.
type roleStore interface {
	// Assignments returns who holds each role, as this replica knows.
	Assignments() []role.Assignment
	// RoleChanged returns a channel that is closed at the next change.
	RoleChanged() <-chan struct{}
	// ReportProgress tells the store leader that the holder works.
	ReportProgress(name role.Name, epoch uint64)
	// Verified reports whether this replica is known to be current: until
	// then what it says of roles may be of the past.
	Verified() bool
	// Resign gives a role back that its holder cannot fill.
	Resign(ctx context.Context, name role.Name, epoch uint64) error
}

// roleRunner runs the work of one role while this peer holds it: once an
// epoch, stopped as soon as the replica shows another.
type roleRunner struct {
	role  role.Name
	self  member.Name
	store roleStore
	log   *slog.Logger
	// work blocks until ctx ends. Its writes carry the fence; it calls
	// progress at least every half second while it is not stuck.
	work func(ctx context.Context, f role.Fence, progress func()) error
}

// Run follows the role's record until ctx ends. It begins when the replica is
// known to be current; a peer that comes back would else work for an epoch
// that is over.
func (r *roleRunner) Run(ctx context.Context) error {
	for !r.store.Verified() {
		if pause(ctx, 50*time.Millisecond) != nil {
			return nil
		}
	}
	var running uint64 // the epoch being worked for; 0: none
	stop := func() {}
	defer func() { stop() }()
	for {
		changed := r.store.RoleChanged()
		epoch := r.epoch()
		if epoch != running {
			stop()
			running, stop = epoch, func() {}
			if epoch != 0 {
				stop = r.start(ctx, role.Fence{Role: r.role, Epoch: epoch})
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// epoch is that of this peer's hold on the role, 0 if another has it.
func (r *roleRunner) epoch() uint64 {
	for _, a := range r.store.Assignments() {
		if a.Role == r.role && a.Holder == string(r.self) {
			return a.Epoch
		}
	}
	return 0
}

// start begins to work under f and returns what ends it and waits for the end.
func (r *roleRunner) start(ctx context.Context, f role.Fence) (stop func()) {
	ctx, cancel := context.WithCancel(role.With(ctx, f))
	var wg sync.WaitGroup
	wg.Go(func() {
		r.log.InfoContext(ctx, "role taken", "role", f.Role, "epoch", f.Epoch)
		err := guarded(ctx, func(ctx context.Context) error {
			return r.work(ctx, f, func() { r.store.ReportProgress(f.Role, f.Epoch) })
		})
		if ctx.Err() != nil {
			r.log.InfoContext(ctx, "role left", "role", f.Role, "epoch", f.Epoch)
			return
		}
		r.log.ErrorContext(ctx, "role's work failed and the role is given back", "role", f.Role, "epoch", f.Epoch, "err", err)
		if err := r.store.Resign(ctx, f.Role, f.Epoch); err != nil {
			r.log.WarnContext(ctx, "role was not given back; it moves when its progress is missed", "role", f.Role, "err", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

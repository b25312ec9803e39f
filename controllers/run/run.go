// Package run is the one loop that every controller runs on: informers in, a
// rate-limited queue of keys, one reconcile a key at a time.
//
// Its invariant: a reconcile that fails, hangs or panics delays its own key
// and no other, and every reconcile's context carries the fence of the epoch
// the loop was started for.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/role"
)

// Key names what one reconcile is about, an object of the controller's
// primary kind; Namespace is empty for cluster-scoped kinds.
type Key = types.NamespacedName

// Source is a kind that a controller reads.
type Source struct {
	// Informer delivers the kind's changes. Required.
	Informer cache.SharedIndexInformer
	// Keys maps a changed object to the keys that may need work; it is asked
	// for the old and for the new state. Nil: the object's own key.
	Keys func(obj any) []Key
	// Changed drops updates that cannot matter when it returns false. Nil:
	// every update with a new resource version matters.
	Changed func(before, after any) bool
}

// Controller is one level-triggered loop. The first source is the kind its
// keys name; its object is the one Events speak about.
type Controller struct {
	Name  string
	Reads []Source
	// Writes lists what it changes as "resource.group/subresource"; its user's
	// roles must allow that.
	Writes []string
	// Recorder is told of objects that are given up; nil: no Events.
	Recorder events.EventRecorder
	// Workers is how many keys are reconciled at once; 0 means 2.
	Workers int
	// Timeout bounds one reconcile; 0 means 15 s.
	Timeout time.Duration
	// Reconcile brings the world nearer to what key asks for. It is called
	// again after the returned duration if that is not zero, with back-off
	// after an error, and whenever a source changes. Never called for one
	// key twice at a time.
	Reconcile func(ctx context.Context, key Key) (after time.Duration, err error)
	// Feed, if set, runs beside the workers and adds keys from what is no
	// informer. It must return when ctx ends; an error ends the loop.
	Feed func(ctx context.Context, add func(Key)) error
	// Reset, if set, is called before the first reconcile of each Run, so that
	// nothing remembered from an earlier epoch is believed.
	Reset func()
}

// Config wires a Loop.
type Config struct {
	Controllers []Controller
	Log         *slog.Logger // nil discards
	// MinRevision tells the revision of a fence's assignment, which the local
	// replica has applied already; the loop waits until every informer shows
	// it, but no longer than [CatchUp], because the informer of a kind that
	// nobody writes learns of revisions only by bookmarks. Nil or 0: the
	// informers' first sync is enough.
	MinRevision func(role.Fence) uint64
	// Hung is how long a reconcile may overstay its timeout until progress
	// is withheld; 0 means 5 s.
	Hung time.Duration
	// CrashBudget is how often a key may panic before it is parked; 0 means 3.
	CrashBudget int
}

// Loop runs controllers while a role is held.
type Loop struct {
	cfg Config
}

// New checks cfg.
func New(cfg Config) (*Loop, error) {
	for i, c := range cfg.Controllers {
		if c.Name == "" || c.Reconcile == nil || (len(c.Reads) == 0 && c.Feed == nil) {
			return nil, fmt.Errorf("controller %d %q: name, reconcile, and reads or a feed are required", i, c.Name)
		}
		for j, s := range c.Reads {
			if s.Informer == nil {
				return nil, fmt.Errorf("controller %s: source %d has no informer", c.Name, j)
			}
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Hung == 0 {
		cfg.Hung = 5 * time.Second
	}
	if cfg.CrashBudget == 0 {
		cfg.CrashBudget = 3
	}
	return &Loop{cfg: cfg}, nil
}

// Heartbeat is the longest pause between two calls of progress while nothing
// hangs.
const Heartbeat = 400 * time.Millisecond

// ErrPanicked is wrapped by the error of a Run whose feed panicked.
var ErrPanicked = errors.New("panicked")

// Run runs every controller, once its informers are there, until ctx ends and
// returns nil; none of its goroutines survives it. progress is called at
// least every Heartbeat as long as no reconcile hangs; nil is allowed. An
// error means that the role had better move. Run may be called again.
func (l *Loop) Run(ctx context.Context, fence role.Fence, progress func()) error {
	ctx = role.With(ctx, fence)
	p := &pulse{progress: progress, hung: l.cfg.Hung}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { p.run(gctx); return nil })
	var rev uint64
	if l.cfg.MinRevision != nil {
		rev = l.cfg.MinRevision(fence)
	}
	l.cfg.Log.InfoContext(ctx, "controllers start", "fence", fence.String(), "controllers", len(l.cfg.Controllers))
	for i := range l.cfg.Controllers {
		q := newQueue(&l.cfg, &l.cfg.Controllers[i], p)
		g.Go(func() error { return q.run(gctx, rev) })
	}
	err := g.Wait()
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the role was taken away: the end of ctx is no failure
	}
	return err
}

// CatchUp is how long informers that have synced may take to show a revision
// that the replica they read has applied.
const CatchUp = 2 * time.Second

// await blocks until the controller's informers have synced and have reached
// the fence's revision or have had time to; false: ctx has ended. Each controller waits for its
// own sources only: a kind that is not served idles those that need it.
func (q *queue) await(ctx context.Context, rev uint64) bool {
	all := make([]cache.SharedIndexInformer, 0, len(q.c.Reads))
	for _, s := range q.c.Reads {
		all = append(all, s.Informer)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	slow := time.NewTimer(10 * time.Second)
	defer slow.Stop()
	var synced time.Time
	for !reached(all, rev) {
		if synced.IsZero() && reached(all, 0) {
			synced = time.Now()
		}
		if !synced.IsZero() && time.Since(synced) > CatchUp {
			q.cfg.Log.DebugContext(ctx, "controller starts without having seen the revision", "controller", q.c.Name, "revision", rev)
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-slow.C:
			q.cfg.Log.WarnContext(ctx, "controller waits for its informers", "controller", q.c.Name, "revision", rev)
		case <-tick.C:
		}
	}
	return ctx.Err() == nil
}

func reached(all []cache.SharedIndexInformer, rev uint64) bool {
	for _, inf := range all {
		if !inf.HasSynced() || (rev > 0 && StoreRevision(inf) < rev) {
			return false
		}
	}
	return true
}

// object returns the primary object of key, or nil.
func (c *Controller) object(key Key) runtime.Object {
	if len(c.Reads) == 0 {
		return nil
	}
	name := key.String()
	if key.Namespace == "" {
		name = key.Name
	}
	obj, ok, err := c.Reads[0].Informer.GetIndexer().GetByKey(name)
	if err != nil || !ok {
		return nil
	}
	o, _ := obj.(runtime.Object)
	return o
}

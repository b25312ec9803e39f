package run

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// queue is one controller while it runs.
type queue struct {
	cfg   *Config
	c     *Controller
	work  workqueue.TypedRateLimitingInterface[Key]
	pulse *pulse
	crash *crashes
}

func newQueue(cfg *Config, c *Controller, p *pulse) *queue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[Key](10*time.Millisecond, time.Minute)
	return &queue{
		cfg: cfg, c: c, pulse: p,
		work:  workqueue.NewTypedRateLimitingQueue(limiter),
		crash: newCrashes(cfg.CrashBudget),
	}
}

func (q *queue) run(ctx context.Context, rev uint64) error {
	if !q.await(ctx, rev) {
		q.work.ShutDown()
		return nil
	}
	if q.c.Reset != nil {
		q.c.Reset()
	}
	regs := make([]cache.ResourceEventHandlerRegistration, len(q.c.Reads))
	for i, s := range q.c.Reads {
		reg, err := s.Informer.AddEventHandler(q.handler(ctx, s))
		if err != nil {
			return fmt.Errorf("watch source %d of %s: %w", i, q.c.Name, err)
		}
		regs[i] = reg
		defer func() { _ = s.Informer.RemoveEventHandler(reg) }() // fails only for informers that have stopped
	}
	for _, reg := range regs {
		select {
		case <-reg.HasSyncedChecker().Done():
		case <-ctx.Done():
			q.work.ShutDown()
			return nil
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	workers := q.c.Workers
	if workers == 0 {
		workers = 2
	}
	for range workers {
		b := q.pulse.join()
		g.Go(func() error {
			for q.turn(gctx, b) {
			}
			return nil
		})
	}
	if q.c.Feed != nil {
		g.Go(func() error { return q.feed(gctx) })
	}
	g.Go(func() error {
		<-gctx.Done()
		q.work.ShutDown()
		return nil
	})
	return g.Wait()
}

func (q *queue) feed(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("feed %s: %w: %v\n%s", q.c.Name, ErrPanicked, r, debug.Stack())
		}
	}()
	return q.c.Feed(ctx, q.work.Add)
}

func (q *queue) handler(ctx context.Context, s Source) cache.ResourceEventHandler {
	add := func(obj any) {
		defer func() {
			if r := recover(); r != nil {
				q.cfg.Log.ErrorContext(ctx, "event handler panicked", "controller", q.c.Name, "panic", fmt.Sprint(r))
			}
		}()
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if s.Keys != nil {
			for _, k := range s.Keys(obj) {
				q.work.Add(k)
			}
			return
		}
		if k, ok := KeyOf(obj); ok {
			q.work.Add(k)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: add,
		UpdateFunc: func(before, after any) {
			if s.Changed != nil && !s.Changed(before, after) {
				return
			}
			add(after)
			if s.Keys != nil {
				add(before)
			}
		},
		DeleteFunc: add,
	}
}

// turn reconciles one key; false means that the queue has ended.
func (q *queue) turn(ctx context.Context, b *beat) bool {
	key, shutdown := q.work.Get()
	if shutdown {
		return false
	}
	defer q.work.Done(key)
	if ctx.Err() != nil {
		return true
	}
	if q.crash.parked(key, q.version(key)) {
		return true
	}
	timeout := q.c.Timeout
	if timeout == 0 {
		timeout = 15 * time.Second
	}
	b.begin(timeout)
	after, panicked, err := q.reconcile(ctx, key, timeout)
	b.end()
	q.settle(ctx, key, after, err, panicked)
	return true
}

// settle decides when a key comes again.
func (q *queue) settle(ctx context.Context, key Key, after time.Duration, err error, panicked bool) {
	switch {
	case ctx.Err() != nil:
	case panicked:
		if q.crash.add(key, q.version(key)) {
			q.cfg.Log.ErrorContext(ctx, "object is parked", "controller", q.c.Name, "key", key.String(), "err", err)
			q.report(key)
			return
		}
		q.cfg.Log.WarnContext(ctx, "reconcile panicked", "controller", q.c.Name, "key", key.String(), "err", err)
		q.work.AddRateLimited(key)
	case err != nil:
		if !apierrors.IsConflict(err) {
			q.cfg.Log.WarnContext(ctx, "reconcile failed", "controller", q.c.Name, "key", key.String(), "err", err)
		}
		q.work.AddRateLimited(key)
	default:
		q.work.Forget(key)
		q.crash.forget(key)
		if after > 0 {
			q.work.AddAfter(key, after)
		}
	}
}

func (q *queue) reconcile(ctx context.Context, key Key, timeout time.Duration) (after time.Duration, panicked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			after, panicked = 0, true
			err = fmt.Errorf("%w: %v\n%s", ErrPanicked, r, debug.Stack())
		}
	}()
	after, err = q.c.Reconcile(ctx, key)
	return after, false, err
}

// version is the resource version of the key's object, "" when there is none.
func (q *queue) version(key Key) string {
	obj := q.c.object(key)
	if obj == nil {
		return ""
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return ""
	}
	return m.GetResourceVersion()
}

func (q *queue) report(key Key) {
	obj := q.c.object(key)
	if obj == nil || q.c.Recorder == nil {
		return
	}
	q.c.Recorder.Eventf(obj, nil, corev1.EventTypeWarning, "Parked", "Reconcile",
		"The %s controller crashed on this object %d times and leaves it alone until it changes", q.c.Name, q.cfg.CrashBudget)
}

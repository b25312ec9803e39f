package storage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"skein.dev/skein/api/store"
)

const (
	// bookmarkEvery is how often a quiet watch that asked for bookmarks is
	// told how far it has seen.
	bookmarkEvery = time.Minute
	// progressEvery is the same for ProgressNotify.
	progressEvery = 5 * time.Second
	// bookmarkBefore is how long before the end of a watch it gets a last
	// bookmark, so that the next one starts near the present.
	bookmarkBefore = 2 * time.Second
	watchBuffer    = 100
)

// Watch implements storage.Interface.
func (s *Storage) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	prefix, err := s.key(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	rev, err := s.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest("invalid resource version: " + err.Error())
	}
	w := &watcher{
		s: s, prefix: prefix, opts: opts, coder: s.coder.Load(),
		all: opts.Predicate.Empty(), out: make(chan watch.Event, watchBuffer),
	}
	initial := rev == 0
	if opts.SendInitialEvents != nil {
		initial = *opts.SendInitialEvents
	}
	if initial || rev == 0 {
		view, err := s.view(ctx, opts.ResourceVersion)
		if err != nil {
			if storage.IsTooLargeResourceVersion(err) {
				return failedWatch(err), nil
			}
			return nil, err
		}
		w.seen = view.Revision()
		if initial {
			w.initial = view
		}
	} else {
		if err := s.await(ctx, rev); err != nil {
			return nil, err
		}
		w.seen = store.Revision(rev)
	}
	w.cursor, err = s.store.Watch(prefix, !opts.Recursive, w.seen)
	if errors.Is(err, store.ErrCompacted) {
		return failedWatch(tooOld(w.seen)), nil
	}
	if err != nil {
		return nil, s.storeError(err)
	}
	ctx, w.cancel = context.WithCancel(ctx)
	utilflowcontrol.WatchInitialized(ctx)
	go w.run(ctx)
	return w, nil
}

// failedWatch is a watch that says one error and ends.
func failedWatch(err error) watch.Interface {
	w := watch.NewFakeWithChanSize(1, false)
	w.Error(statusOf(err))
	w.Stop()
	return w
}

// tooOld is the answer to a watch whose changes are no longer kept.
func tooOld(rev store.Revision) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", rev))
}

func statusOf(err error) *metav1.Status {
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		out := st.Status()
		return &out
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Message: err.Error(),
		Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError,
	}
}

type watcher struct {
	s       *Storage
	prefix  string
	opts    storage.ListOptions
	coder   *coder
	all     bool // the predicate accepts everything
	initial store.View
	cursor  store.Watch
	seen    store.Revision // everything up to it has been delivered
	marked  store.Revision // the last bookmark
	out     chan watch.Event
	cancel  context.CancelFunc
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	defer w.cursor.Close()
	defer w.cancel()
	err := w.start(ctx)
	for err == nil {
		err = w.follow(ctx)
	}
	if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
		return
	}
	if errors.Is(err, store.ErrCompacted) {
		err = tooOld(w.seen)
	}
	w.send(ctx, watch.Event{Type: watch.Error, Object: statusOf(StoreError(err))}) //nolint:errcheck // the watch ends here anyway
}

func (w *watcher) send(ctx context.Context, e watch.Event) error {
	select {
	case w.out <- e:
		return nil
	default:
	}
	select {
	case w.out <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start delivers the state a watch begins with.
func (w *watcher) start(ctx context.Context) error {
	if w.initial == nil {
		return nil
	}
	for e := range entries(w.initial, w.prefix, w.prefix, w.opts.Recursive) {
		obj, err := w.s.present(ctx, w.coder, e)
		if err != nil {
			return err
		}
		if !w.matches(obj.obj) {
			continue
		}
		if err := w.send(ctx, watch.Event{Type: watch.Added, Object: w.dress(obj)}); err != nil {
			return err
		}
	}
	w.initial = nil
	if w.opts.SendInitialEvents != nil && w.opts.Predicate.AllowWatchBookmarks {
		return w.bookmark(ctx, true)
	}
	return nil
}

// follow waits for changes until the next bookmark is due and delivers them.
func (w *watcher) follow(ctx context.Context) error {
	wait := ctx
	if due, ok := w.nextBookmark(ctx); ok {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, due)
		defer cancel()
	}
	for {
		events, through, err := w.cursor.Next(wait, true)
		if err != nil && ctx.Err() == nil && wait.Err() != nil {
			events, through, err = w.cursor.Next(ctx, false)
		}
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := w.deliver(ctx, e); err != nil {
				return err
			}
		}
		w.seen = through
		if wait.Err() == nil {
			continue
		}
		if ctx.Err() == nil && w.seen > w.marked {
			return w.bookmark(ctx, false)
		}
		return ctx.Err()
	}
}

func (w *watcher) nextBookmark(ctx context.Context) (time.Duration, bool) {
	var every time.Duration
	switch {
	case w.opts.ProgressNotify:
		every = progressEvery
	case w.opts.Predicate.AllowWatchBookmarks:
		every = bookmarkEvery
	default:
		return 0, false
	}
	if end, ok := ctx.Deadline(); ok {
		if left := time.Until(end) - bookmarkBefore; left > 0 {
			every = min(every, left)
		}
	}
	return every, true
}

func (w *watcher) bookmark(ctx context.Context, initialEnd bool) error {
	obj := w.s.newFunc()
	if err := w.s.versioner.UpdateObject(obj, uint64(w.seen)); err != nil {
		return err
	}
	if initialEnd {
		if err := storage.AnnotateInitialEventsEndBookmark(obj); err != nil {
			return err
		}
	}
	w.marked = w.seen
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: obj})
}

// matches never fails: an object whose fields cannot be told does not match.
func (w *watcher) matches(obj runtime.Object) bool {
	if w.all {
		return true
	}
	ok, err := w.opts.Predicate.Matches(obj)
	return err == nil && ok
}

func (w *watcher) dress(o *shared) runtime.Object {
	if w.s.bare {
		return o.obj.DeepCopyObject()
	}
	return o
}

func (w *watcher) deliver(ctx context.Context, e *store.Event) error {
	c, err := w.s.change(ctx, w.coder, e)
	if err != nil {
		return err
	}
	is, was := false, false
	if c.now != nil {
		is = w.matches(c.now.obj)
	}
	if e.Prev != nil && (c.now == nil || !w.all) {
		prev, err := c.before(ctx, w.coder, e)
		if err != nil {
			return err
		}
		if was = w.matches(prev.obj); was && !is {
			return w.send(ctx, watch.Event{Type: watch.Deleted, Object: w.dress(prev)})
		}
	} else {
		was = e.Prev != nil
	}
	switch {
	case is && was:
		return w.send(ctx, watch.Event{Type: watch.Modified, Object: w.dress(c.now)})
	case is:
		return w.send(ctx, watch.Event{Type: watch.Added, Object: w.dress(c.now)})
	}
	return nil
}

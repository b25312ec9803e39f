package apiserver

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	kstorage "k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/kubernetes"
)

// How many requests a server works on at the same time, as upstream has it.
const (
	defaultReads  = 400
	defaultWrites = 200
)

// calmAfter is how long the requests must be few before they are let through
// uncounted again.
const calmAfter = time.Minute

// settling is how long priority and fairness may take to know its levels.
const settling = 5 * time.Second

// fairness shares the server out. Few requests are let through at once: to
// classify and queue each of them costs a tenth to a quarter of a GET, for
// nothing. When more than a quarter of the limit are under way, or a user has
// declared flows or levels of his own, upstream's priority and fairness stands
// in the way until it is calm again; then it is gone with its memory.
//
// The peer's own components are let through always: they work on behalf of
// all, they are few, and they must not wait for those who wait for them.
type fairness struct {
	s             *Server
	reads, writes int64
	long          genericapirequest.LongRunningRequestCheck
	next          http.Handler
	patience      time.Duration // how long a request may wait in a queue

	reading, writing atomic.Int64 // requests under way
	peak             atomic.Int64 // the most of them since the last look, while there is a gate
	gate             atomic.Pointer[http.Handler]
	declared         atomic.Bool   // users have flows of their own
	wake             chan struct{} // a gate is wanted
}

func (s *Server) newFairness(next http.Handler, long genericapirequest.LongRunningRequestCheck, timeout time.Duration) *fairness {
	return &fairness{
		s: s, reads: int64(s.cfg.MaxReads), writes: int64(s.cfg.MaxWrites),
		long: long, next: next, patience: timeout / 4, wake: make(chan struct{}, 1),
	}
}

// ServeHTTP implements http.Handler.
func (f *fairness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := genericapirequest.RequestInfoFrom(r.Context())
	if !ok {
		http.Error(w, "no RequestInfo found in context, handler chain must be wrong", http.StatusInternalServerError)
		return
	}
	gate := f.gate.Load()
	if f.long(r, info) {
		// Of what runs long only a watch has a beginning that costs something.
		if gate != nil && info.Verb == "watch" && !ours(r) {
			(*gate).ServeHTTP(w, r)
			return
		}
		f.next.ServeHTTP(w, r)
		return
	}
	count, limit, writes := &f.reading, f.reads, false
	switch info.Verb {
	case "get", "list":
	default:
		count, limit, writes = &f.writing, f.writes, true
	}
	mine := count.Add(1)
	defer count.Add(-1)
	all := f.reading.Load() + f.writing.Load()
	if !info.IsResourceRequest && info.Path == "/metrics" {
		metrics.UpdateInflightRequestMetrics(metrics.ExecutingPhase, int(f.reading.Load()), int(f.writing.Load()))
	}
	if gate != nil {
		for was := f.peak.Load(); all > was && !f.peak.CompareAndSwap(was, all); was = f.peak.Load() {
		}
		if ours(r) {
			f.next.ServeHTTP(w, r)
			return
		}
		(*gate).ServeHTTP(w, r)
		return
	}
	if all > f.threshold() {
		f.want()
	}
	if mine > limit && !ours(r) && !privileged(r) {
		metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, writes)
		metrics.RecordRequestTermination(r, info, metrics.APIServerComponent, http.StatusTooManyRequests)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		return
	}
	f.next.ServeHTTP(w, r)
}

// threshold is how many requests may be under way before anybody is counted.
func (f *fairness) threshold() int64 { return (f.reads + f.writes) / 4 }

func (f *fairness) want() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// ours reports whether a request is of this very process.
func ours(r *http.Request) bool {
	_, ok := r.Context().Value(userKey{}).(user.Info)
	return ok
}

func privileged(r *http.Request) bool {
	u, ok := genericapirequest.UserFrom(r.Context())
	if !ok {
		return false
	}
	return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}

// run puts up the gate whenever it is wanted, until ctx ends.
func (f *fairness) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
			if err := f.guard(ctx); err != nil {
				f.s.cfg.Log.WarnContext(ctx, "requests are not shared out fairly", "error", err)
			}
		}
	}
}

// guard keeps the gate up until it is calm.
func (f *fairness) guard(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(f.s.ClientConfig(selfUser))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	informers := f.s.Informers(client)
	control := utilflowcontrol.New(informers, client.FlowcontrolV1(), int(f.reads+f.writes))
	informers.Start(ctx.Done())
	defer informers.Shutdown()
	defer cancel()
	wg.Go(func() { _ = control.Run(ctx.Done()) }) // it fails only when ctx ends
	if !f.settled(ctx, control) {
		return nil
	}
	estimate := flowcontrolrequest.NewWorkEstimator(f.objects, control.GetInterestedWatchCount,
		flowcontrolrequest.DefaultWorkEstimatorConfig(), control.GetMaxSeats)
	gate := genericfilters.WithPriorityAndFairness(f.next, f.long, control, estimate, f.patience)
	f.peak.Store(0)
	f.gate.Store(&gate)
	defer f.gate.Store(nil)
	for calm := false; !calm; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(calmAfter):
			calm = f.peak.Swap(0) <= f.threshold()/2 && !f.declared.Load()
		}
	}
	return nil
}

// settled waits until control has taken in the levels. Before that it knows
// only the one for what matches nothing, which is narrow.
func (f *fairness) settled(ctx context.Context, control utilflowcontrol.Interface) bool {
	levels := collect[*flowcontrolv1.PriorityLevelConfiguration](f.s, levelsResource)
	known := func() bool {
		for _, l := range levels {
			if l.Spec.Limited != nil && l.Spec.Limited.LimitResponse.Queuing != nil && control.GetMaxSeats(l.Name) == 0 {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(settling); !known() && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

// objects tells how many objects there are of a resource, for lists cost as
// much as they are long.
func (f *fairness) objects(resource string) (kstorage.Stats, error) {
	gr := schema.ParseGroupResource(resource)
	r := f.s.resources[gr.Group+"/"+gr.Resource]
	if r == nil {
		return kstorage.Stats{}, flowcontrolrequest.ObjectCountNotFoundErr
	}
	return r.Keep.Stats(f.s.base)
}

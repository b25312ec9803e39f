package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/util/workqueue"
)

// statusWriters is how many statuses are written at once.
const statusWriters = 4

// statusWriter tells the API how pods are: only what changed, only the last
// state, and for as long as it takes.
type statusWriter struct {
	client kubernetes.Interface
	lister listers.PodLister
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[types.UID]

	mu   sync.Mutex // guards the fields below
	want map[types.UID]*wanted
}

// wanted is a pod's status to be written. A finished pod's object is deleted
// after it.
type wanted struct {
	namespace, name string
	status          *corev1.PodStatus
	finished        bool
	written         *corev1.Pod // what the last write returned
	base            string      // the version that the lister had then
	refusals        int         // how often the API refused it
}

func newStatusWriter(c kubernetes.Interface, l listers.PodLister, log *slog.Logger) *statusWriter {
	return &statusWriter{
		client: c, lister: l, log: log, want: map[types.UID]*wanted{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.UID]()),
	}
}

// set asks for status to be written; it does not block. The caller gives the
// status away.
func (s *statusWriter) set(pod *corev1.Pod, status *corev1.PodStatus, finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.want[pod.UID]
	if w == nil {
		w = &wanted{namespace: pod.Namespace, name: pod.Name}
		s.want[pod.UID] = w
	} else if w.finished == finished && w.status != nil && same(w.status, status) && same(&pod.Status, status) {
		return
	}
	w.status, w.finished = status, finished
	s.queue.Add(pod.UID)
}

// same compares statuses as the API would.
func same(a, b *corev1.PodStatus) bool { return equality.Semantic.DeepEqual(a, b) }

// forget drops what is remembered of a pod that no longer exists.
func (s *statusWriter) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.want, uid)
}

// run writes until ctx ends.
func (s *statusWriter) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range statusWriters {
		wg.Go(func() {
			for {
				uid, stop := s.queue.Get()
				if stop {
					return
				}
				if err := s.write(ctx, uid); err != nil && ctx.Err() == nil && !s.over(uid) {
					s.log.Log(ctx, s.level(uid, err), "pod status not written", "uid", string(uid), "err", err)
					s.queue.AddRateLimited(uid)
				} else {
					s.queue.Forget(uid)
				}
				s.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
	s.queue.ShutDown()
	wg.Wait()
}

// over reports whether the pod has gone since its status was asked for, its
// name perhaps to another pod: then what the API says of it means nothing.
func (s *statusWriter) over(uid types.UID) bool {
	s.mu.Lock()
	w := s.want[uid]
	s.mu.Unlock()
	if w == nil {
		return true
	}
	live, err := s.lister.Pods(w.namespace).Get(w.name)
	if !apierrors.IsNotFound(err) && (err != nil || live.UID == uid) {
		return false
	}
	s.forget(uid)
	return true
}

// refusedOften is when a refusal is told. The first ones may be of a pod that
// has just gone: a node has no right to what is not there.
const refusedOften = 3

// level is how much a failure matters: an API that is away for a moment does
// not, a refusal that stays does, once.
func (s *statusWriter) level(uid types.UID, err error) slog.Level {
	if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
		return slog.LevelDebug
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.want[uid]
	if w == nil {
		return slog.LevelDebug
	}
	if w.refusals++; w.refusals == refusedOften {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (s *statusWriter) write(ctx context.Context, uid types.UID) error {
	s.mu.Lock()
	w := s.want[uid]
	if w == nil {
		s.mu.Unlock()
		return nil
	}
	todo := *w
	s.mu.Unlock()
	live, err := s.lister.Pods(todo.namespace).Get(todo.name)
	if apierrors.IsNotFound(err) || (err == nil && live.UID != uid) {
		s.forget(uid)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	seen := live.ResourceVersion
	if todo.written != nil && todo.base == seen {
		live = todo.written // the lister has not seen our own write yet
	}
	updated, err := s.patch(ctx, live, todo.status)
	if apierrors.IsNotFound(err) {
		return nil // the lister will say so
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	if w := s.want[uid]; w != nil {
		w.written, w.base = updated, seen
	}
	s.mu.Unlock()
	if !todo.finished {
		return nil
	}
	zero := int64(0)
	err = s.client.CoreV1().Pods(todo.namespace).Delete(ctx, todo.name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod: %w", err)
	}
	return nil
}

// patch writes the difference and returns the pod with it.
func (s *statusWriter) patch(ctx context.Context, live *corev1.Pod, status *corev1.PodStatus) (*corev1.Pod, error) {
	next := live.DeepCopy()
	next.Status = *status.DeepCopy()
	next.Status.Conditions = mergeConditions(live.Status.Conditions, next.Status.Conditions)
	if same(&live.Status, &next.Status) {
		return live, nil
	}
	before, err := json.Marshal(&corev1.Pod{Status: live.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	after, err := json.Marshal(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: live.UID}, Status: next.Status})
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("make status patch: %w", err)
	}
	updated, err := s.client.CoreV1().Pods(live.Namespace).Patch(ctx, live.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return nil, fmt.Errorf("write pod status: %w", err)
	}
	return updated, nil
}

// mergeConditions takes the kubelet's own conditions from ours and all others
// from the live object, in the live object's order.
func mergeConditions(live, ours []corev1.PodCondition) []corev1.PodCondition {
	owned := []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady,
		corev1.PodResizePending, corev1.PodResizeInProgress,
	}
	passing := []corev1.PodConditionType{corev1.PodResizePending, corev1.PodResizeInProgress}
	out := slices.DeleteFunc(slices.Clone(live), func(c corev1.PodCondition) bool {
		return slices.Contains(passing, c.Type) &&
			!slices.ContainsFunc(ours, func(o corev1.PodCondition) bool { return o.Type == c.Type })
	})
	for _, c := range ours {
		i := slices.IndexFunc(out, func(o corev1.PodCondition) bool { return o.Type == c.Type })
		switch {
		case i < 0:
			out = append(out, c)
		case slices.Contains(owned, c.Type):
			out[i] = c
		}
	}
	return out
}

// latest returns a copy of the status that was last asked for.
func (s *statusWriter) latest(uid types.UID) *corev1.PodStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.want[uid]; w != nil && w.status != nil {
		return w.status.DeepCopy()
	}
	return nil
}

package pods

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/run"
)

// MaxBurst is the most pods one reconcile makes or deletes.
const MaxBurst = 500

// Burst calls do n times, at most [MaxBurst], in batches of 1, 2, 4, ... side
// by side, and stops after the first batch with an error: a quota that refuses
// one pod is not asked five hundred times.
func Burst(n int, do func() error) error {
	left := min(n, MaxBurst)
	for batch := 1; left > 0; batch = min(2*batch, 32) {
		var g errgroup.Group
		size := min(batch, left)
		for range size {
			g.Go(func() error { return guarded(do) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		left -= size
	}
	return nil
}

// Each calls do for each of all under the same rules as [Burst].
func Each[T any](all []T, do func(T) error) error {
	var next atomic.Int64
	return Burst(len(all), func() error { return do(all[next.Add(1)-1]) })
}

// OwnerOr maps a pod to its owner of kind, or for an orphan that is not being
// deleted to those that others names.
func OwnerOr(kind string, others func(*corev1.Pod) []run.Key) func(any) []run.Key {
	owner := run.OwnerKeys(kind)
	return func(obj any) []run.Key {
		p, ok := obj.(*corev1.Pod)
		switch {
		case !ok:
			return nil
		case metav1.GetControllerOfNoCopy(p) != nil:
			return owner(p)
		case p.DeletionTimestamp != nil:
			return nil
		default:
			return others(p)
		}
	}
}

// ErrPanicked is wrapped by the error of a burst in which a call panicked.
var ErrPanicked = errors.New("panicked")

// guarded keeps a panic on another goroutine from ending the process; the
// loop's own boundary covers only the goroutine of the reconcile.
func guarded(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrPanicked, r)
		}
	}()
	return do()
}

// Changed reports whether an update of a pod can matter to a controller that
// counts pods: all but a change of managed fields alone.
func Changed(before, after any) bool {
	a, ok := before.(*corev1.Pod)
	b, ok2 := after.(*corev1.Pod)
	if !ok || !ok2 {
		return true
	}
	if a.ResourceVersion == b.ResourceVersion && a.ResourceVersion != "" {
		return false
	}
	return a.Status.Phase != b.Status.Phase || a.DeletionTimestamp != b.DeletionTimestamp ||
		a.Spec.NodeName != b.Spec.NodeName || a.UID != b.UID ||
		!equality.Semantic.DeepEqual(a.Labels, b.Labels) ||
		!equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences) ||
		!equality.Semantic.DeepEqual(a.Status.PodIPs, b.Status.PodIPs) ||
		!equality.Semantic.DeepEqual(a.Status.Conditions, b.Status.Conditions)
}

package kubelet

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/kubelet/cri"
)

// podHandler gives each pod of this node to its worker.
func (k *Kubelet) podHandler() cache.ResourceEventHandler {
	return cache.FilteringResourceEventHandler{
		FilterFunc: func(obj any) bool {
			if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = t.Obj
			}
			pod, ok := obj.(*corev1.Pod)
			return ok && k.mine(pod)
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { k.podChanged(obj, false) },
			UpdateFunc: func(_, obj any) { k.podChanged(obj, false) },
			DeleteFunc: func(obj any) {
				if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
					obj = t.Obj
				}
				k.podChanged(obj, true)
			},
		},
	}
}

func (k *Kubelet) podChanged(obj any, gone bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		if k.follower != nil && !gone {
			k.follower.follow(pod) // it may have got an ephemeral container
		}
		w.update(pod, gone)
	} else if !gone {
		k.startLocked(pod, false)
	}
}

// startLocked begins a worker, unless Run is not there yet or over.
func (k *Kubelet) startLocked(pod *corev1.Pod, orphan bool) {
	if k.begin == nil {
		return
	}
	w := newWorker(k, pod, orphan)
	k.workers[pod.UID] = w
	k.begin(w)
}

// live runs a worker to its end. A panic ends only the worker: one poisonous
// pod must not take the node along.
func (k *Kubelet) live(ctx context.Context, w *worker) {
	if k.follower != nil {
		pod := w.current()
		k.follower.follow(pod)
		defer k.follower.drop(w.uid)
	}
	defer func() {
		if r := recover(); r != nil {
			k.log.ErrorContext(ctx, "pod worker panicked, the pod is left as it is", "pod", w.name(), "panic", r, "stack", string(debug.Stack()))
			return // its entry stays, so that nothing takes it for an orphan
		}
		k.mu.Lock()
		if k.workers[w.uid] == w {
			delete(k.workers, w.uid)
		}
		k.mu.Unlock()
		if ctx.Err() == nil { // at the end of Run the ports stay open
			k.publishPorts()
		}
	}()
	w.run(ctx)
}

// startWorkers begins with the pods that are known.
func (k *Kubelet) startWorkers(ctx context.Context, wg *sync.WaitGroup) {
	defer k.publishPorts()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begin = func(w *worker) { wg.Go(func() { k.live(ctx, w) }) }
	pods, err := k.podLister.List(labels.Everything())
	if err != nil {
		k.log.ErrorContext(ctx, "list pods", "err", err) // an indexer in memory does not fail
	}
	for _, pod := range pods {
		if k.mine(pod) && k.workers[pod.UID] == nil {
			k.startLocked(pod, false)
		}
	}
}

// objectHandler wakes the pods that use a changed object.
func (k *Kubelet) objectHandler(kind string) cache.ResourceEventHandler {
	changed := func(obj any) {
		if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = t.Obj
		}
		m, ok := obj.(metav1.Object)
		if !ok {
			return
		}
		k.objectChanged(kind, m.GetNamespace(), m.GetName())
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: changed,
		UpdateFunc: func(old, obj any) {
			a, ok1 := old.(metav1.Object)
			b, ok2 := obj.(metav1.Object)
			if ok1 && ok2 && a.GetResourceVersion() != b.GetResourceVersion() {
				changed(obj)
			}
		},
	}
}

// objectChanged tells the workers whose pods refer to the object.
func (k *Kubelet) objectChanged(kind, namespace, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		w.objectChanged(kind, namespace, name)
	}
}

// wake makes a pod's worker look again.
func (k *Kubelet) wake(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[uid]; w != nil {
		w.poke()
	}
}

// worker returns the worker of a pod by name, nil if there is none.
func (k *Kubelet) workerOf(namespace, name string) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found *worker
	for _, w := range k.workers {
		if p := w.current(); p.Namespace == namespace && p.Name == name && (found == nil || p.DeletionTimestamp == nil) {
			found = w
		}
	}
	return found
}

// adoptOrphan takes over what the runtime holds of a pod that the API does
// not have, to end it.
func (k *Kubelet) adoptOrphan(h *cri.Held) {
	grace := int64(h.Grace / time.Second)
	now := metav1.Now()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: h.Name, Namespace: h.Namespace, UID: h.UID,
			DeletionTimestamp: &now, DeletionGracePeriodSeconds: &grace,
		},
		Spec: corev1.PodSpec{NodeName: k.cfg.NodeName, TerminationGracePeriodSeconds: &grace},
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.workers[h.UID] == nil {
		k.startLocked(pod, true)
	}
}

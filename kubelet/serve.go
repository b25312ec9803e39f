package kubelet

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/server"
)

// nodePods is the kubelet as the node API sees it.
type nodePods struct{ k *Kubelet }

// List implements server.Pods.
func (n nodePods) List() []*corev1.Pod {
	n.k.mu.Lock()
	workers := make([]*worker, 0, len(n.k.workers))
	for _, w := range n.k.workers {
		workers = append(workers, w)
	}
	n.k.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(workers))
	for _, w := range workers {
		if !w.orphan {
			out = append(out, n.present(w))
		}
	}
	return out
}

// present is the pod with the status that the kubelet last made, which the
// API may not have yet.
func (n nodePods) present(w *worker) *corev1.Pod {
	pod := w.current()
	if st := n.k.status.latest(pod.UID); st != nil {
		pod = pod.DeepCopy()
		pod.Status = *st
	}
	return pod
}

// Find implements server.Pods.
func (n nodePods) Find(namespace, name string, uid types.UID) (*corev1.Pod, error) {
	w := n.k.workerOf(namespace, name)
	if w == nil {
		return nil, fmt.Errorf("pod does not exist: %s/%s", namespace, name)
	}
	pod := n.present(w)
	if uid != "" && pod.UID != uid {
		return nil, fmt.Errorf("pod does not exist: %s/%s with uid %s", namespace, name, uid)
	}
	return pod, nil
}

// Held implements server.Pods.
func (n nodePods) Held(ctx context.Context, uid types.UID) ([]lifecycle.Sandbox, []lifecycle.Container, error) {
	return n.k.runtime.Pod(ctx, uid)
}

// serve runs the node API.
func (k *Kubelet) serve(ctx context.Context) error {
	s, err := server.New(server.Config{
		Listen: k.cfg.Listen, TLS: k.cfg.TLS, Authorize: k.cfg.Authorize, Runtime: k.runtime,
		Pods: nodePods{k}, NodeName: k.cfg.NodeName, RootDir: k.cfg.RootDir, Log: k.log,
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

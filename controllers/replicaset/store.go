package replicaset

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	appslisters "k8s.io/client-go/listers/apps/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// store is that of ReplicaSets.
type store struct {
	kit  component.Kit
	sets appslisters.ReplicaSetLister
}

func (store) Kind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("ReplicaSet") }

func (s store) Get(namespace, name string) (*appsv1.ReplicaSet, runtime.Object, error) {
	rs, err := s.sets.ReplicaSets(namespace).Get(name)
	return rs, rs, err //nolint:wrapcheck // the caller wraps it
}

func (s store) Live(ctx context.Context, namespace, name string) (metav1.Object, error) {
	return s.kit.Client.AppsV1().ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s store) WriteStatus(ctx context.Context, set runtime.Object, status appsv1.ReplicaSetStatus) error {
	rs, ok := set.(*appsv1.ReplicaSet)
	if !ok {
		return fmt.Errorf("write status: %T is no ReplicaSet", set)
	}
	up := rs.DeepCopy()
	up.Status = status
	_, err := s.kit.Client.AppsV1().ReplicaSets(rs.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	return err //nolint:wrapcheck // the caller wraps it
}

func (s store) Selecting(p *corev1.Pod) []run.Key {
	sets, err := s.sets.GetPodReplicaSets(p)
	if err != nil { // none selects it
		return nil
	}
	return run.KeysOf(sets)
}

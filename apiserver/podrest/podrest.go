// Package podrest serves what can be done to a pod beside changing it:
// binding, eviction, and the streams that its node's kubelet serves.
//
// Its invariant: a stream goes to the node that the pod is bound to, over
// mutual TLS, and its bytes pass through untouched.
package podrest

import (
	"context"
	"crypto/tls"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"
)

// Pods serves the subresources of pods.
type Pods struct {
	Store *genericregistry.Store
	// Node finds a node in the replica.
	Node func(name string) *corev1.Node
	// TLS and Port are how kubelets are reached; a nil TLS: not at all.
	TLS  *tls.Config
	Port int32
}

// Storages returns the REST storages by path.
func (p *Pods) Storages() map[string]rest.Storage {
	return map[string]rest.Storage{
		"bindings":         &binding{Pods: p, legacy: true},
		"pods/binding":     &binding{Pods: p},
		"pods/log":         &logs{p},
		"pods/exec":        &stream{Pods: p, kind: exec},
		"pods/attach":      &stream{Pods: p, kind: attach},
		"pods/portforward": &stream{Pods: p, kind: forward},
		"pods/proxy": &proxied{
			options: func() runtime.Object { return &corev1.PodProxyOptions{} }, locate: p.podProxy,
		},
	}
}

func (p *Pods) get(ctx context.Context, name string) (*corev1.Pod, error) {
	obj, err := p.Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod is a %T", obj))
	}
	return pod, nil
}

// binding binds a pod to a node: pods/binding, and the old bindings.
type binding struct {
	*Pods

	legacy bool
}

var (
	_ rest.NamedCreater = (*binding)(nil)
	_ rest.Scoper       = (*binding)(nil)
)

// New implements rest.Storage.
func (*binding) New() runtime.Object { return &corev1.Binding{} }

// Destroy implements rest.Storage.
func (*binding) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*binding) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (*binding) GetSingularName() string { return "binding" }

// Create implements rest.NamedCreater.
func (b *binding) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	bind, ok := obj.(*corev1.Binding)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %#v", obj))
	}
	if b.legacy && name == "" {
		name = bind.Name
	}
	if name != bind.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	switch {
	case bind.Target.Kind != "" && bind.Target.Kind != "Node":
		return nil, apierrors.NewBadRequest("target.kind: only Node can be bound to")
	case bind.Target.Name == "":
		return nil, apierrors.NewBadRequest("target.name: a node is required")
	}
	if validate != nil {
		if err := validate(ctx, bind.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	if err := b.assign(ctx, bind, dryrun.IsDryRun(options.DryRun)); err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// assign sets the node and the condition in one write.
func (b *binding) assign(ctx context.Context, bind *corev1.Binding, dry bool) error {
	key, err := b.Store.KeyFunc(ctx, bind.Name)
	if err != nil {
		return err
	}
	pre := &storage.Preconditions{}
	if bind.UID != "" {
		pre.UID = &bind.UID
	}
	if bind.ResourceVersion != "" {
		pre.ResourceVersion = &bind.ResourceVersion
	}
	gr := b.Store.DefaultQualifiedResource
	update := storage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		pod, ok := obj.(*corev1.Pod)
		switch {
		case !ok:
			return nil, fmt.Errorf("unexpected object: %T", obj)
		case pod.DeletionTimestamp != nil:
			return nil, apierrors.NewConflict(gr, pod.Name, fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name))
		case pod.Spec.NodeName != "":
			return nil, apierrors.NewConflict(gr, pod.Name, fmt.Errorf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName))
		case len(pod.Spec.SchedulingGates) > 0:
			return nil, apierrors.NewConflict(gr, pod.Name, fmt.Errorf("pod %v has non-empty .spec.schedulingGates", pod.Name))
		}
		pod.Spec.NodeName = bind.Target.Name
		for k, v := range bind.Annotations {
			metav1.SetMetaDataAnnotation(&pod.ObjectMeta, k, v)
		}
		for k, v := range bind.Labels {
			metav1.SetMetaDataLabel(&pod.ObjectMeta, k, v)
		}
		setCondition(&pod.Status, corev1.PodCondition{
			Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation,
		})
		return pod, nil
	})
	err = b.Store.Storage.GuaranteedUpdate(ctx, key, &corev1.Pod{}, false, pre, update, dry, nil)
	return storeerr.InterpretUpdateError(err, gr, bind.Name)
}

func setCondition(s *corev1.PodStatus, c corev1.PodCondition) {
	c.LastTransitionTime = metav1.Now()
	for i := range s.Conditions {
		if s.Conditions[i].Type != c.Type {
			continue
		}
		if s.Conditions[i].Status == c.Status {
			c.LastTransitionTime = s.Conditions[i].LastTransitionTime
		}
		s.Conditions[i] = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

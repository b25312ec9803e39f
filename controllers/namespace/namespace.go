// Package namespace empties namespaces that are being deleted and lets them go.
//
// Its invariant: a namespace is finalized only after every kind that could be
// discovered was listed empty.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// Controller reconciles Namespaces.
type Controller struct {
	kit      component.Kit
	lister   corelisters.NamespaceLister
	metadata metadata.Interface
}

// again is when to look again at a namespace that is not empty yet: nothing
// tells of the last object of any kind.
const again = 500 * time.Millisecond

// New takes its informer from kit; md reaches the objects of every kind.
func New(kit component.Kit, md metadata.Interface) (run.Controller, error) {
	if md == nil {
		return run.Controller{}, errors.New("namespace controller: a metadata client is required")
	}
	namespaces := kit.Informers.Core().V1().Namespaces()
	c := &Controller{kit: kit, lister: namespaces.Lister(), metadata: md}
	return run.Controller{
		Name:      "namespace-controller",
		Reads:     []run.Source{{Informer: namespaces.Informer()}},
		Writes:    []string{"namespaces/status", "namespaces/finalize", "*.*"},
		Workers:   4,
		Timeout:   time.Minute,
		Reconcile: c.reconcile,
	}, nil
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	ns, err := c.lister.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace: %w", err)
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	if c.kit.Settled != nil && !c.kit.Settled() {
		return time.Second, nil
	}
	// What is deleted here cannot come back, so the cache is not believed.
	live, err := c.kit.Client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace: %w", err)
	}
	if live.UID != ns.UID || live.DeletionTimestamp == nil {
		return 0, nil
	}
	rest := c.empty(ctx, live.Name)
	if live, err = c.report(ctx, live, rest); err != nil || live == nil {
		return 0, err
	}
	if !rest.clean() {
		return again, nil
	}
	return 0, c.finalize(ctx, live)
}

// report writes the conditions; nil without error means that the namespace
// has gone.
func (c *Controller) report(ctx context.Context, ns *corev1.Namespace, rest Rest) (*corev1.Namespace, error) {
	up := ns.DeepCopy()
	up.Status.Phase = corev1.NamespaceTerminating
	up.Status.Conditions = Conditions(ns.Status.Conditions, rest, metav1.Now())
	if equality.Semantic.DeepEqual(up.Status, ns.Status) {
		return ns, nil
	}
	got, err := c.kit.Client.CoreV1().Namespaces().UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // documented: gone
	}
	if err != nil {
		return nil, fmt.Errorf("update namespace status: %w", err)
	}
	return got, nil
}

func (c *Controller) finalize(ctx context.Context, ns *corev1.Namespace) error {
	up := ns.DeepCopy()
	up.Spec.Finalizers = slices.DeleteFunc(up.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := c.kit.Client.CoreV1().Namespaces().Finalize(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finalize namespace: %w", err)
	}
	return nil
}

// kinds lists every namespaced kind whose objects can be listed and deleted.
// With an error the list is what could be found.
func (c *Controller) kinds() ([]schema.GroupVersionResource, error) {
	lists, err := discovery.ServerPreferredNamespacedResources(c.kit.Client.Discovery())
	var out []schema.GroupVersionResource
	for _, l := range lists {
		gv, perr := schema.ParseGroupVersion(l.GroupVersion)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") {
				out = append(out, gv.WithResource(r.Name))
			}
		}
	}
	if err != nil {
		return out, fmt.Errorf("discover kinds: %w", err)
	}
	return out, nil
}

// Package serviceaccount gives every namespace what its pods start with: the
// default ServiceAccount and the authority that signs the API server's
// certificate.
//
// Its invariant: it only adds what is missing and repairs the root
// certificate; it never touches another account.
package serviceaccount

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

const (
	defaultAccount = "default"
	rootMap        = "kube-root-ca.crt"
	rootKey        = "ca.crt"
)

// Controller gives namespaces one thing that is missing.
type Controller struct {
	kit        component.Kit
	namespaces corelisters.NamespaceLister
	give       func(ctx context.Context, namespace string) error
}

// New makes the controller of default accounts. It takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	accounts := core.ServiceAccounts().Lister()
	c := &Controller{kit: kit}
	c.give = func(ctx context.Context, ns string) error {
		_, err := accounts.ServiceAccounts(ns).Get(defaultAccount)
		if !apierrors.IsNotFound(err) {
			return err //nolint:wrapcheck // nil but for a broken lister
		}
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: ns}}
		_, err = kit.Client.CoreV1().ServiceAccounts(ns).Create(ctx, sa, metav1.CreateOptions{})
		return made("default account", err)
	}
	return c.watching("serviceaccount-controller", "serviceaccounts", core.ServiceAccounts().Informer(), defaultAccount), nil
}

// NewRoot makes the controller that publishes rootCA, the PEM bundle that
// verifies the API server, to all pods.
func NewRoot(kit component.Kit, rootCA []byte) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	maps, root := core.ConfigMaps().Lister(), string(rootCA)
	c := &Controller{kit: kit}
	c.give = func(ctx context.Context, ns string) error { return c.rootCA(ctx, maps.ConfigMaps(ns), ns, root) }
	return c.watching("root-ca-certificate-publisher-controller", "configmaps", core.ConfigMaps().Informer(), rootMap), nil
}

// watching reconciles namespaces and the objects of a name in them.
func (c *Controller) watching(controller, resource string, of cache.SharedIndexInformer, name string) run.Controller {
	namespaces := c.kit.Informers.Core().V1().Namespaces()
	c.namespaces = namespaces.Lister()
	return run.Controller{
		Name: controller,
		Reads: []run.Source{
			{Informer: namespaces.Informer()},
			{Informer: of, Keys: func(obj any) []run.Key {
				k, ok := run.KeyOf(obj)
				if !ok || k.Name != name {
					return nil
				}
				return []run.Key{{Name: k.Namespace}}
			}},
		},
		Writes:    []string{resource},
		Reconcile: c.reconcile,
	}
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	ns, err := c.namespaces.Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace: %w", err)
	}
	if ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	return 0, c.give(ctx, ns.Name)
}

func (c *Controller) rootCA(ctx context.Context, maps corelisters.ConfigMapNamespaceLister, ns, root string) error {
	want := map[string]string{rootKey: root}
	have, err := maps.Get(rootMap)
	if apierrors.IsNotFound(err) {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: rootMap, Namespace: ns,
				Annotations: map[string]string{
					"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
				},
			},
			Data: want,
		}
		_, err = c.kit.Client.CoreV1().ConfigMaps(ns).Create(ctx, cm, metav1.CreateOptions{})
		return made("root certificate", err)
	}
	if err != nil {
		return fmt.Errorf("read root certificate: %w", err)
	}
	if len(have.Data) == 1 && have.Data[rootKey] == root && len(have.BinaryData) == 0 {
		return nil
	}
	up := have.DeepCopy()
	up.Data, up.BinaryData = want, nil
	if _, err = c.kit.Client.CoreV1().ConfigMaps(ns).Update(ctx, up, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("repair root certificate: %w", err)
	}
	return nil
}

// made judges a create: what exists already, or whose namespace is going or
// gone, needs nothing more.
func made(what string, err error) error {
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) ||
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return fmt.Errorf("create %s: %w", what, err)
}

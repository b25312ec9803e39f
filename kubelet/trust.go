package kubelet

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// certificates reads trust bundles and asks for pods' certificates. It watches
// bundles from the first pod on that wants some.
type certificates struct {
	client  kubernetes.Interface
	node    string
	nodes   listers.NodeLister
	changed func()        // a bundle has
	wanted  chan struct{} // holds at most one
}

func newCertificates(c *Config, changed func()) *certificates {
	return &certificates{
		client: c.Kit.Client, node: c.NodeName, nodes: c.Kit.Informers.Core().V1().Nodes().Lister(), changed: changed,
		wanted: make(chan struct{}, 1),
	}
}

// run watches bundles, once they are wanted, until ctx ends.
func (c *certificates) run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-c.wanted:
	}
	bundles := c.client.CertificatesV1().ClusterTrustBundles()
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return bundles.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return bundles.Watch(ctx, o)
			},
		}, c.client),
		ObjectType: &certificatesv1.ClusterTrustBundle{},
		// That one has changed is all that counts.
		Transform: func(obj any) (any, error) {
			if b, ok := obj.(*certificatesv1.ClusterTrustBundle); ok {
				return &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: b.Name, UID: b.UID, ResourceVersion: b.ResourceVersion}}, nil
			}
			return obj, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { c.changed() },
			UpdateFunc: func(_, _ any) { c.changed() },
			DeleteFunc: func(any) { c.changed() },
		},
	})
	informer.RunWithContext(ctx)
}

func (c *certificates) want() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// TrustBundle implements volume.Certificates.
func (c *certificates) TrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	c.want()
	return c.client.CertificatesV1().ClusterTrustBundles().Get(ctx, name, local())
}

// TrustBundles implements volume.Certificates.
func (c *certificates) TrustBundles(ctx context.Context) ([]certificatesv1.ClusterTrustBundle, error) {
	c.want()
	l, err := c.client.CertificatesV1().ClusterTrustBundles().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// Request implements volume.Certificates.
func (c *certificates) Request(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, request []byte) (string, error) {
	account, err := c.client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, local())
	if err != nil {
		return "", fmt.Errorf("read service account: %w", err)
	}
	node, err := c.nodes.Get(c.node)
	if err != nil {
		return "", fmt.Errorf("read node: %w", err)
	}
	r, err := c.client.CertificatesV1().PodCertificateRequests(pod.Namespace).Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: p.SignerName, PodName: pod.Name, PodUID: pod.UID,
			ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID,
			MaxExpirationSeconds: p.MaxExpirationSeconds, StubPKCS10Request: request, UnverifiedUserAnnotations: p.UserAnnotations,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return r.Name, nil
}

// Requested implements volume.Certificates.
func (c *certificates) Requested(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
	return c.client.CertificatesV1().PodCertificateRequests(namespace).Get(ctx, name, local())
}

// trustChanged tells the workers whose pods show trust bundles.
func (k *Kubelet) trustChanged() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		w.trustChanged()
	}
}

func (w *worker) trustChanged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.pod.Spec.Volumes {
		if p := w.pod.Spec.Volumes[i].Projected; p != nil {
			for j := range p.Sources {
				if p.Sources[j].ClusterTrustBundle != nil {
					w.dirty = true
					w.poke()
					return
				}
			}
		}
	}
}

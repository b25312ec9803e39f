package csr

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	certlisters "k8s.io/client-go/listers/certificates/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// servingSigner is who signs the certificates of API servers.
const servingSigner = "kubernetes.io/kube-apiserver-serving"

// publisher keeps the trust anchors of API servers in a ClusterTrustBundle.
type publisher struct {
	kit     component.Kit
	bundles certlisters.ClusterTrustBundleLister
	name    string
	anchors string
}

// NewPublisher publishes the PEM bundle by which API servers are known as the
// one bundle of its signer.
func NewPublisher(kit component.Kit, anchors []byte) (run.Controller, error) {
	inf := kit.Informers.Certificates().V1().ClusterTrustBundles()
	c := &publisher{kit: kit, bundles: inf.Lister(), name: BundleName(servingSigner, anchors), anchors: string(anchors)}
	// Whatever happens to the signer's bundles, all of them are looked at.
	keys := func(obj any) []run.Key {
		if b, ok := obj.(*certv1.ClusterTrustBundle); ok && b.Spec.SignerName == servingSigner {
			return []run.Key{{Name: c.name}}
		}
		return nil
	}
	return run.Controller{
		Name:   "kube-apiserver-serving-clustertrustbundle-publisher-controller",
		Reads:  []run.Source{{Informer: inf.Informer(), Keys: keys}},
		Feed:   c.begin,
		Writes: []string{"clustertrustbundles.certificates.k8s.io"}, Reconcile: c.reconcile,
	}, nil
}

// BundleName is what a signer's bundle of these anchors is called, upstream's way.
func BundleName(signer string, anchors []byte) string {
	sum := sha256.Sum256(anchors)
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signer, "/", ":"), sum[:12])
}

// begin looks once where there is no bundle yet that could be seen to change.
func (c *publisher) begin(ctx context.Context, add func(run.Key)) error {
	add(run.Key{Name: c.name})
	<-ctx.Done()
	return nil
}

func (c *publisher) reconcile(ctx context.Context, _ run.Key) (time.Duration, error) {
	all, err := c.bundles.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list trust bundles: %w", err)
	}
	client, found := c.kit.Client.CertificatesV1().ClusterTrustBundles(), false
	for _, b := range all {
		switch {
		case b.Spec.SignerName != servingSigner:
		case b.Name != c.name:
			if err := client.Delete(ctx, b.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return 0, fmt.Errorf("delete old trust bundle %s: %w", b.Name, err)
			}
		case b.Spec.TrustBundle != c.anchors:
			up := b.DeepCopy()
			up.Spec.TrustBundle = c.anchors
			if _, err := client.Update(ctx, up, metav1.UpdateOptions{}); err != nil {
				return 0, fmt.Errorf("mend trust bundle %s: %w", b.Name, err)
			}
			found = true
		default:
			found = true
		}
	}
	if found {
		return 0, nil
	}
	_, err = client.Create(ctx, &certv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: certv1.ClusterTrustBundleSpec{SignerName: servingSigner, TrustBundle: c.anchors},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return 0, fmt.Errorf("publish trust bundle: %w", err)
	}
	return 0, nil
}

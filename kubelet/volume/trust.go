package volume

import (
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// trust returns the trust anchors that a projection asks for (KEP-3257), each
// once.
func (s *Set) trust(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	optional := isTrue(p.Optional)
	switch {
	case p.Name != nil:
		b, err := s.cfg.Certificates.TrustBundle(ctx, *p.Name)
		if apierrors.IsNotFound(err) && optional {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read cluster trust bundle: %w", err)
		}
		return anchors([]certificatesv1.ClusterTrustBundle{*b}), nil
	case p.SignerName == nil:
		return nil, errors.New("cluster trust bundle projection names neither a bundle nor a signer")
	}
	// Without a selector it matches nothing, with an empty one all.
	selector, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("label selector: %w", err)
	}
	all, err := s.cfg.Certificates.TrustBundles(ctx)
	if err != nil {
		return nil, fmt.Errorf("list cluster trust bundles: %w", err)
	}
	match := slices.DeleteFunc(slices.Clone(all), func(b certificatesv1.ClusterTrustBundle) bool {
		return b.Spec.SignerName != *p.SignerName || !selector.Matches(labels.Set(b.Labels))
	})
	if len(match) == 0 && !optional {
		return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return anchors(match), nil
}

// anchors are the certificates of bundles, each once and nothing else. Their
// order means nothing: that of their hashes keeps anybody from relying on it,
// and the same set is the same file.
func anchors(bundles []certificatesv1.ClusterTrustBundle) []byte {
	found := map[[sha256.Size]byte][]byte{}
	for i := range bundles {
		for rest := []byte(bundles[i].Spec.TrustBundle); ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			found[sha256.Sum256(b.Bytes)] = b.Bytes
		}
	}
	var out []byte
	order := slices.SortedFunc(maps.Keys(found), func(a, b [sha256.Size]byte) int { return slices.Compare(a[:], b[:]) })
	for _, h := range order {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found[h]})...)
	}
	return out
}

// anchorsFile shows trust anchors to who may see the pod's tokens.
func (s *Set) anchorsFile(ctx context.Context, pod *corev1.Pod, p *corev1.ClusterTrustBundleProjection, m os.FileMode) (files, error) {
	data, err := s.trust(ctx, p)
	if err != nil {
		return nil, err
	}
	return files{p.Path: tokenFile(pod, data, m)}, nil
}

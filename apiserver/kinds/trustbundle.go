package kinds

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// ClusterTrustBundle declares sets of trust anchors.
func ClusterTrustBundle() registry.Kind {
	k := declare[certificatesv1.ClusterTrustBundle, certificatesv1.ClusterTrustBundleList](certificatesv1.SchemeGroupVersion, "clustertrustbundles")
	k.Columns = []metav1.TableColumnDefinition{str("SignerName", describe(certificatesv1.ClusterTrustBundleSpec{}, "signerName"))}
	k.Row = row(func(b *certificatesv1.ClusterTrustBundle) []any { return []any{or(b.Spec.SignerName, none)} })
	k.Select = selects(func(b *certificatesv1.ClusterTrustBundle) fields.Set {
		return fields.Set{"spec.signerName": b.Spec.SignerName}
	})
	k.Strategy = rules[*certificatesv1.ClusterTrustBundle]{
		validate: validation.ClusterTrustBundle, validateUpdate: validation.ClusterTrustBundleUpdate, needsVersion: true,
	}.strategy()
	return k
}

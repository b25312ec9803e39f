package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
)

// podSigner lets only those answer a request for a pod's certificate who may
// sign for its signer.
func (c Config) podSigner(ctx context.Context, a admission.Attributes) error {
	if !is(a, certificatesv1.GroupName, "podcertificaterequests", "status") {
		return nil
	}
	old, ok1 := a.GetOldObject().(*certificatesv1.PodCertificateRequest)
	r, ok2 := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if !ok1 || !ok2 || equality.Semantic.DeepEqual(old.Status, r.Status) || c.maySign(ctx, a.GetUserInfo(), "sign", old.Spec.SignerName) {
		return nil
	}
	kind := schema.GroupKind{Group: certificatesv1.GroupName, Kind: "PodCertificateRequest"}
	return apierrors.NewInvalid(kind, old.Name, field.ErrorList{field.Forbidden(field.NewPath("spec", "signerName"),
		fmt.Sprintf("User %q is not permitted to \"sign\" for signer %q", a.GetUserInfo().GetName(), old.Spec.SignerName))})
}

// attest lets only those speak for a signer, by a bundle of its trust anchors,
// whom a role lets attest for it.
func (c Config) attest(ctx context.Context, a admission.Attributes) error {
	if !is(a, certificatesv1.GroupName, "clustertrustbundles", "") {
		return nil
	}
	b, ok := a.GetObject().(*certificatesv1.ClusterTrustBundle)
	if !ok {
		return nil
	}
	if old, ok := a.GetOldObject().(*certificatesv1.ClusterTrustBundle); ok && old.Spec == b.Spec {
		return nil // garbage collectors and the like touch metadata
	}
	if b.Spec.SignerName != "" && !c.maySign(ctx, a.GetUserInfo(), "attest", b.Spec.SignerName) {
		return refuse(a, "user not permitted to attest for signerName %q", b.Spec.SignerName)
	}
	return nil
}

// restrictPodCertificate lets a node ask only for certificates that a pod of
// its own mounts.
func (c Config) restrictPodCertificate(ctx context.Context, node string, a admission.Attributes) error {
	r, ok := a.GetObject().(*certificatesv1.PodCertificateRequest)
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" || !ok {
		return refuse(a, "unexpected operation %v", a.GetOperation())
	}
	s := &r.Spec
	if string(s.NodeName) != node {
		return refuse(a, "PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", s.NodeName, node)
	}
	p := c.Reader.Pod(a.GetNamespace(), s.PodName)
	if c.mismatch(r, p, a.GetNamespace()) != "" { // the replica may only be late
		if err := c.Reader.CatchUp(ctx); err != nil {
			return err
		}
		p = c.Reader.Pod(a.GetNamespace(), s.PodName)
		if why := c.mismatch(r, p, a.GetNamespace()); why != "" {
			return refuse(a, "%s", why)
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(src corev1.VolumeProjection) bool {
			return src.PodCertificate != nil && src.PodCertificate.SignerName == s.SignerName
		}) {
			return nil
		}
	}
	// RBAC knows no resources with a slash in their names.
	return c.ask(ctx, a, "request-serviceaccounts-podcertificate-signer", strings.ReplaceAll(s.SignerName, "/", ":"), s.ServiceAccountName,
		fmt.Sprintf("may not ask for it: pod %q does not mount a podCertificate projected volume for signer %q", a.GetNamespace()+"/"+s.PodName, s.SignerName))
}

// mismatch tells what in a request is not as the replica has it; p is the pod
// that the request names, nil if there is none.
func (c Config) mismatch(r *certificatesv1.PodCertificateRequest, p *corev1.Pod, namespace string) string {
	s := &r.Spec
	n, sa := c.Reader.Node(string(s.NodeName)), c.Reader.ServiceAccount(namespace, s.ServiceAccountName)
	pod := namespace + "/" + s.PodName
	if n == nil || n.UID != s.NodeUID {
		return fmt.Sprintf("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node", pod, s.NodeUID)
	}
	if p == nil || p.UID != s.PodUID {
		return fmt.Sprintf("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod", pod, s.PodUID)
	}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return fmt.Sprintf("pod %q is a mirror pod", pod)
	}
	switch {
	case p.Spec.NodeName != string(s.NodeName):
		return fmt.Sprintf("pod %q is not running on node %q named in the PodCertificateRequest", pod, s.NodeName)
	case p.Spec.ServiceAccountName != s.ServiceAccountName:
		return fmt.Sprintf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)", pod, s.ServiceAccountName, p.Spec.ServiceAccountName)
	case sa == nil || sa.UID != s.ServiceAccountUID:
		return fmt.Sprintf("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account", pod, s.ServiceAccountUID)
	}
	return ""
}

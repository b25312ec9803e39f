package admit

import (
	"context"
	"slices"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	csitranslation "k8s.io/csi-translation-lib"
)

// restrictToken lets a node ask only for tokens that die with a pod of its own
// and that the pod is meant to have.
func (c Config) restrictToken(ctx context.Context, node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create || a.GetSubresource() != "token" {
		return nil
	}
	req, ok := a.GetObject().(*authenticationv1.TokenRequest)
	if !ok {
		return refuse(a, "unexpected type %T", a.GetObject())
	}
	ref := req.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return refuse(a, "node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return refuse(a, "node requested token with a pod binding without a uid")
	}
	p, err := c.pod(ctx, a.GetNamespace(), ref.Name)
	switch {
	case err != nil:
		return err
	case ref.UID != p.UID:
		return refuse(a, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	case p.Spec.NodeName != node:
		return refuse(a, "node requested token bound to a pod scheduled on a different node")
	case len(req.Spec.Audiences) > 1:
		return refuse(a, "node may only request 0 or 1 audiences")
	}
	audience := ""
	if len(req.Spec.Audiences) > 0 {
		audience = req.Spec.Audiences[0]
	}
	if c.wantsAudience(p, audience) {
		return nil
	}
	return c.ask(ctx, a, "request-serviceaccounts-token-audience", audience, a.GetName(),
		"is not authorized to request tokens for audience \""+audience+"\"")
}

// ask lets a role make an exception from what pods themselves ask for.
func (c Config) ask(ctx context.Context, a admission.Attributes, verb, resource, name, otherwise string) error {
	may, _, err := c.Authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, APIGroup: a.GetResource().Group, APIVersion: a.GetResource().Version,
		Resource: resource, Namespace: a.GetNamespace(), Name: name, ResourceRequest: true,
	})
	switch {
	case may == authorizer.DecisionAllow:
		return nil
	case err != nil:
		return refuse(a, "%s %s: %w", a.GetUserInfo().GetName(), otherwise, err)
	}
	return refuse(a, "%s %s", a.GetUserInfo().GetName(), otherwise)
}

// wantsAudience reports whether a pod has a volume that holds a token for the
// audience, or one of a driver that asks for such a token.
func (c Config) wantsAudience(p *corev1.Pod, audience string) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		}) {
			return true
		}
		if driver := c.driver(p, v); driver != "" && c.tokensFor(driver, audience) {
			return true
		}
	}
	return false
}

// driver names the driver that mounts a volume, "" if none does. Volumes of
// the kinds that were once part of Kubernetes have one too.
func (c Config) driver(p *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.CSI != nil:
		return v.CSI.Driver
	case v.Ephemeral != nil:
		return c.claimDriver(p.Namespace, p.Name+"-"+v.Name)
	case v.PersistentVolumeClaim != nil:
		return c.claimDriver(p.Namespace, v.PersistentVolumeClaim.ClaimName)
	}
	old := csitranslation.New()
	if !old.IsInlineMigratable(v) {
		return ""
	}
	return driverOf(old.TranslateInTreeInlineVolumeToCSI(logr.Discard(), v, p.Namespace))
}

// claimDriver is that of the volume that a claim is bound to.
func (c Config) claimDriver(namespace, claim string) string {
	pvc, ok := c.Reader.Get("/persistentvolumeclaims", namespace, claim).(*corev1.PersistentVolumeClaim)
	if !ok {
		return ""
	}
	pv, ok := c.Reader.Get("/persistentvolumes", "", pvc.Spec.VolumeName).(*corev1.PersistentVolume)
	if !ok {
		return ""
	}
	if old := csitranslation.New(); pv.Spec.CSI == nil && old.IsPVMigratable(pv) {
		return driverOf(old.TranslateInTreePVToCSI(logr.Discard(), pv.DeepCopy()))
	}
	return driverOf(pv, nil)
}

func driverOf(pv *corev1.PersistentVolume, err error) string {
	if err != nil || pv == nil || pv.Spec.CSI == nil {
		return ""
	}
	return pv.Spec.CSI.Driver
}

func (c Config) tokensFor(driver, audience string) bool {
	d, ok := c.Reader.Get("storage.k8s.io/csidrivers", "", driver).(*storagev1.CSIDriver)
	return ok && slices.ContainsFunc(d.Spec.TokenRequests, func(r storagev1.TokenRequest) bool { return r.Audience == audience })
}

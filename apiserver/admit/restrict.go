package admit

import (
	"context"
	"maps"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	kubeletapis "k8s.io/kubelet/pkg/apis"

	"skein.dev/skein/apiserver/authz"
)

// nodeRestriction keeps a node to its own objects, as upstream's plugin of
// the name does: the node authorizer cannot see what a request writes. It runs
// before anything is filled in, and again over what webhooks have changed.
func (c Config) nodeRestriction(ctx context.Context, a admission.Attributes) error {
	node, ok := authz.NodeName(a.GetUserInfo())
	if !ok {
		return nil
	}
	if node == "" {
		return refuse(a, "could not determine node from user %q", a.GetUserInfo().GetName())
	}
	switch a.GetResource().GroupResource().String() {
	case "nodes":
		return restrictNode(node, a)
	case "pods":
		return c.restrictPod(ctx, node, a)
	case "persistentvolumeclaims":
		return restrictClaim(node, a)
	case "serviceaccounts":
		return c.restrictToken(ctx, node, a)
	case "podcertificaterequests.certificates.k8s.io":
		return c.restrictPodCertificate(ctx, node, a)
	case "leases.coordination.k8s.io":
		if a.GetNamespace() != corev1.NamespaceNodeLease {
			return refuse(a, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		return namedAfter(node, "node lease", a)
	case "csinodes.storage.k8s.io":
		if a.GetSubresource() != "" {
			return refuse(a, "unexpected subresource %q", a.GetSubresource()) // the kubelet has nothing to say there yet
		}
		return namedAfter(node, "CSINode", a)
	case "resourceslices.resource.k8s.io":
		return restrictSlice(node, a)
	case "certificatesigningrequests.certificates.k8s.io":
		return restrictRequest(node, a)
	}
	return nil
}

// namedAfter demands that an object bear the node's name.
func namedAfter(node, what string, a admission.Attributes) error {
	name := a.GetName()
	if a.GetOperation() == admission.Create {
		m, err := meta.Accessor(a.GetObject())
		if err != nil {
			return refuse(a, "unable to access the object name")
		}
		name = m.GetName()
	}
	if name != node {
		return refuse(a, "can only access %s with the same name as the requesting node", what)
	}
	return nil
}

func restrictNode(node string, a admission.Attributes) error {
	n, _ := a.GetObject().(*corev1.Node)
	name := a.GetName()
	if a.GetOperation() == admission.Create && n != nil {
		name = n.Name
	}
	if name != node {
		return refuse(a, "node %q is not allowed to modify node %q", node, name)
	}
	if a.GetOperation() == admission.Delete {
		return nil
	}
	if n == nil {
		return refuse(a, "unexpected type %T", a.GetObject())
	}
	old, update := a.GetOldObject().(*corev1.Node)
	if !update {
		old = &corev1.Node{}
	}
	switch {
	case n.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(n.Spec.ConfigSource, old.Spec.ConfigSource):
		return refuse(a, "node %q is not allowed to update configSource to a new non-nil configSource", node)
	case update && !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints):
		return refuse(a, "node %q is not allowed to modify taints", node)
	case update && !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences):
		return refuse(a, "node %q is not allowed to modify ownerReferences", node)
	}
	if bad := forbiddenLabels(n.Labels, old.Labels); len(bad) > 0 {
		if !update {
			return refuse(a, "node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", "))
		}
		return refuse(a, "is not allowed to modify labels: %s", strings.Join(bad, ", "))
	}
	return nil
}

// forbiddenLabels are those among the changed ones by which a node could draw
// workloads to itself.
func forbiddenLabels(now, before map[string]string) (bad []string) {
	all := maps.Clone(before)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, now)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		is, ok := now[key]
		was, had := before[key]
		domain, _, prefixed := strings.Cut(key, "/")
		if ok && had && is == was || !prefixed {
			continue
		}
		kubernetes := under(domain, "kubernetes.io") || under(domain, "k8s.io")
		if under(domain, corev1.LabelNamespaceNodeRestriction) || kubernetes && !kubeletapis.IsKubeletLabel(key) {
			bad = append(bad, key)
		}
	}
	return bad
}

func under(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

func restrictClaim(node string, a admission.Attributes) error {
	old, ok1 := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	claim, ok2 := a.GetObject().(*corev1.PersistentVolumeClaim)
	if a.GetSubresource() != "status" || !ok1 || !ok2 {
		return refuse(a, "may only update PVC status")
	}
	rest := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
		return c
	}
	if !equality.Semantic.DeepEqual(rest(old), rest(claim)) {
		return refuse(a, "node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

func restrictSlice(node string, a admission.Attributes) error {
	obj, what := a.GetObject(), "create"
	switch a.GetOperation() {
	case admission.Create:
	case admission.Delete:
		obj, what = a.GetOldObject(), "delete"
	default:
		return nil // the authorizer has looked at the object
	}
	s, ok := obj.(*resourcev1.ResourceSlice)
	if !ok || s.Spec.NodeName == nil || *s.Spec.NodeName != node {
		return refuse(a, "can only %s ResourceSlice with the same NodeName as the requesting node", what)
	}
	return nil
}

// restrictRequest lets a node ask for certificates of kubelets in its own name only.
func restrictRequest(node string, a admission.Attributes) error {
	if a.GetOperation() != admission.Create {
		return nil
	}
	csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return refuse(a, "unexpected type %T", a.GetObject())
	}
	if csr.Spec.SignerName != certificatesv1.KubeletServingSignerName && csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	request, err := parseRequest(csr.Spec.Request)
	if err != nil {
		return refuse(a, "unable to parse csr: %w", err)
	}
	if request.Subject.CommonName != "system:node:"+node {
		return refuse(a, "can only create a node CSR with CN=system:node:%s", node)
	}
	return nil
}

func (c Config) restrictPod(ctx context.Context, node string, a admission.Attributes) error {
	switch a.GetSubresource() {
	case "":
		switch a.GetOperation() {
		case admission.Create:
			return c.restrictMirror(node, a)
		case admission.Delete:
			return c.ownPod(ctx, node, "delete pods", a.GetName(), a)
		}
		return refuse(a, "unexpected operation %q, node %q can only create and delete mirror pods", a.GetOperation(), node)
	case "status":
		return restrictPodStatus(node, a)
	case "eviction":
		name := a.GetName()
		if e, ok := a.GetObject().(*policyv1.Eviction); ok && name == "" {
			name = e.Name
		}
		return c.ownPod(ctx, node, "evict pods", name, a)
	}
	return refuse(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.GetSubresource())
}

func (c Config) ownPod(ctx context.Context, node, what, name string, a admission.Attributes) error {
	p, err := c.pod(ctx, a.GetNamespace(), name)
	if err != nil {
		return err
	}
	if p.Spec.NodeName != node {
		return refuse(a, "node %q can only %s with spec.nodeName set to itself", node, what)
	}
	return nil
}

// pod is one that must exist. Where the replica has none it may only be late,
// and the request would then reach a pod that nobody has looked at.
func (c Config) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	if p := c.Reader.Pod(namespace, name); p != nil {
		return p, nil
	}
	if err := c.Reader.CatchUp(ctx); err != nil {
		return nil, err
	}
	if p := c.Reader.Pod(namespace, name); p != nil {
		return p, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
}

func restrictPodStatus(node string, a admission.Attributes) error {
	old, ok1 := a.GetOldObject().(*corev1.Pod)
	p, ok2 := a.GetObject().(*corev1.Pod)
	if !ok1 || !ok2 {
		return refuse(a, "unexpected type %T", a.GetObject())
	}
	was, is := &old.Status, &p.Status
	switch {
	case old.Spec.NodeName != node:
		return refuse(a, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !maps.Equal(old.Labels, p.Labels):
		return refuse(a, "node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(was.ResourceClaimStatuses, is.ResourceClaimStatuses):
		return refuse(a, "node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(was.ExtendedResourceClaimStatus, is.ExtendedResourceClaimStatus):
		return refuse(a, "node %q cannot update extended resource claim status", node)
	case !equality.Semantic.DeepEqual(was.NodeAllocatableResourceClaimStatuses, is.NodeAllocatableResourceClaimStatuses):
		return refuse(a, "node %q cannot update node allocatable resource claim statuses", node)
	}
	return nil
}

// restrictMirror lets a node create pods that tell of its static ones, and
// that could give it no right to anything.
func (c Config) restrictMirror(node string, a admission.Attributes) error {
	p, ok := a.GetObject().(*corev1.Pod)
	if !ok {
		return refuse(a, "unexpected type %T", a.GetObject())
	}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return refuse(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if p.Spec.NodeName != node {
		return refuse(a, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(p.OwnerReferences) != 1 {
		return refuse(a, "node %q can only create pods with a single owner reference set to itself", node)
	}
	if why := c.owner(node, p.OwnerReferences[0]); why != "" {
		return refuse(a, "node %q %s", node, why)
	}
	if what := references(p); what != "" {
		return refuse(a, "node %q can not create pods that reference %s", node, what)
	}
	return nil
}

func (c Config) owner(node string, o metav1.OwnerReference) (why string) {
	n := c.Reader.Node(node)
	switch {
	case o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node:
		return "can only create pods with an owner reference set to itself"
	case o.Controller == nil || !*o.Controller:
		return "can only create pods with a controller owner reference set to itself"
	case o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion:
		return "must not set blockOwnerDeletion on an owner reference"
	case n == nil || n.UID != o.UID:
		return "UID mismatch: it is not that of the owner reference"
	}
	return ""
}

// references names what of the API a pod refers to; "" is nothing.
func references(p *corev1.Pod) string {
	switch {
	case p.Spec.ServiceAccountName != "":
		return "serviceaccounts"
	case len(authz.Secrets(p)) > 0:
		return "secrets"
	case len(authz.ConfigMaps(p)) > 0:
		return "configmaps"
	case len(p.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i].VolumeSource; {
		case v.CSI != nil:
			return "csidrivers (via CSI volumes)"
		case v.Glusterfs != nil:
			return "endpoints (via glusterFS volumes)"
		case v.PersistentVolumeClaim != nil:
			return "persistentvolumeclaims"
		case v.Ephemeral != nil:
			return "persistentvolumeclaims (via ephemeral volumes)"
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				switch {
				case s.ServiceAccountToken != nil:
					return "serviceaccounts (via projected volumes)"
				case s.ClusterTrustBundle != nil:
					return "clustertrustbundles"
				case s.PodCertificate != nil:
					return "podcertificates"
				}
			}
		}
	}
	return ""
}

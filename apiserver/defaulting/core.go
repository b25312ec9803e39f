package defaulting

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Service defaults everything of a service but the addresses and node ports,
// which the API server allocates.
func Service(svc *corev1.Service) {
	s := &svc.Spec
	set(&s.SessionAffinity, corev1.ServiceAffinityNone)
	set(&s.Type, corev1.ServiceTypeClusterIP)
	sessionAffinity(s)
	for i := range s.Ports {
		p := &s.Ports[i]
		set(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	balanced := s.Type == corev1.ServiceTypeLoadBalancer
	if balanced || s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0 {
		set(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	switch s.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		point(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	default:
	}
	if !balanced {
		return
	}
	point(&s.AllocateLoadBalancerNodePorts, true)
	for i := range svc.Status.LoadBalancer.Ingress {
		if in := &svc.Status.LoadBalancer.Ingress[i]; in.IP != "" {
			point(&in.IPMode, corev1.LoadBalancerIPModeVIP)
		}
	}
}

func sessionAffinity(s *corev1.ServiceSpec) {
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		s.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := s.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			seconds := corev1.DefaultClientIPServiceAffinitySeconds
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
}

// Secret defaults a secret's type, and makes the write-only plain strings part
// of the data.
func Secret(s *corev1.Secret) {
	set(&s.Type, corev1.SecretTypeOpaque)
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
}

// ConfigMap gives a config map a data map.
func ConfigMap(c *corev1.ConfigMap) {
	if c.Data == nil {
		c.Data = map[string]string{}
	}
}

// Namespace labels a namespace with its own name and makes it active.
func Namespace(n *corev1.Namespace) {
	if n.Name != "" {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[corev1.LabelMetadataName] = n.Name
	}
	set(&n.Status.Phase, corev1.NamespaceActive)
}

// Node makes everything a node has allocatable if the node does not say, and
// keeps its first pod range and the list of them equal.
func Node(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	s := &n.Spec
	switch {
	case s.PodCIDR == "" && len(s.PodCIDRs) > 0:
		s.PodCIDR = s.PodCIDRs[0]
	case s.PodCIDR != "" && (len(s.PodCIDRs) == 0 || s.PodCIDRs[0] != s.PodCIDR):
		s.PodCIDRs = []string{s.PodCIDR}
	}
	resourceList(n.Status.Capacity)
	resourceList(n.Status.Allocatable)
}

// Endpoints defaults the protocol of each port.
func Endpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			set(&e.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
		}
	}
}

// EndpointSlice defaults the name and protocol of each port.
func EndpointSlice(e *discoveryv1.EndpointSlice) {
	for i := range e.Ports {
		point(&e.Ports[i].Name, "")
		point(&e.Ports[i].Protocol, corev1.ProtocolTCP)
	}
}

// RoleBinding defaults the groups of the role and the subjects.
func RoleBinding(b *rbacv1.RoleBinding) {
	set(&b.RoleRef.APIGroup, rbacv1.GroupName)
	subjects(b.Subjects)
}

// ClusterRoleBinding defaults the groups of the role and the subjects.
func ClusterRoleBinding(b *rbacv1.ClusterRoleBinding) {
	set(&b.RoleRef.APIGroup, rbacv1.GroupName)
	subjects(b.Subjects)
}

func subjects(list []rbacv1.Subject) {
	for i := range list {
		if list[i].Kind == rbacv1.UserKind || list[i].Kind == rbacv1.GroupKind {
			set(&list[i].APIGroup, rbacv1.GroupName)
		}
	}
}

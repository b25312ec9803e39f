package validation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const (
	notForExternalName   = "may not be set for ExternalName services"
	onlyForLoadBalancers = "may only be used when `type` is 'LoadBalancer'"
	maxAffinitySeconds   = 86400
)

// Service validates a service whose addresses and ports are allocated.
func Service(s *corev1.Service) field.ErrorList {
	p := meta(&s.ObjectMeta, apimachinery.NameIsDNSLabel)
	serviceRules(&p, s, nil)
	return p.list
}

// ServiceUpdate validates a change of a service. Its addresses and families
// may grow or shrink by the second one, but not change.
func ServiceUpdate(s, old *corev1.Service) field.ErrorList {
	p := metaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	addressChange(&p, s, old)
	familyChange(&p, s, old)
	path := field.NewPath("spec")
	if balanced(s) && balanced(old) && !equality.Semantic.DeepEqual(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		p.invalid(path.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, "may not change once set")
	}
	loadBalancerClass(&p, s)
	if healthChecked(s) && healthChecked(old) && s.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		p.forbidden(path.Child("healthCheckNodePort"), "field is immutable")
	}
	serviceRules(&p, s, old)
	return p.list
}

func balanced(s *corev1.Service) bool { return s.Spec.Type == corev1.ServiceTypeLoadBalancer }

func headless(s *corev1.Service) bool {
	return len(s.Spec.ClusterIPs) == 1 && s.Spec.ClusterIPs[0] == corev1.ClusterIPNone
}

func healthChecked(s *corev1.Service) bool {
	return balanced(s) && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func serviceRules(p *problems, s, old *corev1.Service) {
	path := field.NewPath("spec")
	mode, hasMode := s.Annotations[corev1.AnnotationTopologyMode]
	if hints, ok := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]; ok && hasMode && mode != hints {
		p.invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))
	}
	if len(s.Spec.Ports) == 0 && !headless(s) && s.Spec.Type != corev1.ServiceTypeExternalName {
		p.required(path.Child("ports"), "")
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		if headless(s) {
			p.invalid(path.Child("clusterIPs").Index(0), s.Spec.ClusterIPs[0],
				fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type))
		}
	case corev1.ServiceTypeExternalName:
		externalName(p, path, &s.Spec)
	default:
	}
	servicePortList(p, path.Child("ports"), s)
	p.labels(path.Child("selector"), s.Spec.Selector)
	affinity(p, path, &s.Spec)
	if s.Spec.Type != corev1.ServiceTypeExternalName {
		clusterIPs(p, path, s, old)
	}
	var had []string
	if old != nil {
		had = old.Spec.ExternalIPs
	}
	for i, ip := range s.Spec.ExternalIPs {
		at := path.Child("externalIPs").Index(i)
		if errs := validation.IsValidIPForLegacyField(at, ip, strictAddresses, had); len(errs) > 0 {
			p.add(errs...)
		} else {
			endpointIP(p, at, ip)
		}
	}
	requireOneOf(p, path.Child("type"), s.Spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	distinctPorts(p, path.Child("ports"), s)
	sourceRanges(p, path, s, old)
	loadBalancerClassAndPorts(p, path, s)
	trafficPolicies(p, path, s)
}

func externalName(p *problems, path *field.Path, s *corev1.ServiceSpec) {
	if len(s.ClusterIPs) > 0 {
		p.forbidden(path.Child("clusterIPs"), notForExternalName)
	}
	if len(s.IPFamilies) > 0 {
		p.forbidden(path.Child("ipFamilies"), notForExternalName)
	}
	if s.IPFamilyPolicy != nil {
		p.forbidden(path.Child("ipFamilyPolicy"), notForExternalName)
	}
	p.requireFormat(path.Child("externalName"), strings.TrimSuffix(s.ExternalName, "."), validation.IsDNS1123Subdomain)
}

func servicePortList(p *problems, path *field.Path, s *corev1.Service) {
	names := map[string]bool{}
	for i := range s.Spec.Ports {
		at, port := path.Index(i), &s.Spec.Ports[i]
		if port.Name == "" && len(s.Spec.Ports) > 1 {
			p.required(at.Child("name"), "")
		} else if port.Name != "" {
			p.check(at.Child("name"), port.Name, validation.IsDNS1123Label)
			if names[port.Name] {
				p.duplicate(at.Child("name"), port.Name)
			}
			names[port.Name] = true
		}
		p.port(at.Child("port"), port.Port)
		protocol(p, at.Child("protocol"), port.Protocol)
		p.portOrName(at.Child("targetPort"), port.TargetPort)
		if port.AppProtocol != nil {
			p.check(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName)
		}
	}
}

// portOrName demands a port's number or its name.
func (p *problems) portOrName(path *field.Path, port intstr.IntOrString) {
	switch port.Type {
	case intstr.Int:
		p.invalid(path, port.IntValue(), validation.IsValidPortNum(port.IntValue())...)
	case intstr.String:
		p.check(path, port.StrVal, validation.IsValidPortName)
	default:
		p.add(field.InternalError(path, fmt.Errorf("unknown type: %v", port.Type)))
	}
}

func affinity(p *problems, path *field.Path, s *corev1.ServiceSpec) {
	requireOneOf(p, path.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config := path.Child("sessionAffinityConfig")
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if s.SessionAffinityConfig != nil {
			p.forbidden(config, "must not be set when session affinity is None")
		}
	case corev1.ServiceAffinityClientIP:
		const why = "when session affinity type is ClientIP"
		seconds := config.Child("clientIP", "timeoutSeconds")
		switch c := s.SessionAffinityConfig; {
		case c == nil:
			p.required(config, why)
		case c.ClientIP == nil:
			p.required(config.Child("clientIP"), why)
		case c.ClientIP.TimeoutSeconds == nil:
			p.required(seconds, why)
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > maxAffinitySeconds:
			p.invalid(seconds, c.ClientIP.TimeoutSeconds, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))
		}
	default:
	}
}

func distinctPorts(p *problems, path *field.Path, s *corev1.Service) {
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	if s.Spec.Type == corev1.ServiceTypeClusterIP {
		for i := range s.Spec.Ports {
			if s.Spec.Ports[i].NodePort != 0 {
				p.forbidden(path.Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'")
			}
		}
	}
	nodePorts := map[key]bool{}
	for i, port := range s.Spec.Ports {
		k := key{port.Protocol, port.NodePort}
		if k.port != 0 && nodePorts[k] {
			p.duplicate(path.Index(i).Child("nodePort"), k.port)
		}
		nodePorts[k] = true
	}
	ports := map[key]bool{}
	for i, port := range s.Spec.Ports {
		k := key{port.Protocol, port.Port}
		if ports[k] {
			p.duplicate(path.Index(i), printed(corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}))
		}
		ports[k] = true
	}
}

// sourceRanges may come padded with spaces, as they once came in an annotation.
func sourceRanges(p *problems, path *field.Path, s, old *corev1.Service) {
	at := path.Child("LoadBalancerSourceRanges")
	annotation := corev1.AnnotationLoadBalancerSourceRangesKey
	ranges := s.Spec.LoadBalancerSourceRanges
	value, annotated := s.Annotations[annotation]
	switch {
	case len(ranges) > 0:
		var had []string
		if old != nil {
			for _, r := range old.Spec.LoadBalancerSourceRanges {
				had = append(had, strings.TrimSpace(r))
			}
		}
		if !balanced(s) {
			p.forbidden(at, onlyForLoadBalancers)
		}
		for i, r := range ranges {
			p.cidr(at.Index(i), strings.TrimSpace(r), had...)
		}
	case annotated:
		at = field.NewPath("metadata", "annotations").Key(annotation)
		if !balanced(s) {
			p.forbidden(at, onlyForLoadBalancers)
		}
		if old != nil && old.Annotations[annotation] == value || strings.TrimSpace(value) == "" {
			return
		}
		for r := range strings.SplitSeq(strings.TrimSpace(value), ",") {
			p.cidr(at, strings.TrimSpace(r))
		}
	}
}

func loadBalancerClassAndPorts(p *problems, path *field.Path, s *corev1.Service) {
	const name = "allocateLoadBalancerNodePorts"
	if set := s.Spec.AllocateLoadBalancerNodePorts != nil; set && !balanced(s) {
		p.forbidden(path.Child(name), onlyForLoadBalancers)
	} else if !set && balanced(s) {
		p.required(field.NewPath(name), "")
	}
	loadBalancerClass(p, s)
}

func loadBalancerClass(p *problems, s *corev1.Service) {
	class, path := s.Spec.LoadBalancerClass, field.NewPath("spec", "loadBalancerClass")
	switch {
	case class == nil:
	case balanced(s):
		p.check(path, *class, validation.IsQualifiedName)
	default:
		p.forbidden(path, onlyForLoadBalancers)
	}
}

func trafficPolicies(p *problems, path *field.Path, s *corev1.Service) {
	spec := &s.Spec
	inside := spec.Type == corev1.ServiceTypeClusterIP
	at := path.Child("externalTrafficPolicy")
	if balanced(s) || spec.Type == corev1.ServiceTypeNodePort || inside && len(spec.ExternalIPs) > 0 {
		requireOneOf(p, at, spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	} else if spec.ExternalTrafficPolicy != "" {
		p.invalid(at, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services")
	}
	at = path.Child("healthCheckNodePort")
	switch port := spec.HealthCheckNodePort; {
	case !healthChecked(s) && port != 0:
		p.invalid(at, port, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
	case healthChecked(s) && port == 0:
		p.required(at, "")
	case healthChecked(s):
		p.port(at, port)
	}
	at = path.Child("internalTrafficPolicy")
	if policy := spec.InternalTrafficPolicy; policy != nil {
		oneOf(p, at, *policy, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	} else if inside || balanced(s) || spec.Type == corev1.ServiceTypeNodePort {
		p.required(at, "")
	}
	if d := spec.TrafficDistribution; d != nil {
		oneOf(p, path.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)
	}
}

// ServiceStatusUpdate validates what a load balancer reports.
func ServiceStatusUpdate(s, old *corev1.Service) field.ErrorList {
	p := metaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	path := field.NewPath("status", "loadBalancer", "ingress")
	ingress := s.Status.LoadBalancer.Ingress
	if !balanced(s) && len(ingress) > 0 {
		p.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")
		return p.list
	}
	var had []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			had = append(had, in.IP)
		}
	}
	for i, in := range ingress {
		at := path.Index(i)
		if in.IP != "" {
			p.ip(at.Child("ip"), in.IP, had...)
		}
		switch mode := at.Child("ipMode"); {
		case in.IPMode == nil && in.IP != "":
			p.required(mode, "must be specified when `ip` is set")
		case in.IPMode != nil && in.IP == "":
			p.forbidden(mode, "may not be specified when `ip` is not set")
		case in.IPMode != nil:
			oneOf(&p, mode, *in.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)
		}
		if in.Hostname != "" {
			p.check(at.Child("hostname"), in.Hostname, validation.IsDNS1123Subdomain)
			if netutils.ParseIPSloppy(in.Hostname) != nil {
				p.invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address")
			}
		}
	}
	return p.list
}

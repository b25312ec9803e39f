package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// The limits of one endpoint slice.
const (
	maxSliceEndpoints = 1000
	maxSliceAddresses = 100
	maxSlicePorts     = 20000
	maxSliceTopology  = 16
	maxSliceHints     = 8
)

// Endpoints validates endpoints.
func Endpoints(e *corev1.Endpoints) field.ErrorList { return endpoints(e, nil) }

// EndpointsUpdate validates a change of endpoints. Subsets that stay as they
// are stay valid.
func EndpointsUpdate(e, old *corev1.Endpoints) field.ErrorList {
	return append(metaUpdate(&e.ObjectMeta, &old.ObjectMeta).list, endpoints(e, old)...)
}

func endpoints(e, old *corev1.Endpoints) field.ErrorList {
	p := meta(&e.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	if old != nil && equality.Semantic.DeepEqual(old.Subsets, e.Subsets) {
		return p.list
	}
	for i := range e.Subsets {
		subset(&p, field.NewPath("subsets").Index(i), &e.Subsets[i])
	}
	return p.list
}

func subset(p *problems, path *field.Path, s *corev1.EndpointSubset) {
	if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
		p.required(path, "must specify `addresses` or `notReadyAddresses`")
	}
	for i := range s.Addresses {
		endpointAddress(p, path.Child("addresses").Index(i), &s.Addresses[i])
	}
	for i := range s.NotReadyAddresses {
		endpointAddress(p, path.Child("notReadyAddresses").Index(i), &s.NotReadyAddresses[i])
	}
	for i := range s.Ports {
		at, port := path.Child("ports").Index(i), &s.Ports[i]
		if port.Name != "" {
			p.check(at.Child("name"), port.Name, validation.IsDNS1123Label)
		} else if len(s.Ports) > 1 {
			p.required(at.Child("name"), "")
		}
		p.port(at.Child("port"), port.Port)
		protocol(p, at.Child("protocol"), port.Protocol)
		if port.AppProtocol != nil {
			p.check(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName)
		}
	}
}

func protocol(p *problems, path *field.Path, value corev1.Protocol) {
	requireOneOf(p, path, value, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

func endpointAddress(p *problems, path *field.Path, a *corev1.EndpointAddress) {
	p.ip(path.Child("ip"), a.IP)
	if a.Hostname != "" {
		p.check(path.Child("hostname"), a.Hostname, validation.IsDNS1123Label)
	}
	if a.NodeName != nil {
		p.name(path.Child("nodeName"), *a.NodeName, apimachinery.NameIsDNSSubdomain)
	}
	endpointIP(p, path.Child("ip"), a.IP)
}

// endpointIP refuses the addresses that make no sense on another machine.
func endpointIP(p *problems, path *field.Path, address string) {
	ip := netutils.ParseIPSloppy(address)
	switch {
	case ip == nil:
		p.invalid(path, address, "must be a valid IP address")
	case ip.IsUnspecified():
		p.invalid(path, address, fmt.Sprintf("may not be unspecified (%v)", address))
	case ip.IsLoopback():
		p.invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
	case ip.IsLinkLocalUnicast():
		p.invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
	case ip.IsLinkLocalMulticast():
		p.invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
	}
}

// EndpointSlice validates an endpoint slice.
func EndpointSlice(e *discoveryv1.EndpointSlice) field.ErrorList { return endpointSlice(e, nil) }

// EndpointSliceUpdate validates a change of an endpoint slice.
func EndpointSliceUpdate(e, old *discoveryv1.EndpointSlice) field.ErrorList {
	p := problems{endpointSlice(e, old)}
	p.fixed(field.NewPath("addressType"), e.AddressType, old.AddressType)
	return p.list
}

func endpointSlice(e, old *discoveryv1.EndpointSlice) field.ErrorList {
	p := meta(&e.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	requireOneOf(&p, field.NewPath("addressType"), e.AddressType,
		discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	slicePorts(&p, field.NewPath("ports"), e.Ports)
	if old != nil && equality.Semantic.DeepEqual(old.Endpoints, e.Endpoints) {
		return p.list
	}
	path := field.NewPath("endpoints")
	if len(e.Endpoints) > maxSliceEndpoints {
		p.add(field.TooMany(path, len(e.Endpoints), maxSliceEndpoints))
		return p.list
	}
	for i := range e.Endpoints {
		sliceEndpoint(&p, path.Index(i), &e.Endpoints[i], e.AddressType)
	}
	return p.list
}

func sliceEndpoint(p *problems, path *field.Path, e *discoveryv1.Endpoint, t discoveryv1.AddressType) {
	at := path.Child("addresses")
	switch {
	case len(e.Addresses) == 0:
		p.required(at, "")
	case len(e.Addresses) > maxSliceAddresses:
		p.add(field.TooMany(at, len(e.Addresses), maxSliceAddresses))
	}
	for i, address := range e.Addresses {
		sliceAddress(p, at, i, address, t)
	}
	if e.NodeName != nil {
		p.name(path.Child("nodeName"), *e.NodeName, apimachinery.NameIsDNSSubdomain)
	}
	at = path.Child("deprecatedTopology")
	if n := len(e.DeprecatedTopology); n > maxSliceTopology {
		p.add(field.TooMany(at, n, maxSliceTopology))
	}
	p.labels(at, e.DeprecatedTopology)
	if e.Hostname != nil {
		p.check(path.Child("hostname"), *e.Hostname, validation.IsDNS1123Label)
	}
	if e.Hints != nil {
		var zones, nodes []string
		for _, z := range e.Hints.ForZones {
			zones = append(zones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			nodes = append(nodes, n.Name)
		}
		at = path.Child("hints")
		if hints(p, at.Child("forZones"), zones, validation.IsValidLabelValue) {
			hints(p, at.Child("forNodes"), nodes, func(s string) []string { return apimachinery.NameIsDNSSubdomain(s, false) })
		}
	}
}

// hints reports false if there are too many to look at.
func hints(p *problems, path *field.Path, names []string, rule func(string) []string) bool {
	if len(names) > maxSliceHints {
		p.add(field.TooMany(path, len(names), maxSliceHints))
		return false
	}
	seen := map[string]bool{}
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen[name] {
			p.duplicate(at, name)
		}
		seen[name] = true
		p.check(at, name, rule)
	}
	return true
}

func sliceAddress(p *problems, list *field.Path, i int, address string, t discoveryv1.AddressType) {
	path := list.Index(i)
	var format field.ErrorList
	right, family := netutils.IsIPv4String, "must be an IPv4 address"
	switch t {
	case discoveryv1.AddressTypeIPv4:
		format = validation.IsValidIPForLegacyField(path, address, strictAddresses, nil)
	case discoveryv1.AddressTypeIPv6:
		format = validation.IsValidIP(path, address)
		right, family = netutils.IsIPv6String, "must be an IPv6 address"
	case discoveryv1.AddressTypeFQDN:
		p.add(validation.IsFullyQualifiedDomainName(path, address)...)
		return
	default:
		return
	}
	if len(format) > 0 {
		p.add(format...)
		return
	}
	if !right(address) {
		p.invalid(list, address, family)
	}
	endpointIP(p, path, address)
}

func slicePorts(p *problems, path *field.Path, ports []discoveryv1.EndpointPort) {
	if len(ports) > maxSlicePorts {
		p.add(field.TooMany(path, len(ports), maxSlicePorts))
		return
	}
	seen := map[string]bool{}
	for i := range ports {
		at, port := path.Index(i), &ports[i]
		name := deref(port.Name)
		if name != "" {
			p.check(at.Child("name"), name, validation.IsDNS1123Label)
		}
		if seen[name] {
			p.duplicate(at.Child("name"), name)
		}
		seen[name] = true
		if port.Protocol == nil {
			p.required(at.Child("protocol"), "")
		} else {
			oneOf(p, at.Child("protocol"), *port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
		}
		if port.AppProtocol != nil {
			p.check(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName)
		}
	}
}

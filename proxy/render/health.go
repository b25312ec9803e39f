package render

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Health is what a load balancer may ask a machine about a service that keeps
// its connections on the machines where its endpoints are.
type Health struct {
	// Port is where it asks.
	Port uint16
	// Local counts the endpoints on this machine that take connections.
	Local int
}

// HealthOf renders the health check of a service; ok is false for one that
// has none.
func HealthOf(svc *corev1.Service, eps []*discoveryv1.EndpointSlice, at Place) (h Health, ok bool) {
	spec := svc.Spec
	if !proxied(svc) || spec.Type != corev1.ServiceTypeLoadBalancer || spec.HealthCheckNodePort <= 0 || spec.HealthCheckNodePort > 65535 ||
		spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return Health{}, false
	}
	h.Port = uint16(spec.HealthCheckNodePort)
	local := map[string]bool{} // an endpoint of several ports is one
	for _, port := range spec.Ports {
		for _, is4 := range []bool{true, false} {
			for _, e := range find(eps, port, is4) {
				if e.ready && e.peer == at.Peer {
					local[e.at.Addr().String()] = true
				}
			}
		}
	}
	h.Local = len(local)
	return h, true
}

package apiserver

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"skein.dev/skein/apiserver/podrest"
)

// proxyReader finds in the replica what services are proxied to.
type proxyReader struct{ reader }

var _ podrest.Services = proxyReader{}

// Service implements podrest.Services.
func (r proxyReader) Service(namespace, name string) *corev1.Service {
	return find[*corev1.Service](r.s, "/services", namespace, name)
}

// EndpointSlices implements podrest.Services.
func (r proxyReader) EndpointSlices(namespace, service string) (all []*discoveryv1.EndpointSlice) {
	resource := r.s.resources[discoveryv1.GroupName+"/endpointslices"]
	if resource == nil {
		return nil
	}
	for obj := range resource.Keep.Each(r.s.base, r.s.cfg.Store.Local(), namespace) {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if ok && slice.Labels[discoveryv1.LabelServiceName] == service {
			all = append(all, slice)
		}
	}
	return all
}

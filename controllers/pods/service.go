package pods

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/utils/net"

	"skein.dev/skein/controllers/run"
)

// ServiceKeys maps a pod to the services that select it.
func ServiceKeys(services corelisters.ServiceLister) func(any) []run.Key {
	return func(obj any) []run.Key {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return nil
		}
		all, err := services.Services(pod.Namespace).List(labels.Everything())
		if err != nil { // a lister over a store never fails
			return nil
		}
		var keys []run.Key
		for _, s := range all {
			if len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				keys = append(keys, run.Key{Namespace: s.Namespace, Name: s.Name})
			}
		}
		return keys
	}
}

// Port resolves a service port's target on a pod; ok is false when the pod
// names no such port.
func Port(pod *corev1.Pod, sp *corev1.ServicePort) (port int32, ok bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port, true
		}
		return sp.TargetPort.IntVal, true
	}
	for _, c := range pod.Spec.Containers {
		if n, ok := named(c.Ports, sp); ok {
			return n, true
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if n, ok := named(c.Ports, sp); ok {
			return n, true
		}
	}
	return 0, false
}

func named(ports []corev1.ContainerPort, sp *corev1.ServicePort) (int32, bool) {
	for _, p := range ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		if p.Name == sp.TargetPort.StrVal && protocol == sp.Protocol {
			return p.ContainerPort, true
		}
	}
	return 0, false
}

// IP is the pod's address of a family, "" if it has none.
func IP(pod *corev1.Pod, family corev1.IPFamily) string {
	for _, ip := range pod.Status.PodIPs {
		if net.IsIPv6String(ip.IP) == (family == corev1.IPv6Protocol) {
			return ip.IP
		}
	}
	return ""
}

// Hostname is the name under which DNS knows the pod within svc, or "".
func Hostname(pod *corev1.Pod, svc *corev1.Service) string {
	if pod.Spec.Subdomain == svc.Name && svc.Namespace == pod.Namespace {
		return pod.Spec.Hostname
	}
	return ""
}

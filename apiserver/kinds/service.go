package kinds

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Service declares services. The registry allocates their addresses and ports.
func Service() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("services"), Kind: "Service", Singular: "service",
		ShortNames: []string{"svc"}, Categories: []string{"all"}, Namespaced: true, ReturnDeleted: true,
		New: func() runtime.Object { return &corev1.Service{} }, NewList: func() runtime.Object { return &corev1.ServiceList{} },
		Columns: serviceColumns(), Row: row(serviceRow), Default: defaults(defaulting.Service),
		Select: selects(func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		}),
		Strategy: rules[*corev1.Service]{
			create:     func(s *corev1.Service) { s.Status = corev1.ServiceStatus{} },
			update:     updateService,
			validate:   validation.Service,
			putCreates: true, validateUpdate: validation.ServiceUpdate, warn: warnService,
		}.strategy(),
		Status: rules[*corev1.Service]{
			update:         func(s, old *corev1.Service) { s.Spec = old.Spec },
			validateUpdate: validation.ServiceStatusUpdate,
		}.status(),
	}
}

func serviceColumns() []metav1.TableColumnDefinition {
	spec := corev1.ServiceSpec{}
	return columns([]metav1.TableColumnDefinition{
		str("Type", describe(spec, "type")), str("Cluster-IP", describe(spec, "clusterIP")),
		str("External-IP", describe(spec, "externalIPs")), str("Port(s)", describe(spec, "ports")), ageColumn(),
	}, wide(str("Selector", describe(spec, "selector")))...)
}

func serviceRow(s *corev1.Service) []any {
	ip := none
	if len(s.Spec.ClusterIPs) > 0 {
		ip = s.Spec.ClusterIPs[0]
	}
	return []any{
		string(s.Spec.Type), ip, externalAddress(s), or(strings.Join(servicePorts(s.Spec.Ports), ","), none),
		age(s.CreationTimestamp), labels.FormatLabels(s.Spec.Selector),
	}
}

func servicePorts(ports []corev1.ServicePort) []string {
	var cells []string
	for _, p := range ports {
		node := ""
		if p.NodePort > 0 {
			node = fmt.Sprintf(":%d", p.NodePort)
		}
		cells = append(cells, fmt.Sprintf("%d%s/%s", p.Port, node, p.Protocol))
	}
	return cells
}

func externalAddress(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return or(strings.Join(s.Spec.ExternalIPs, ","), none)
	case corev1.ServiceTypeLoadBalancer:
		all := append(balancers(s.Status.LoadBalancer.Ingress), s.Spec.ExternalIPs...)
		return or(strings.Join(all, ","), "<pending>")
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	default:
		return unknown
	}
}

func balancers(ingress []corev1.LoadBalancerIngress) []string {
	var found []string
	for _, in := range ingress {
		if at := or(in.IP, in.Hostname); at != "" {
			found = append(found, at)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

package kinds

import (
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

// Endpoints declares endpoints, the older form of EndpointSlices.
func Endpoints() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("endpoints"), Kind: "Endpoints", Singular: "endpoints",
		ShortNames: []string{"ep"}, Namespaced: true,
		New: func() runtime.Object { return &corev1.Endpoints{} }, NewList: func() runtime.Object { return &corev1.EndpointsList{} },
		Columns: []metav1.TableColumnDefinition{str("Endpoints", describe(corev1.Endpoints{}, "subsets")), ageColumn()},
		Row: row(func(e *corev1.Endpoints) []any {
			list := none
			if len(e.Subsets) > 0 {
				if list = abbreviate(targets(e.Subsets)); list == unset {
					list = ""
				}
			}
			return []any{list, age(e.CreationTimestamp)}
		}),
		Default: defaults(defaulting.Endpoints),
		Strategy: rules[*corev1.Endpoints]{
			validate: validation.Endpoints, validateUpdate: validation.EndpointsUpdate, putCreates: true, warn: warnEndpoints,
		}.strategy(),
	}
}

// warnEndpoints warns of odd addresses, except those that our own controller wrote.
func warnEndpoints(e, _ *corev1.Endpoints) []string {
	if e.Labels["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
		return nil
	}
	var w []string
	for i, s := range e.Subsets {
		path := field.NewPath("subsets").Index(i)
		for j, a := range s.Addresses {
			w = append(w, utilvalidation.GetWarningsForIP(path.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range s.NotReadyAddresses {
			w = append(w, utilvalidation.GetWarningsForIP(path.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return w
}

func warnSlice(e, old *discoveryv1.EndpointSlice) []string {
	var w []string
	if old == nil && e.AddressType == discoveryv1.AddressTypeFQDN {
		w = append(w, "spec.addressType: FQDN endpoints are deprecated")
	}
	by := e.Labels[discoveryv1.LabelManagedBy]
	if by == "endpointslice-controller.k8s.io" || by == "endpointslicemirroring-controller.k8s.io" {
		return w
	}
	for i, one := range e.Endpoints {
		for j, address := range one.Addresses {
			w = append(w, utilvalidation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), address)...)
		}
	}
	return w
}

func targets(subsets []corev1.EndpointSubset) []string {
	var list []string
	for _, s := range subsets {
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				list = append(list, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				list = append(list, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return list
}

// EndpointSlice declares endpoint slices.
func EndpointSlice() registry.Kind {
	words := discoveryv1.EndpointSlice{}
	return registry.Kind{
		Resource: discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), Kind: "EndpointSlice", Singular: "endpointslice",
		Namespaced: true,
		New:        func() runtime.Object { return &discoveryv1.EndpointSlice{} },
		NewList:    func() runtime.Object { return &discoveryv1.EndpointSliceList{} },
		Columns: []metav1.TableColumnDefinition{
			str("AddressType", describe(words, "addressType")), str("Ports", describe(words, "ports")),
			str("Endpoints", describe(words, "endpoints")), ageColumn(),
		},
		Row: row(func(e *discoveryv1.EndpointSlice) []any {
			var addresses []string
			for _, one := range e.Endpoints {
				addresses = append(addresses, one.Addresses...)
			}
			return []any{string(e.AddressType), abbreviate(slicePorts(e.Ports)), abbreviate(addresses), age(e.CreationTimestamp)}
		}),
		Default: defaults(defaulting.EndpointSlice),
		Strategy: rules[*discoveryv1.EndpointSlice]{
			create: func(e *discoveryv1.EndpointSlice) {
				e.Generation = 1
				dropTopology(e, nil)
			},
			update: func(e, old *discoveryv1.EndpointSlice) {
				// The generation counts everything but the rest of the metadata.
				now, before := *e, *old
				now.TypeMeta, before.TypeMeta = metav1.TypeMeta{}, metav1.TypeMeta{}
				now.ObjectMeta = metav1.ObjectMeta{Labels: e.Labels}
				before.ObjectMeta = metav1.ObjectMeta{Labels: old.Labels}
				if !equality.Semantic.DeepEqual(now, before) {
					e.Generation = old.Generation + 1
				}
				dropTopology(e, old)
			},
			validate: validation.EndpointSlice, validateUpdate: validation.EndpointSliceUpdate, warn: warnSlice,
		}.strategy(),
	}
}

// dropTopology clears a field that v1 only shows: what an older version of
// the API has written stays while the endpoints stay.
func dropTopology(e, old *discoveryv1.EndpointSlice) {
	if old != nil && equality.Semantic.DeepEqual(e.Endpoints, old.Endpoints) {
		return
	}
	for i := range e.Endpoints {
		e.Endpoints[i].DeprecatedTopology = nil
	}
}

func slicePorts(ports []discoveryv1.EndpointPort) []string {
	var list []string
	for _, p := range ports {
		switch {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil:
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	return list
}

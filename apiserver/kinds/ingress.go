package kinds

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

const ingressClassKey = "kubernetes.io/ingress.class"

// Ingress declares how HTTP comes into the cluster.
func Ingress() registry.Kind {
	k := namespaced[networkingv1.Ingress, networkingv1.IngressList](networkingv1.SchemeGroupVersion, "ingresses", "ing")
	k.Columns = []metav1.TableColumnDefinition{
		str("Class", "The name of the IngressClass resource that should be used for additional configuration"),
		str("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
		str("Address", "Address is a list containing ingress points for the load-balancer"),
		str("Ports", "Ports of TLS configurations that open"), ageColumn(),
	}
	k.Row = row(ingressRow)
	divide(&k, true, rules[*networkingv1.Ingress]{
		validate: validation.Ingress, validateUpdate: validation.IngressUpdate,
		warn: func(i, old *networkingv1.Ingress) []string {
			if _, ok := i.Annotations[ingressClassKey]; ok && old == nil && i.Spec.IngressClassName == nil {
				return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ingressClassKey)}
			}
			return nil
		},
	}, rules[*networkingv1.Ingress]{
		validateUpdate: validation.IngressStatusUpdate,
		warn: func(i, _ *networkingv1.Ingress) (warnings []string) {
			for n, in := range i.Status.LoadBalancer.Ingress {
				if in.IP != "" {
					warnings = append(warnings, utilvalidation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(n), in.IP)...)
				}
			}
			return warnings
		},
	})
	return k
}

func ingressRow(i *networkingv1.Ingress) []any {
	var hosts, addresses []string
	more := false
	for _, r := range i.Spec.Rules {
		more = more || len(hosts) == shown
		if r.Host != "" && !more {
			hosts = append(hosts, r.Host)
		}
	}
	text := or(strings.Join(hosts, ","), "*")
	if more {
		text += fmt.Sprintf(" + %d more...", len(i.Spec.Rules)-shown)
	}
	for _, in := range i.Status.LoadBalancer.Ingress {
		if at := or(in.IP, in.Hostname); at != "" {
			addresses = append(addresses, at)
		}
	}
	slices.Sort(addresses)
	ports := "80"
	if len(i.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	return []any{
		valueOr(i.Spec.IngressClassName, none), text, strings.Join(slices.Compact(addresses), ","), ports, age(i.CreationTimestamp),
	}
}

// IngressClass declares who serves ingresses.
func IngressClass() registry.Kind {
	k := declare[networkingv1.IngressClass, networkingv1.IngressClassList](networkingv1.SchemeGroupVersion, "ingressclasses")
	k.Columns = []metav1.TableColumnDefinition{
		str("Controller", "Controller that is responsible for handling this class"),
		str("Parameters", "A reference to a resource with additional parameters"), ageColumn(),
	}
	k.Row = row(func(c *networkingv1.IngressClass) []any {
		parameters := none
		if ref := c.Spec.Parameters; ref != nil {
			parameters = ref.Kind
			if ref.APIGroup != nil {
				parameters += "." + *ref.APIGroup
			}
			parameters += "/" + ref.Name
		}
		return []any{c.Spec.Controller, parameters, age(c.CreationTimestamp)}
	})
	k.Marked = marked(networkingv1.AnnotationIsDefaultIngressClass)
	k.Default = defaults(defaulting.IngressClass)
	count(&k, rules[*networkingv1.IngressClass]{
		validate: validation.IngressClass, validateUpdate: validation.IngressClassUpdate,
	}, "Spec")
	return k
}

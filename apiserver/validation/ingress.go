package validation

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

const (
	maxIngressController = 250
	// ingressClassKey is the annotation that was the field before there was one.
	ingressClassKey = "kubernetes.io/ingress.class"
)

// ingressCheck is what an ingress is held against; an older one may have had
// what is refused today.
type ingressCheck struct {
	*problems

	anySecret, anyWildcard bool
	// strictNames asks what services could be called before v1.34.
	strictNames bool
}

// Ingress validates an ingress.
func Ingress(i *networkingv1.Ingress) field.ErrorList {
	p := meta(&i.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	(&ingressCheck{problems: &p}).check(&i.Spec)
	class, ok := i.Annotations[ingressClassKey]
	if ok && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		p.invalid(field.NewPath("annotations").Child(ingressClassKey), class, "must match `ingressClassName` when both are specified")
	}
	return p.list
}

// IngressUpdate validates a change of an ingress.
func IngressUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	p := metaUpdate(&i.ObjectMeta, &old.ObjectMeta)
	p.add(meta(&i.ObjectMeta, apimachinery.NameIsDNSSubdomain).list...)
	c := &ingressCheck{problems: &p}
	for _, t := range old.Spec.TLS {
		c.anySecret = c.anySecret || t.SecretName != "" && len(apimachinery.NameIsDNSSubdomain(t.SecretName, false)) > 0
	}
	for _, r := range old.Spec.Rules {
		q := &ingressCheck{problems: &problems{}, strictNames: true}
		q.value(field.NewPath("http"), r.HTTP)
		c.anyWildcard = c.anyWildcard || strings.Contains(r.Host, "*") && len(q.list) > 0
	}
	c.check(&i.Spec)
	return p.list
}

// IngressStatusUpdate validates where an ingress is reached.
func IngressStatusUpdate(i, old *networkingv1.Ingress) field.ErrorList {
	p := metaUpdate(&i.ObjectMeta, &old.ObjectMeta)
	var before []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			before = append(before, in.IP)
		}
	}
	for n, in := range i.Status.LoadBalancer.Ingress {
		at := field.NewPath("status", "loadBalancer", "ingress").Index(n)
		if in.IP != "" {
			p.ip(at.Child("ip"), in.IP, before...)
		}
		if in.Hostname != "" {
			p.check(at.Child("hostname"), in.Hostname, validation.IsDNS1123Subdomain)
			p.notIP(at.Child("hostname"), in.Hostname)
		}
	}
	return p.list
}

func (p *problems) notIP(path *field.Path, host string) {
	if netutils.ParseIPSloppy(host) != nil {
		p.invalid(path, host, "must be a DNS name, not an IP address")
	}
}

// host validates a host name, whose first label may be a wildcard.
func (p *problems) host(path *field.Path, host string) {
	if strings.Contains(host, "*") {
		p.check(path, host, validation.IsWildcardDNS1123Subdomain)
		return
	}
	p.check(path, host, validation.IsDNS1123Subdomain)
}

func (c *ingressCheck) check(s *networkingv1.IngressSpec) {
	path := field.NewPath("spec")
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		c.invalid(path, printed(s.Rules), "either `defaultBackend` or `rules` must be specified")
	}
	if s.DefaultBackend != nil {
		c.backend(path.Child("defaultBackend"), s.DefaultBackend)
	}
	for i, r := range s.Rules {
		at := path.Child("rules").Index(i)
		if r.Host != "" {
			c.notIP(at.Child("host"), r.Host)
			c.host(at.Child("host"), r.Host)
		}
		if !c.anyWildcard || !strings.Contains(r.Host, "*") {
			c.value(at.Child("http"), r.HTTP)
		}
	}
	for i, t := range s.TLS {
		at := path.Child("tls").Index(i)
		for j, host := range t.Hosts {
			c.host(at.Child("hosts").Index(j), host)
		}
		if t.SecretName != "" && !c.anySecret {
			c.name(at.Child("secretName"), t.SecretName, apimachinery.NameIsDNSSubdomain)
		}
	}
	if s.IngressClassName != nil {
		c.name(path.Child("ingressClassName"), *s.IngressClassName, apimachinery.NameIsDNSSubdomain)
	}
}

func (c *ingressCheck) value(path *field.Path, v *networkingv1.HTTPIngressRuleValue) {
	if v == nil {
		return
	}
	if len(v.Paths) == 0 {
		c.required(path.Child("paths"), "")
	}
	for i := range v.Paths {
		at, p := path.Child("paths").Index(i), &v.Paths[i]
		if p.PathType == nil {
			c.required(at.Child("pathType"), "pathType must be specified")
			continue
		}
		switch *p.PathType {
		case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
			c.path(at.Child("path"), p.Path)
		case networkingv1.PathTypeImplementationSpecific:
			if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
				c.invalid(at.Child("path"), p.Path, "must be an absolute path")
			}
		default:
			oneOf(c.problems, at.Child("pathType"), *p.PathType,
				networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)
		}
		c.backend(at.Child("backend"), &p.Backend)
	}
}

func (c *ingressCheck) path(at *field.Path, path string) {
	if !strings.HasPrefix(path, "/") {
		c.invalid(at, path, "must be an absolute path")
	}
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(path, part) {
			c.invalid(at, path, "must not contain '"+part+"'")
		}
	}
	for _, end := range []string{"/..", "/."} {
		if strings.HasSuffix(path, end) {
			c.invalid(at, path, "cannot end with '"+end+"'")
		}
	}
}

func (c *ingressCheck) backend(at *field.Path, b *networkingv1.IngressBackend) {
	switch {
	case b.Resource != nil && b.Service != nil:
		c.invalid(at, "", "cannot set both resource and service backends")
	case b.Resource != nil:
		c.typedReference(at.Child("resource"), b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name)
	case b.Service != nil:
		if b.Service.Name == "" {
			c.required(at.Child("service", "name"), "")
		} else {
			rule := apimachinery.NameIsDNSLabel
			if c.strictNames {
				rule = apimachinery.NameIsDNS1035Label
			}
			c.name(at.Child("service", "name"), b.Service.Name, rule)
		}
		port := b.Service.Port
		switch {
		case port.Name != "" && port.Number != 0:
			c.invalid(at, "", "cannot set both port name & port number")
		case port.Name != "":
			c.problems.check(at.Child("service", "port", "name"), port.Name, validation.IsValidPortName)
		case port.Number != 0:
			c.port(at.Child("service", "port", "number"), port.Number)
		default:
			c.required(at, "port name or number is required")
		}
	default:
		c.invalid(at, "", "resource or service backend is required")
	}
}

// typedReference validates a reference to an object of any kind.
func (p *problems) typedReference(at *field.Path, group *string, kind, name string) {
	if group != nil {
		p.check(at.Child("apiGroup"), *group, validation.IsDNS1123Subdomain)
	}
	p.requireFormat(at.Child("kind"), kind, content.IsPathSegmentName)
	p.requireFormat(at.Child("name"), name, content.IsPathSegmentName)
}

// IngressClass validates an ingress class.
func IngressClass(c *networkingv1.IngressClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path := field.NewPath("spec")
	if len(c.Spec.Controller) > maxIngressController {
		p.add(field.TooLong(path.Child("controller"), "", maxIngressController))
	}
	p.add(validation.IsDomainPrefixedPath(path.Child("controller"), c.Spec.Controller)...)
	ref := c.Spec.Parameters
	if ref == nil {
		return p.list
	}
	at := path.Child("parameters")
	p.typedReference(at, ref.APIGroup, ref.Kind, ref.Name)
	const cluster, namespace = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	if ref.Scope == nil {
		p.required(at.Child("scope"), "")
		return p.list
	}
	oneOf(&p, at.Child("scope"), *ref.Scope, cluster, namespace)
	switch {
	case *ref.Scope == namespace && ref.Namespace == nil:
		p.required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'")
	case *ref.Scope == namespace:
		p.name(at.Child("namespace"), *ref.Namespace, apimachinery.ValidateNamespaceName)
	case *ref.Scope == cluster && ref.Namespace != nil:
		p.forbidden(at.Child("namespace"), "`parameters.scope` is set to 'Cluster'")
	}
	return p.list
}

// IngressClassUpdate validates a change of an ingress class; its controller
// stays.
func IngressClassUpdate(c, old *networkingv1.IngressClass) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	p.immutable(field.NewPath("spec", "controller"), c.Spec.Controller, old.Spec.Controller)
	p.add(IngressClass(c)...)
	return p.list
}

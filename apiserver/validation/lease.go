package validation

import (
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Lease validates a lease.
func Lease(l *coordinationv1.Lease) field.ErrorList {
	p := bareMeta(&l.ObjectMeta, true, apimachinery.NameIsDNSSubdomain)
	leaseSpec(&p, field.NewPath("spec"), &l.Spec)
	return p.list
}

// LeaseUpdate validates a change of a lease.
func LeaseUpdate(l, old *coordinationv1.Lease) field.ErrorList {
	p := problems{bareMetaUpdate(&l.ObjectMeta, &old.ObjectMeta)}
	leaseSpec(&p, field.NewPath("spec"), &l.Spec)
	return p.list
}

func leaseSpec(p *problems, path *field.Path, s *coordinationv1.LeaseSpec) {
	if n := s.LeaseDurationSeconds; n != nil {
		p.positive(path.Child("leaseDurationSeconds"), int64(*n))
	}
	if n := s.LeaseTransitions; n != nil {
		p.nonNegative(path.Child("leaseTransitions"), int64(*n))
	}
	strategy := deref(s.Strategy)
	if s.Strategy != nil {
		at := path.Child("strategy", "strategy") // as upstream reports it
		if strings.Contains(string(strategy), "/") {
			p.check(at, string(strategy), validation.IsQualifiedName)
		} else {
			oneOf(p, at, strategy, coordinationv1.OldestEmulationVersion)
		}
	}
	if deref(s.PreferredHolder) != "" && strategy == "" {
		p.forbidden(path.Child("preferredHolder"), "may only be specified if `strategy` is defined")
	}
}

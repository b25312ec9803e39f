package validation

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxUserPriority  = 1_000_000_000
	systemPrefix     = "system-"
	maxParameters    = 512
	maxParameterSize = 256 * 1024
)

// PriorityClass validates a priority class. Names and values above those of
// users are the system's own two classes.
func PriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	if strings.HasPrefix(c.Name, systemPrefix) {
		if complaint := systemPriority(c); complaint != "" {
			p.forbidden(field.NewPath("metadata", "name"), "priority class names with 'system-' prefix are reserved for system use only. error: "+complaint)
		}
	} else if c.Value > maxUserPriority {
		p.forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000")
	}
	if c.PreemptionPolicy != nil {
		requireOneOf(&p, field.NewPath("preemptionPolicy"), *c.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	return p.list
}

func systemPriority(c *schedulingv1.PriorityClass) string {
	values := map[string]int32{"system-node-critical": 2*maxUserPriority + 1000, "system-cluster-critical": 2 * maxUserPriority}
	value, ok := values[c.Name]
	switch {
	case !ok:
		return c.Name + " is not a known system priority class"
	case c.Value != value:
		return "value of " + c.Name + " PriorityClass must be " + itoa(value)
	case c.GlobalDefault:
		return "globalDefault of " + c.Name + " PriorityClass must be false"
	default:
		return ""
	}
}

// PriorityClassUpdate validates a change of a priority class; its meaning stays.
func PriorityClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	p.forbid(field.NewPath("value"), c.Value != old.Value, "may not be changed in an update.")
	p.immutable(field.NewPath("preemptionPolicy"), c.PreemptionPolicy, old.PreemptionPolicy)
	return p.list
}

// StorageClass validates a storage class.
func StorageClass(c *storagev1.StorageClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	if c.Provisioner == "" {
		p.required(field.NewPath("provisioner"), "")
	} else {
		p.check(field.NewPath("provisioner"), strings.ToLower(c.Provisioner), validation.IsQualifiedName)
	}
	parameters(&p, field.NewPath("parameters"), c.Parameters)
	if c.ReclaimPolicy != nil && *c.ReclaimPolicy != "" {
		oneOf(&p, field.NewPath("reclaimPolicy"), *c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)
	}
	mode := field.NewPath("volumeBindingMode")
	if c.VolumeBindingMode == nil {
		p.required(mode, "")
	} else {
		oneOf(&p, mode, *c.VolumeBindingMode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)
	}
	topologies(&p, field.NewPath("allowedTopologies"), c.AllowedTopologies)
	return p.list
}

func parameters(p *problems, path *field.Path, list map[string]string) {
	size := 0
	for key, value := range list {
		if key == "" {
			p.invalid(path, key, "field can not be empty.")
		}
		size += len(key) + len(value)
	}
	if len(list) > maxParameters {
		p.add(field.TooLong(path, "", maxParameters))
	} else if size > maxParameterSize {
		p.add(field.TooLong(path, "", maxParameterSize))
	}
}

func topologies(p *problems, path *field.Path, terms []corev1.TopologySelectorTerm) {
	var before []map[string][]string
	for i := range terms {
		keys, own := map[string]bool{}, map[string][]string{}
		for j, e := range terms[i].MatchLabelExpressions {
			at := path.Index(i).Child("matchLabelExpressions").Index(j)
			if len(e.Values) == 0 {
				p.required(at.Child("values"), "")
			}
			values := map[string]bool{}
			for k, v := range e.Values {
				if values[v] {
					p.duplicate(at.Child("values").Index(k), v)
				}
				values[v] = true
			}
			p.labelName(at.Child("key"), e.Key)
			if keys[e.Key] {
				p.duplicate(at.Child("key"), e.Key)
			}
			keys[e.Key] = true
			own[e.Key] = slices.Compact(slices.Sorted(slices.Values(e.Values)))
		}
		if same := func(other map[string][]string) bool { return equality.Semantic.DeepEqual(other, own) }; len(own) == 0 || slices.ContainsFunc(before, same) {
			p.duplicate(path.Index(i).Child("matchLabelExpressions"), "")
		}
		before = append(before, own)
	}
}

// StorageClassUpdate validates a change of a storage class; what it provisions stays.
func StorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	p.fixed(field.NewPath("parameters"), c.Parameters, old.Parameters)
	p.fixed(field.NewPath("provisioner"), c.Provisioner, old.Provisioner)
	p.fixed(field.NewPath("reclaimPolicy"), c.ReclaimPolicy, old.ReclaimPolicy)
	p.fixed(field.NewPath("volumeBindingMode"), c.VolumeBindingMode, old.VolumeBindingMode)
	return p.list
}

// PodDisruptionBudget validates a budget.
func PodDisruptionBudget(b *policyv1.PodDisruptionBudget) field.ErrorList {
	p := problems{} // metadata are looked at when all else is right, by the registry
	budgetSpec(&p, &b.Spec)
	return p.list
}

// PodDisruptionBudgetUpdate validates a change of a budget.
func PodDisruptionBudgetUpdate(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	p := problems{}
	budgetSpec(&p, &b.Spec)
	return p.list
}

func budgetSpec(p *problems, s *policyv1.PodDisruptionBudgetSpec) {
	path := field.NewPath("spec")
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		p.invalid(path, printed(*s), "minAvailable and maxUnavailable cannot be both set")
	}
	if s.MinAvailable != nil {
		p.countOrPercent(path.Child("minAvailable"), *s.MinAvailable)
		p.atMostAll(path.Child("minAvailable"), *s.MinAvailable)
	}
	if s.MaxUnavailable != nil {
		p.countOrPercent(path.Child("maxUnavailable"), *s.MaxUnavailable)
		p.atMostAll(path.Child("maxUnavailable"), *s.MaxUnavailable)
	}
	p.labelSelector(path.Child("selector"), s.Selector)
	if e := s.UnhealthyPodEvictionPolicy; e != nil {
		oneOf(p, path.Child("unhealthyPodEvictionPolicy"), *e, policyv1.AlwaysAllow, policyv1.IfHealthyBudget)
	}
}

// PodDisruptionBudgetStatusUpdate validates what the controller counts.
func PodDisruptionBudgetStatusUpdate(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	p := problems{}
	s := &b.Status
	p.list = append(p.list, metavalidation.ValidateConditions(s.Conditions, field.NewPath("status", "conditions"))...)
	p.counts(field.NewPath("status"), []count{
		{"disruptionsAllowed", s.DisruptionsAllowed},
		{"currentHealthy", s.CurrentHealthy},
		{"desiredHealthy", s.DesiredHealthy},
		{"expectedPods", s.ExpectedPods},
	})
	return p.list
}

package validation

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	requiredTerms    = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredTerms   = "preferredDuringSchedulingIgnoredDuringExecution"
	notASelectorTerm = "not a valid selector operator"
)

func (p *problems) labelName(path *field.Path, name string) {
	p.add(metavalidation.ValidateLabelName(name, path)...)
}

func (p *problems) weight(path *field.Path, weight int32) {
	if weight <= 0 || weight > 100 {
		p.invalid(path, weight, "must be in the range 1-100")
	}
}

func (c *podCheck) checkAffinity(path *field.Path) {
	a := c.spec.Affinity
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			nodeSelector(c.problems, at.Child(requiredTerms), n.RequiredDuringSchedulingIgnoredDuringExecution, c.kept.nodeAffinityValues)
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			term, here := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child(preferredTerms).Index(i)
			c.weight(here.Child("weight"), term.Weight)
			nodeSelectorTerm(c.problems, here.Child("preference"), &term.Preference, true)
		}
	}
	if p := a.PodAffinity; p != nil {
		c.checkPodTerms(path.Child("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		c.checkPodTerms(path.Child("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func nodeSelector(p *problems, path *field.Path, s *corev1.NodeSelector, anyValue bool) {
	path = path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		p.required(path, "must have at least one node selector term")
	}
	for i := range s.NodeSelectorTerms {
		nodeSelectorTerm(p, path.Index(i), &s.NodeSelectorTerms[i], anyValue)
	}
}

// nodeSelectorTerm validates a term. anyValue tolerates values that no label
// can have.
func nodeSelectorTerm(p *problems, path *field.Path, t *corev1.NodeSelectorTerm, anyValue bool) {
	for i := range t.MatchExpressions {
		at, r := path.Child("matchExpressions").Index(i), &t.MatchExpressions[i]
		values := at.Child("values")
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				p.required(values, "must be specified when `operator` is 'In' or 'NotIn'")
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			p.forbid(values, len(r.Values) > 0, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				p.required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			p.invalid(at.Child("operator"), r.Operator, notASelectorTerm)
		}
		p.labelName(at.Child("key"), r.Key)
		for j, v := range r.Values {
			if !anyValue {
				p.check(values.Index(j), v, validation.IsValidLabelValue)
			}
		}
	}
	for i := range t.MatchFields {
		at, r := path.Child("matchFields").Index(i), &t.MatchFields[i]
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) != 1 {
				p.required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
			}
		default:
			p.invalid(at.Child("operator"), r.Operator, notASelectorTerm)
		}
		if r.Key != metav1.ObjectNameField {
			p.invalid(at.Child("key"), r.Key, "not a valid field selector key")
			continue
		}
		for j, v := range r.Values {
			p.name(at.Child("values").Index(j), v, apimachinery.NameIsDNSSubdomain)
		}
	}
}

func (c *podCheck) checkPodTerms(path *field.Path, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
	for i := range required {
		c.checkPodTerm(path.Child(requiredTerms).Index(i), &required[i])
	}
	for i := range preferred {
		at := path.Child(preferredTerms).Index(i)
		c.weight(at.Child("weight"), preferred[i].Weight)
		c.checkPodTerm(at.Child("podAffinityTerm"), &preferred[i].PodAffinityTerm)
	}
}

func (c *podCheck) checkPodTerm(path *field.Path, t *corev1.PodAffinityTerm) {
	values := metavalidation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: c.kept.selectorValues}
	c.add(metavalidation.ValidateLabelSelector(t.LabelSelector, values, path.Child("labelSelector"))...)
	c.add(metavalidation.ValidateLabelSelector(t.NamespaceSelector, values, path.Child("namespaceSelector"))...)
	for _, ns := range t.Namespaces {
		c.name(path.Child("namespace"), ns, apimachinery.ValidateNamespaceName)
	}
	c.checkMatchKeys(path, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector)
	if t.TopologyKey == "" {
		c.required(path.Child("topologyKey"), "can not be empty")
	}
	c.labelName(path.Child("topologyKey"), t.TopologyKey)
}

// checkMatchKeys validates keys whose values the pod itself supplies. By now
// the server has written them into the selector, behind what the user wrote.
func (c *podCheck) checkMatchKeys(path *field.Path, match, mismatch []string, s *metav1.LabelSelector) {
	names := func(at *field.Path, keys []string) {
		if len(keys) > 0 && s == nil {
			c.forbidden(at, "must not be specified when labelSelector is not set")
			return
		}
		for i, key := range keys {
			c.labelName(at.Index(i), key)
		}
	}
	names(path.Child("matchLabelKeys"), match)
	names(path.Child("mismatchLabelKeys"), mismatch)
	if s != nil {
		last := map[string]int{}
		for i, key := range match {
			last[key] = i
		}
		selected := map[string]bool{}
		for key := range s.MatchLabels {
			selected[key] = true
		}
		for _, e := range s.MatchExpressions {
			if i, ok := last[e.Key]; ok && selected[e.Key] {
				c.invalid(path.Index(i), e.Key, "exists in both matchLabelKeys and labelSelector")
			}
			selected[e.Key] = true
		}
	}
	for i, key := range match {
		if slices.Contains(mismatch, key) {
			c.invalid(path.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
}

func (c *podCheck) checkSpread(path *field.Path) {
	list := c.spec.TopologySpreadConstraints
	for i := range list {
		at, s := path.Index(i), &list[i]
		c.moreThanZero(at.Child("maxSkew"), int64(s.MaxSkew))
		if s.TopologyKey == "" {
			c.required(at.Child("topologyKey"), "can not be empty")
		}
		oneOf(c.problems, at.Child("whenUnsatisfiable"), s.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		for _, other := range list[i+1:] {
			if other.TopologyKey == s.TopologyKey && other.WhenUnsatisfiable == s.WhenUnsatisfiable {
				c.duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", s.TopologyKey, s.WhenUnsatisfiable))
				break
			}
		}
		if s.MinDomains != nil {
			c.moreThanZero(at.Child("minDomains"), int64(*s.MinDomains))
			if s.WhenUnsatisfiable != corev1.DoNotSchedule {
				c.invalid(at.Child("minDomains"), *s.MinDomains,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, s.WhenUnsatisfiable))
			}
		}
		c.checkInclusion(at.Child("nodeAffinityPolicy"), s.NodeAffinityPolicy)
		c.checkInclusion(at.Child("nodeTaintsPolicy"), s.NodeTaintsPolicy)
		c.checkMatchKeys(at, s.MatchLabelKeys, nil, s.LabelSelector)
		if !c.kept.spreadSelector {
			c.labelSelector(at.Child("labelSelector"), s.LabelSelector)
		}
	}
}

func (c *podCheck) checkInclusion(path *field.Path, p *corev1.NodeInclusionPolicy) {
	if p != nil {
		oneOf(c.problems, path, *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
	}
}

func (c *podCheck) checkTolerations(path *field.Path, list []corev1.Toleration) {
	for i := range list {
		at, t := path.Index(i), &list[i]
		if t.Key != "" {
			c.labelName(at.Child("key"), t.Key)
		} else if t.Operator != corev1.TolerationOpExists {
			c.invalid(at.Child("operator"), t.Operator,
				"operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			c.invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
		}
		c.checkTolerationOperator(at, t)
		if t.Effect != "" {
			taintEffect(c.problems, at.Child("effect"), t.Effect)
		}
	}
}

func taintEffect(p *problems, path *field.Path, e corev1.TaintEffect) {
	requireOneOf(p, path, e, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}

func (c *podCheck) checkTolerationOperator(at *field.Path, t *corev1.Toleration) {
	operator := at.Child("operator")
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		if complaints := validation.IsValidLabelValue(t.Value); len(complaints) > 0 {
			c.invalid(operator, t.Value, strings.Join(complaints, ";"))
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			c.invalid(operator, t.Value, "value must be empty when `operator` is 'Exists'")
		}
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		// Comparing is an alpha feature, off as upstream has it.
		c.add(field.NotSupported(operator, t.Operator, []corev1.TolerationOperator{
			corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt,
		}))
	default:
		oneOf(c.problems, operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
	}
}

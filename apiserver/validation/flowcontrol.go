package validation

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
)

const maxQueues = 10_000_000

// FlowSchema validates which requests belong to a level.
func FlowSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	p := clusterMeta(&f.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	s, path := &f.Spec, field.NewPath("spec")
	at := path.Child("matchingPrecedence")
	switch {
	case s.MatchingPrecedence <= 0:
		p.invalid(at, s.MatchingPrecedence, "must be a positive value")
	case s.MatchingPrecedence > flowcontrolv1.FlowSchemaMaxMatchingPrecedence:
		p.invalid(at, s.MatchingPrecedence, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence))
	case s.MatchingPrecedence == 1 && f.Name != flowcontrolv1.FlowSchemaNameExempt:
		p.invalid(at, s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1")
	}
	methods := []flowcontrolv1.FlowDistinguisherMethodType{
		flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType,
	}
	if m := s.DistinguisherMethod; m != nil && !slices.Contains(methods, m.Type) {
		p.add(field.NotSupported(path.Child("distinguisherMethod", "type"), printed(m), methods))
	}
	if level := s.PriorityLevelConfiguration.Name; level == "" {
		p.required(path.Child("priorityLevelConfiguration", "name"), "must reference a priority level")
	} else {
		p.name(path.Child("priorityLevelConfiguration", "name"), level, apimachinery.NameIsDNSSubdomain)
	}
	for i := range s.Rules {
		flowRule(&p, path.Child("rules").Index(i), &s.Rules[i])
	}
	for _, fixed := range bootstrap.MandatoryFlowSchemas {
		if fixed.Name == f.Name && !equality.Semantic.DeepEqual(f.Spec, fixed.Spec) {
			p.invalid(path, printed(f.Spec), fmt.Sprintf("spec of '%s' must equal the fixed value", f.Name))
		}
	}
	flowConditions(&p, f.Status.Conditions)
	return p.list
}

// FlowSchemaUpdate validates a change of a schema.
func FlowSchemaUpdate(f, old *flowcontrolv1.FlowSchema) field.ErrorList {
	return append(FlowSchema(f), metaUpdate(&f.ObjectMeta, &old.ObjectMeta).list...)
}

// FlowSchemaStatusUpdate validates a schema's conditions.
func FlowSchemaStatusUpdate(f, old *flowcontrolv1.FlowSchema) field.ErrorList {
	p := metaUpdate(&f.ObjectMeta, &old.ObjectMeta)
	flowConditions(&p, f.Status.Conditions)
	return p.list
}

func flowConditions(p *problems, list []flowcontrolv1.FlowSchemaCondition) {
	var types []string
	for _, c := range list {
		types = append(types, string(c.Type))
	}
	conditionTypes(p, types)
}

func conditionTypes(p *problems, types []string) {
	seen := map[string]bool{}
	for i, t := range types {
		at := field.NewPath("status", "conditions").Index(i).Child("type")
		if seen[t] {
			p.duplicate(at, t)
		}
		seen[t] = true
		if t == "" {
			p.required(at, "")
		}
	}
}

func flowRule(p *problems, at *field.Path, r *flowcontrolv1.PolicyRulesWithSubjects) {
	if len(r.Subjects) == 0 {
		p.required(at.Child("subjects"), "subjects must contain at least one value")
	}
	for i := range r.Subjects {
		flowSubject(p, at.Child("subjects").Index(i), &r.Subjects[i])
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		p.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty")
	}
	for i := range r.ResourceRules {
		resourceFlow(p, at.Child("resourceRules").Index(i), &r.ResourceRules[i])
	}
	for i := range r.NonResourceRules {
		rule, here := &r.NonResourceRules[i], at.Child("nonResourceRules").Index(i)
		flowVerbs(p, here.Child("verbs"), rule.Verbs)
		urls := here.Child("nonResourceURLs")
		if someOrAll(p, urls, rule.NonResourceURLs, "nonResourceURLs must contain at least one value", "non-resource URLs") {
			continue
		}
		for j, url := range rule.NonResourceURLs {
			if complaint := badURL(url); complaint != "" {
				p.invalid(urls.Index(j), url, complaint)
			}
		}
	}
}

// someOrAll demands some values, or "*" alone. It reports whether it is that.
func someOrAll(p *problems, at *field.Path, list []string, none, what string) bool {
	if len(list) == 0 {
		p.required(at, none)
	}
	all := slices.Contains(list, "*")
	if all && len(list) > 1 {
		p.invalid(at, list, "if '*' is present, must not specify other "+what)
	}
	return all
}

func flowVerbs(p *problems, at *field.Path, verbs []string) {
	known := []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
	all := someOrAll(p, at, verbs, "verbs must contain at least one value", "verbs")
	if !all && slices.ContainsFunc(verbs, func(v string) bool { return !slices.Contains(known, v) }) {
		p.add(field.NotSupported(at, verbs, known))
	}
}

func resourceFlow(p *problems, at *field.Path, r *flowcontrolv1.ResourcePolicyRule) {
	flowVerbs(p, at.Child("verbs"), r.Verbs)
	someOrAll(p, at.Child("apiGroups"), r.APIGroups, "resource rules must supply at least one api group", "api groups")
	someOrAll(p, at.Child("resources"), r.Resources, "resource rules must supply at least one resource", "resources")
	namespaces := at.Child("namespaces")
	if len(r.Namespaces) == 0 && r.ClusterScope {
		return
	}
	if someOrAll(p, namespaces, r.Namespaces, "resource rules that are not cluster scoped must supply at least one namespace", "namespaces") {
		return
	}
	for i, ns := range r.Namespaces {
		for _, complaint := range apimachinery.ValidateNamespaceName(ns, false) {
			p.invalid(namespaces.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+complaint)
		}
	}
}

func badURL(url string) string {
	switch stars := strings.Count(url, "*"); {
	case url == "":
		return "must not be empty"
	case url == "/":
		return ""
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(url, "/*"):
		return "wildcard can only do suffix matching"
	default:
		return ""
	}
}

// flowSubject demands the one member of a union that its kind names.
func flowSubject(p *problems, at *field.Path, s *flowcontrolv1.Subject) {
	members := []struct {
		name string
		kind flowcontrolv1.SubjectKind
		set  bool
	}{
		{"serviceAccount", flowcontrolv1.SubjectKindServiceAccount, s.ServiceAccount != nil},
		{"user", flowcontrolv1.SubjectKindUser, s.User != nil},
		{"group", flowcontrolv1.SubjectKindGroup, s.Group != nil},
	}
	known := []flowcontrolv1.SubjectKind{
		flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser,
	}
	if !slices.Contains(known, s.Kind) {
		p.add(field.NotSupported(at.Child("kind"), s.Kind, known))
		return
	}
	for _, m := range members {
		if m.kind == s.Kind && !m.set {
			p.required(at.Child(m.name), fmt.Sprintf("%s is required when subject kind is '%s'", m.name, m.kind))
		}
		p.forbid(at.Child(m.name), m.kind != s.Kind && m.set, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", m.name, m.kind))
	}
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		p.need(at.Child("user"), "name", s.User.Name)
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		p.need(at.Child("group"), "name", s.Group.Name)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		a, here := s.ServiceAccount, at.Child("serviceAccount")
		p.need(here, "name", a.Name)
		if a.Name != "" && a.Name != flowcontrolv1.NameAll {
			p.name(here.Child("name"), a.Name, apimachinery.ValidateServiceAccountName)
		}
		if a.Namespace == "" {
			p.required(here.Child("namespace"), "must specify namespace for service account")
		} else {
			p.name(here.Child("namespace"), a.Namespace, apimachinery.ValidateNamespaceName)
		}
	}
}

// PriorityLevelConfiguration validates how much a level of requests gets.
func PriorityLevelConfiguration(c *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	const zeroKey = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
	_, ok := c.Annotations[zeroKey]
	p.forbid(field.NewPath("metadata", "annotations"), ok, "annotation '"+zeroKey+"' is forbidden")
	s, path := &c.Spec, field.NewPath("spec")
	exempt := s.Type == flowcontrolv1.PriorityLevelEnablementExempt
	if (c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) != exempt {
		p.invalid(path.Child("type"), s.Type, "must be 'Exempt' if and only if `name` is 'exempt'")
	}
	requireOneOf(&p, path.Child("type"), s.Type, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)
	limited := s.Type == flowcontrolv1.PriorityLevelEnablementLimited
	p.forbid(path.Child("limited"), s.Limited != nil && !limited, "")
	p.forbid(path.Child("exempt"), s.Exempt != nil && !exempt, "")
	switch {
	case s.Limited != nil && !limited:
		limitUnion(&p, path.Child("limited", "limitResponse"), &s.Limited.LimitResponse)
	case exempt:
		if s.Exempt != nil {
			at := path.Child("exempt")
			notBelowZero(&p, at.Child("nominalConcurrencyShares"), s.Exempt.NominalConcurrencyShares, "must be a non-negative integer")
			lendable(&p, at, s.Exempt.LendablePercent)
		}
	case limited:
		if s.Limited == nil {
			p.required(path.Child("limited"), "")
		} else {
			limitedLevel(&p, path.Child("limited"), s.Limited)
		}
	}
	mandatoryLevel(&p, path, c)
	levelConditions(&p, c.Status.Conditions)
	return p.list
}

func mandatoryLevel(p *problems, path *field.Path, c *flowcontrolv1.PriorityLevelConfiguration) {
	for _, fixed := range bootstrap.MandatoryPriorityLevelConfigurations {
		if fixed.Name != c.Name {
			continue
		}
		have, complaint := c.Spec.DeepCopy(), "spec of '%s' must equal the fixed value"
		if c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
			have.Exempt, complaint = fixed.Spec.Exempt, "spec of '%s' except the 'spec.exempt' field must equal the fixed value"
		}
		if !equality.Semantic.DeepEqual(*have, fixed.Spec) {
			p.invalid(path, printed(c.Spec), fmt.Sprintf(complaint, c.Name))
		}
	}
}

func notBelowZero(p *problems, at *field.Path, n *int32, complaint string) {
	if n != nil && *n < 0 {
		p.invalid(at, *n, complaint)
	}
}

func lendable(p *problems, at *field.Path, n *int32) {
	if n != nil && (*n < 0 || *n > 100) {
		p.invalid(at.Child("lendablePercent"), *n, "must be between 0 and 100, inclusive")
	}
}

func limitedLevel(p *problems, at *field.Path, l *flowcontrolv1.LimitedPriorityLevelConfiguration) {
	notBelowZero(p, at.Child("nominalConcurrencyShares"), l.NominalConcurrencyShares, "must be a non-negative integer")
	lendable(p, at, l.LendablePercent)
	notBelowZero(p, at.Child("borrowingLimitPercent"), l.BorrowingLimitPercent, "if specified, must be a non-negative integer")
	limitResponse(p, at.Child("limitResponse"), &l.LimitResponse)
}

func limitResponse(p *problems, at *field.Path, r *flowcontrolv1.LimitResponse) {
	limitUnion(p, at, r)
	if r.Type != "" {
		oneOf(p, at.Child("type"), r.Type, flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)
	}
	if r.Type == flowcontrolv1.LimitResponseTypeQueue && r.Queuing != nil {
		flowQueues(p, at.Child("queuing"), r.Queuing)
	}
}

// limitUnion is the part of limitResponse that upstream generates: it holds
// even where there may be no response at all.
func limitUnion(p *problems, at *field.Path, r *flowcontrolv1.LimitResponse) {
	if r.Type == "" {
		p.required(at.Child("type"), "")
	}
	switch queues := r.Type == flowcontrolv1.LimitResponseTypeQueue; {
	case !queues:
		p.forbid(at.Child("queuing"), r.Queuing != nil, "")
	case r.Queuing == nil:
		p.required(at.Child("queuing"), "")
	}
}

func flowQueues(p *problems, at *field.Path, q *flowcontrolv1.QueuingConfiguration) {
	if q.QueueLengthLimit <= 0 {
		p.invalid(at.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive")
	}
	if q.Queues <= 0 {
		p.invalid(at.Child("queues"), q.Queues, "must be positive")
	} else if q.Queues > maxQueues {
		p.invalid(at.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues))
	}
	hand := at.Child("handSize")
	if q.HandSize <= 0 {
		p.invalid(hand, q.HandSize, "must be positive")
	} else if q.HandSize > q.Queues {
		p.invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues))
	} else if shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)) > shufflesharding.MaxHashBits {
		p.invalid(hand, q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d",
			q.Queues, q.HandSize, shufflesharding.MaxHashBits))
	}
}

// PriorityLevelConfigurationUpdate validates a change of a level.
func PriorityLevelConfigurationUpdate(c, old *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	return append(PriorityLevelConfiguration(c), metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list...)
}

// PriorityLevelConfigurationStatusUpdate validates a level's conditions.
func PriorityLevelConfigurationStatusUpdate(c, old *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	levelConditions(&p, c.Status.Conditions)
	return p.list
}

func levelConditions(p *problems, list []flowcontrolv1.PriorityLevelConfigurationCondition) {
	var types []string
	for _, c := range list {
		types = append(types, string(c.Type))
	}
	conditionTypes(p, types)
}

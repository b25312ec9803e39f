package validation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"
)

// each validates the items of a list that holds at most limit, and that no two
// have the same key. A negative limit is none.
func each[T any, K comparable](p *problems, path *field.Path, list []T, limit int, key func(T) K, check func(at *field.Path, item *T)) {
	if limit >= 0 && len(list) > limit {
		p.add(field.TooMany(path, len(list), limit))
		return
	}
	seen := map[K]bool{}
	for i := range list {
		check(path.Index(i), &list[i])
		if key == nil {
			continue
		}
		k := key(list[i])
		if seen[k] {
			p.duplicate(path.Index(i), k)
		}
		seen[k] = true
	}
}

// eachItem is each for lists whose rules upstream generates: there the message
// shows the whole item that is one too many.
func eachItem[T any, K comparable](p *problems, path *field.Path, list []T, limit int, key func(T) K, check func(at *field.Path, item *T)) {
	seen := map[K]bool{}
	each[T, string](p, path, list, limit, nil, func(at *field.Path, item *T) {
		check(at, item)
		k := key(*item)
		if seen[k] {
			p.duplicate(at, *item)
		}
		seen[k] = true
	})
}

func itself(s string) string { return s }

func (p *problems) shortName(path *field.Path, name string) {
	p.check(path, name, validation.IsDNS1123Label)
}

// requireShortName demands a label as upstream's generated rules word it.
func (p *problems) requireShortName(path *field.Path, name string) {
	p.requireFormat(path, name, content.IsDNS1123Label)
}

func poolName(p *problems, path *field.Path, name string) {
	if name == "" {
		p.required(path, "")
		return
	}
	if len(name) > resourcev1.PoolNameMaxLength {
		p.add(field.TooLong(path, "", resourcev1.PoolNameMaxLength))
	}
	for part := range strings.SplitSeq(name, "/") {
		p.check(path, part, validation.IsDNS1123Subdomain)
	}
}

// generated holds a value against one of the rules that upstream's generated
// validation is made of.
func generated[T any](p *problems, path *field.Path, value T,
	rule func(context.Context, operation.Operation, *field.Path, *T, *T) field.ErrorList,
) {
	//nolint:forbidigo // the rules have a context, and none looks at it
	ctx := context.TODO()
	p.add(rule(ctx, operation.Operation{}, path, &value, nil)...)
}

// qualifiedName validates the name of an attribute or a capacity: an
// identifier, with or without a driver's domain.
func qualifiedName(p *problems, path *field.Path, name string) {
	domain, id, ok := strings.Cut(name, "/")
	switch {
	case strings.Count(name, "/") > 1:
	case !ok:
		identifier(p, path, name)
	default:
		if domain == "" {
			p.invalid(path, "", "the domain must not be empty")
		} else {
			csiDriverName(p, path, domain)
		}
		if id == "" {
			p.invalid(path, "", "the name must not be empty")
		} else {
			identifier(p, path, id)
		}
	}
}

func identifier(p *problems, path *field.Path, id string) {
	if len(id) > resourcev1.DeviceMaxIDLength {
		p.add(field.TooLong(path, "", resourcev1.DeviceMaxIDLength))
	}
	p.check(path, id, content.IsCIdentifier)
}

// requests are the names of a claim's requests, each with those of its
// alternatives.
type requests map[string][]string

func requestsOf(c *resourcev1.DeviceClaim) requests {
	out := requests{}
	for i := range c.Requests {
		r := &c.Requests[i]
		out[r.Name] = nil
		for _, sub := range r.FirstAvailable {
			out[r.Name] = append(out[r.Name], sub.Name)
		}
	}
	return out
}

const notARequest = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"

// reference validates the name of a request or of one of its alternatives.
func (r requests) reference(p *problems, path *field.Path, name string) {
	if strings.Count(name, "/") > 1 {
		p.invalid(path, name, notARequest)
		return
	}
	for part := range strings.SplitSeq(name, "/") {
		p.shortName(path, part)
	}
	request, sub, ok := strings.Cut(name, "/")
	subs, found := r[request]
	if !found || ok && !slices.Contains(subs, sub) {
		p.invalid(path, name, notARequest)
	}
}

func deviceClaim(p *problems, path *field.Path, c *resourcev1.DeviceClaim) {
	names := requestsOf(c)
	eachItem(p, path.Child("requests"), c.Requests, resourcev1.DeviceRequestsMaxSize,
		func(r resourcev1.DeviceRequest) string { return r.Name },
		func(at *field.Path, r *resourcev1.DeviceRequest) { deviceRequest(p, at, r) })
	each[resourcev1.DeviceConstraint, string](p, path.Child("constraints"), c.Constraints, resourcev1.DeviceConstraintsMaxSize, nil,
		func(at *field.Path, r *resourcev1.DeviceConstraint) {
			requestRefs(p, at.Child("requests"), r.Requests, names)
			if r.MatchAttribute != nil {
				generated(p, at.Child("matchAttribute"), *r.MatchAttribute, validate.ResourceFullyQualifiedName)
			}
			if r.DistinctAttribute != nil {
				generated(p, at.Child("distinctAttribute"), *r.DistinctAttribute, validate.ResourceFullyQualifiedName)
			}
			if r.MatchAttribute == nil && r.DistinctAttribute == nil {
				p.required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`)
			}
		})
	each[resourcev1.DeviceClaimConfiguration, string](p, path.Child("config"), c.Config, resourcev1.DeviceConfigMaxSize, nil,
		func(at *field.Path, r *resourcev1.DeviceClaimConfiguration) {
			requestRefs(p, at.Child("requests"), r.Requests, names)
			opaque(p, at.Child("opaque"), r.Opaque, false)
		})
}

func requestRefs(p *problems, path *field.Path, list []string, names requests) {
	each(p, path, list, resourcev1.DeviceRequestsMaxSize, itself, func(at *field.Path, name *string) { names.reference(p, at, *name) })
}

func deviceRequest(p *problems, at *field.Path, r *resourcev1.DeviceRequest) {
	p.shortName(at.Child("name"), r.Name)
	const one = "exactly one of `exactly` or `firstAvailable` is required"
	several, first := len(r.FirstAvailable) > 0, at.Child("firstAvailable")
	switch {
	case several && r.Exactly != nil:
		p.invalid(at, nil, one+", but multiple fields are set")
		wantedKind(p, at.Child("exactly"), r.Exactly.AllocationMode, r.Exactly.Tolerations)
		alternatives(p, first, r.FirstAvailable)
	case several:
		alternatives(p, first, r.FirstAvailable)
		for i := range r.FirstAvailable {
			r, at := &r.FirstAvailable[i], first.Index(i)
			p.shortName(at.Child("name"), r.Name)
			wantedDevices(p, at, r.Selectors, r.AllocationMode, r.Count, r.Tolerations)
		}
	case r.Exactly != nil:
		e, at := r.Exactly, at.Child("exactly")
		p.requireFormat(at.Child("deviceClassName"), e.DeviceClassName, validation.IsDNS1123Subdomain)
		wantedKind(p, at, e.AllocationMode, e.Tolerations)
		wantedDevices(p, at, e.Selectors, e.AllocationMode, e.Count, e.Tolerations)
	default:
		p.required(at, one)
	}
}

// alternatives are the rules for them that upstream generates, which hold
// even where there may be none.
func alternatives(p *problems, path *field.Path, list []resourcev1.DeviceSubRequest) {
	eachItem(p, path, list, resourcev1.FirstAvailableDeviceRequestMaxSize,
		func(r resourcev1.DeviceSubRequest) string { return r.Name },
		func(at *field.Path, r *resourcev1.DeviceSubRequest) {
			p.requireFormat(at.Child("deviceClassName"), r.DeviceClassName, content.IsDNS1123Subdomain)
			wantedKind(p, at, r.AllocationMode, r.Tolerations)
		})
}

// wantedKind is the generated part of wantedDevices.
func wantedKind(p *problems, at *field.Path, mode resourcev1.DeviceAllocationMode, tolerations []resourcev1.DeviceToleration) {
	oneOf(p, at.Child("allocationMode"), mode, resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount)
	for i := range tolerations {
		tolerationKind(p, at.Child("tolerations").Index(i), &tolerations[i])
	}
}

func wantedDevices(p *problems, at *field.Path, selectors []resourcev1.DeviceSelector,
	mode resourcev1.DeviceAllocationMode, count int64, tolerations []resourcev1.DeviceToleration,
) {
	deviceSelectors(p, at.Child("selectors"), selectors, false)
	if mode == resourcev1.DeviceAllocationModeAll && count != 0 {
		p.invalid(at.Child("count"), count, "must not be specified when allocationMode is 'All'")
	}
	if mode == resourcev1.DeviceAllocationModeExactCount {
		p.positiveCount(at.Child("count"), count)
	}
	for i := range tolerations {
		tolerationValue(p, at.Child("tolerations").Index(i), &tolerations[i])
	}
}

func (p *problems) positiveCount(at *field.Path, n int64) {
	if n <= 0 {
		p.invalid(at, n, "must be greater than zero")
	}
}

// deviceSelectors validates expressions that select devices; those that are
// stored already are not compiled again.
func deviceSelectors(p *problems, path *field.Path, list []resourcev1.DeviceSelector, stored bool) {
	each[resourcev1.DeviceSelector, string](p, path, list, resourcev1.DeviceSelectorsMaxSize, nil, func(at *field.Path, s *resourcev1.DeviceSelector) {
		if s.CEL == nil {
			p.required(at.Child("cel"), "")
			return
		}
		if !stored {
			deviceExpression(p, at.Child("cel", "expression"), s.CEL.Expression)
		}
	})
}

func deviceExpression(p *problems, at *field.Path, text string) {
	if len(text) > resourcev1.CELSelectorExpressionMaxLength {
		p.add(field.TooLong(at, "", resourcev1.CELSelectorExpressionMaxLength))
		return
	}
	level := environment.NewExpressions
	result := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true}).CompileCELExpression(text, dracel.Options{EnvType: &level})
	if result.Error != nil {
		p.add(celError(at, text, result.Error))
	} else {
		p.forbid(at, result.MaxCost > resourcev1.CELSelectorExpressionMaxCost, "too complex, exceeds cost limit")
	}
}

func opaque(p *problems, at *field.Path, o *resourcev1.OpaqueDeviceConfiguration, stored bool) {
	if o == nil {
		p.required(at, "")
		return
	}
	attacher(p, at.Child("driver"), o.Driver)
	jsonObject(p, at.Child("parameters"), o.Parameters.Raw, stored, resourcev1.OpaqueParametersMaxLength)
}

func jsonObject(p *problems, at *field.Path, raw []byte, stored bool, limit int) {
	var v any
	switch {
	case len(raw) == 0:
		p.required(at, "")
		return
	case !stored && len(raw) > limit:
		p.add(field.TooLong(at, "", limit))
		return
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		p.invalid(at, "<value omitted>", fmt.Sprintf("error parsing data as JSON: %v", err))
	} else if v == nil {
		p.required(at, "")
	} else if _, ok := v.(map[string]any); !ok {
		p.invalid(at, "<value omitted>", "must be a valid JSON object")
	}
}

func taintEffects() []resourcev1.DeviceTaintEffect {
	return []resourcev1.DeviceTaintEffect{
		resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone,
	}
}

func deviceToleration(p *problems, at *field.Path, t *resourcev1.DeviceToleration) {
	tolerationKind(p, at, t)
	tolerationValue(p, at, t)
}

// tolerationKind is the generated part of deviceToleration.
func tolerationKind(p *problems, at *field.Path, t *resourcev1.DeviceToleration) {
	if t.Key != "" {
		p.labelName(at.Child("key"), t.Key)
	}
	requireOneOf(p, at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)
	if t.Effect != "" {
		oneOf(p, at.Child("effect"), t.Effect, taintEffects()...)
	}
}

func tolerationValue(p *problems, at *field.Path, t *resourcev1.DeviceToleration) {
	if t.Operator == resourcev1.DeviceTolerationOpExists && t.Value != "" {
		p.invalid(at.Child("value"), t.Value, "must be empty for operator `Exists`")
	}
	if t.Operator == resourcev1.DeviceTolerationOpEqual {
		p.check(at.Child("value"), t.Value, validation.IsValidLabelValue)
	}
}

// deviceTaint validates a taint; an effect that was there before stays good.
func deviceTaint(p *problems, at *field.Path, t, old *resourcev1.DeviceTaint) {
	p.labelName(at.Child("key"), t.Key)
	if t.Value != "" {
		p.check(at.Child("value"), t.Value, validation.IsValidLabelValue)
	}
	if old == nil || old.Effect != t.Effect {
		requireOneOf(p, at.Child("effect"), t.Effect, taintEffects()...)
	}
}

// bindingConditions validates the conditions for which binding waits, and
// those that end the wait in failure.
func bindingConditions(p *problems, at *field.Path, good, bad []string) {
	ok, fail := at.Child("bindingConditions"), at.Child("bindingFailureConditions")
	for _, l := range []struct {
		at    *field.Path
		names []string
		limit int
	}{{ok, good, resourcev1.BindingConditionsMaxSize}, {fail, bad, resourcev1.BindingFailureConditionsMaxSize}} {
		each[string, string](p, l.at, l.names, l.limit, nil, func(at *field.Path, name *string) { p.labelName(at, *name) })
		each(p, l.at, l.names, -1, itself, func(*field.Path, *string) {})
	}
	for i, name := range bad {
		if slices.Contains(good, name) {
			p.invalid(fail.Index(i), name, "bindingFailureConditions must not overlap with bindingConditions")
		}
	}
	if len(good) == 0 && len(bad) > 0 {
		p.invalid(ok, good, "bindingConditions are required to use bindingFailureConditions")
	}
	if len(bad) == 0 && len(good) > 0 {
		p.invalid(fail, bad, "bindingFailureConditions are required to use bindingConditions")
	}
}

// nodeChoice is one way to say on which nodes devices are.
type nodeChoice struct {
	name     *string
	selector *corev1.NodeSelector
	all      *bool
}

// set validates the choice and returns the fields that make one.
func (c nodeChoice) set(p *problems, at *field.Path, empty string, oneTerm bool) (fields []string) {
	if c.name != nil {
		if *c.name == "" {
			p.invalid(at.Child("nodeName"), *c.name, empty)
		} else {
			fields = append(fields, "`nodeName`")
			p.check(at.Child("nodeName"), *c.name, validation.IsDNS1123Subdomain)
		}
	}
	if c.selector != nil {
		fields = append(fields, "`nodeSelector`")
		nodeSelector(p, at.Child("nodeSelector"), c.selector, false)
		if oneTerm && len(c.selector.NodeSelectorTerms) != 1 {
			p.invalid(at.Child("nodeSelector", "nodeSelectorTerms"), printed(c.selector.NodeSelectorTerms), "must have exactly one node selector term")
		}
	}
	return append(fields, onlyTrue(p, at, "allNodes", c.all)...)
}

func onlyTrue(p *problems, at *field.Path, name string, v *bool) []string {
	if v == nil {
		return nil
	}
	if !*v {
		p.invalid(at.Child(name), *v, "must be either unset or set to true")
		return nil
	}
	return []string{"`" + name + "`"}
}

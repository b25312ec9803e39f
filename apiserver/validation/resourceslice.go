package validation

import (
	"fmt"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxRequestValues = 10
	oneNodeChoice    = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	oneDeviceChoice  = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec"
)

// ResourceSlice validates what devices a driver offers.
func ResourceSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	p := clusterMeta(&s.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	resourceSlice(&p, &s.Spec, nil)
	return p.list
}

// ResourceSliceUpdate validates a change of an offer; whose it is and where
// the devices are stays.
func ResourceSliceUpdate(s, old *resourcev1.ResourceSlice) field.ErrorList {
	p := metaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	resourceSlice(&p, &s.Spec, &old.Spec)
	return p.list
}

func resourceSlice(p *problems, s, old *resourcev1.ResourceSliceSpec) {
	path := field.NewPath("spec")
	csiDriverName(p, path.Child("driver"), s.Driver)
	pool := path.Child("pool")
	poolName(p, pool.Child("name"), s.Pool.Name)
	p.positiveCount(pool.Child("resourceSliceCount"), s.Pool.ResourceSliceCount)
	if s.Pool.Generation < 0 {
		p.invalid(pool.Child("generation"), s.Pool.Generation, "must be greater than or equal to zero")
	}
	if old != nil {
		p.immutable(pool.Child("name"), s.Pool.Name, old.Pool.Name)
		p.immutable(path.Child("driver"), s.Driver, old.Driver)
		p.immutable(path.Child("nodeName"), s.NodeName, old.NodeName)
	}
	choice := nodeChoice{s.NodeName, s.NodeSelector, s.AllNodes}.set(p, path, "must be either unset or set to a non-empty string", true)
	choice = append(choice, onlyTrue(p, path, "perDeviceNodeSelection", s.PerDeviceNodeSelection)...)
	switch len(choice) {
	case 0:
		p.required(path, oneNodeChoice)
	case 1:
	default:
		p.invalid(path, "{"+strings.Join(choice, ", ")+"}", oneNodeChoice+", but multiple fields are set")
	}
	if s.SharedCounters != nil && s.Devices != nil {
		p.invalid(path, "", "only one of `sharedCounters` or `devices` is allowed")
	}
	sliceDevices(p, path.Child("devices"), s, old)
	eachItem(p, path.Child("sharedCounters"), s.SharedCounters, resourcev1.ResourceSliceMaxCounterSets,
		func(c resourcev1.CounterSet) string { return c.Name },
		func(at *field.Path, c *resourcev1.CounterSet) {
			p.requireShortName(at.Child("name"), c.Name)
			counters(p, at.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet)
		})
}

func counters(p *problems, at *field.Path, all map[string]resourcev1.Counter, limit int) {
	switch {
	case len(all) == 0:
		p.required(at, "")
	case len(all) > limit:
		p.add(field.TooMany(at, len(all), limit))
	default:
		for _, name := range sorted(all) {
			p.check(at, name, content.IsDNS1123Label)
		}
	}
}

// keyed is the path of a map's item; a name that is too long shows its ends.
func keyed(at *field.Path, name resourcev1.QualifiedName) *field.Path {
	const most = resourcev1.DeviceMaxDomainLength + 1 + resourcev1.DeviceMaxIDLength
	text, rest := string(name), most-len("...")
	if len(text) > most {
		text = text[:(rest+1)/2] + "..." + text[len(text)-rest/2:]
	}
	return at.Key(text)
}

func sliceDevices(p *problems, path *field.Path, s, old *resourcev1.ResourceSliceSpec) {
	limit, before := resourcev1.ResourceSliceMaxDevices, map[string]*resourcev1.Device{}
	for i := range s.Devices {
		if d := &s.Devices[i]; len(d.Taints) > 0 || len(d.ConsumesCounters) > 0 || hasLists(d) {
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	if old != nil {
		for i := range old.Devices {
			before[old.Devices[i].Name] = &old.Devices[i]
		}
	}
	each(p, path, s.Devices, limit, func(d resourcev1.Device) string { return d.Name },
		func(at *field.Path, d *resourcev1.Device) {
			offeredDevice(p, at, d, before[d.Name], deref(s.PerDeviceNodeSelection))
		})
}

func hasLists(d *resourcev1.Device) bool {
	for _, a := range d.Attributes {
		if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func offeredDevice(p *problems, at *field.Path, d, old *resourcev1.Device, choosesNode bool) {
	p.shortName(at.Child("name"), d.Name)
	if n := len(d.Attributes) + len(d.Capacity); n > resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice {
		p.invalid(at, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice))
	}
	for _, name := range sorted(d.Attributes) {
		qualifiedName(p, at.Child("attributes"), string(name))
		attribute(p, keyed(at.Child("attributes"), name), d.Attributes[name])
	}
	if old == nil || !equality.Semantic.DeepEqual(old.Capacity, d.Capacity) {
		for _, name := range sorted(d.Capacity) {
			here, c := keyed(at.Child("capacity"), name), d.Capacity[name]
			qualifiedName(p, at.Child("capacity"), string(name))
			if c.RequestPolicy == nil {
				continue
			}
			if deref(d.AllowMultipleAllocations) {
				requestPolicy(p, here.Child("requestPolicy"), c.Value, c.RequestPolicy)
			} else {
				p.forbidden(here.Child("requestPolicy"), "allowMultipleAllocations must be true")
			}
		}
	}
	if old == nil || !equality.Semantic.DeepEqual(old.Taints, d.Taints) {
		each[resourcev1.DeviceTaint, string](p, at.Child("taints"), d.Taints, resourcev1.DeviceTaintsMaxLength, nil,
			func(at *field.Path, t *resourcev1.DeviceTaint) { deviceTaint(p, at, t, nil) })
	}
	eachItem(p, at.Child("consumesCounters"), d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice,
		func(c resourcev1.DeviceCounterConsumption) string { return c.CounterSet },
		func(at *field.Path, c *resourcev1.DeviceCounterConsumption) {
			p.requireShortName(at.Child("counterSet"), c.CounterSet)
			counters(p, at.Child("counters"), c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption)
		})
	deviceNodes(p, at, d, choosesNode)
	bindingConditions(p, at, d.BindingConditions, d.BindingFailureConditions)
}

func deviceNodes(p *problems, at *field.Path, d *resourcev1.Device, chooses bool) {
	if !chooses {
		if d.NodeName != nil || d.NodeSelector != nil || d.AllNodes != nil {
			p.invalid(at, nil, "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec")
		}
		return
	}
	switch choice := (nodeChoice{d.NodeName, d.NodeSelector, d.AllNodes}).set(p, at, "must not be empty", false); len(choice) {
	case 0:
		p.required(at, oneDeviceChoice)
	case 1:
	default:
		p.invalid(at, "{"+strings.Join(choice, ", ")+"}", oneDeviceChoice)
	}
}

// attribute validates a value, of which there is exactly one.
func attribute(p *problems, at *field.Path, a resourcev1.DeviceAttribute) {
	n := 0
	for _, set := range []bool{
		a.BoolValue != nil, a.IntValue != nil, a.StringValue != nil, a.VersionValue != nil,
		a.BoolValues != nil, a.IntValues != nil, a.StringValues != nil, a.VersionValues != nil,
	} {
		if set {
			n++
		}
	}
	const most = resourcev1.DeviceAttributeMaxValueLength
	if s := a.StringValue; s != nil && len(*s) > most {
		p.add(field.TooLong(at.Child("string"), "", most))
	}
	if v := a.VersionValue; v != nil {
		const number, pre = `(0|[1-9]\d*)`, `(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)`
		if !matches(`^`+number+`\.`+number+`\.`+number+`(-`+pre+`(\.`+pre+`)*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`, *v) {
			p.invalid(at.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0")
		}
		if len(*v) > most {
			p.add(field.TooLong(at.Child("version"), "", most))
		}
	}
	switch n {
	case 0:
		p.invalid(at, "", "must specify one of: `int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`")
	case 1:
	default:
		p.invalid(at, printed(a), "exactly one value must be specified")
	}
}

// requestPolicy validates which parts of a capacity may be asked for.
func requestPolicy(p *problems, at *field.Path, most resource.Quantity, r *resourcev1.CapacityRequestPolicy) {
	switch {
	case len(r.ValidValues) > 0 && r.ValidRange != nil:
		p.forbidden(at, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)
	case len(r.ValidValues) > 0 && r.Default == nil:
		p.required(at.Child("default"), "required when validValues is defined")
	case len(r.ValidValues) > 0:
		requestValues(p, at.Child("validValues"), most, r)
	case r.ValidRange != nil && r.Default == nil:
		p.required(at.Child("default"), "required when validRange is defined")
	case r.ValidRange != nil:
		requestRange(p, at.Child("validRange"), most, *r.Default, r.ValidRange)
	}
}

func requestValues(p *problems, at *field.Path, most resource.Quantity, r *resourcev1.CapacityRequestPolicy) {
	for i := 1; i < len(r.ValidValues); i++ {
		if r.ValidValues[i-1].Cmp(r.ValidValues[i]) > 0 {
			p.invalid(at.Index(i), r.ValidValues[i].String(), "values must be sorted in ascending order")
		}
	}
	found := false
	each(p, at, r.ValidValues, maxRequestValues, func(q resource.Quantity) string { return q.AsDec().String() },
		func(at *field.Path, q *resource.Quantity) {
			found = found || q.Cmp(*r.Default) == 0
			if q.Cmp(most) > 0 {
				p.invalid(at, q.String(), "option is larger than capacity value: "+most.String())
			}
		})
	if !found {
		p.invalid(at, r.Default.String(), "default value is not valid according to the requestPolicy")
	}
}

func requestRange(p *problems, at *field.Path, most, usual resource.Quantity, r *resourcev1.CapacityRequestPolicyRange) {
	least := r.Min
	if least == nil {
		p.required(at.Child("min"), "required when validRange is defined")
		return
	}
	order := func(name string, shown, small, large resource.Quantity, complaint string) {
		if small.Cmp(large) > 0 {
			p.invalid(at.Child(name), shown.String(), complaint)
		}
	}
	order("min", *least, *least, most, "min is larger than capacity value: "+most.String())
	order("default", usual, *least, usual, "default is less than min: "+least.String())
	values := []resource.Quantity{usual}
	if r.Max != nil {
		order("max", *least, *least, *r.Max, "min is larger than max: "+r.Max.String())
		order("max", *r.Max, *r.Max, most, "max is larger than capacity value: "+most.String())
		order("default", usual, usual, *r.Max, "default is more than max: "+r.Max.String())
		values = append(values, *r.Max)
	}
	if r.Step == nil {
		return
	}
	if r.Step.Sign() <= 0 {
		p.invalid(at.Child("step"), r.Step.String(), "must be greater than zero")
		return
	}
	first := least.DeepCopy()
	first.Add(*r.Step)
	order("step", *r.Step, first, most, fmt.Sprintf("one step %s is larger than capacity value: %s", first.String(), most.String()))
	before := len(p.list)
	p.nonNegativeQuantity(at.Child("default"), usual)
	p.nonNegativeQuantity(at.Child("min"), *least)
	if r.Max != nil {
		p.nonNegativeQuantity(at.Child("max"), *r.Max)
	}
	if len(p.list) > before {
		return
	}
	for _, v := range values {
		if step := r.Step.MilliValue(); step != 0 && (v.MilliValue()-least.MilliValue())%step != 0 {
			p.invalid(at.Child("step"), v.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", r.Step.String(), least.String()))
		}
	}
}

// DeviceTaintRule validates a taint for devices that a selector finds.
func DeviceTaintRule(r *resourcev1.DeviceTaintRule) field.ErrorList {
	p := clusterMeta(&r.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	taintRule(&p, &r.Spec, nil)
	return p.list
}

// DeviceTaintRuleUpdate validates a change of a taint.
func DeviceTaintRuleUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	taintRule(&p, &r.Spec, &old.Spec.Taint)
	return p.list
}

func taintRule(p *problems, s *resourcev1.DeviceTaintRuleSpec, old *resourcev1.DeviceTaint) {
	path := field.NewPath("spec")
	if f := s.DeviceSelector; f != nil {
		at := path.Child("deviceSelector")
		if f.Driver != nil {
			csiDriverName(p, at.Child("driver"), *f.Driver)
		}
		if f.Pool != nil {
			poolName(p, at.Child("pool"), *f.Pool)
		}
		if f.Device != nil {
			p.shortName(at.Child("device"), *f.Device)
		}
	}
	deviceTaint(p, path.Child("taint"), &s.Taint, old)
}

// DeviceTaintRuleStatusUpdate validates a rule's conditions.
func DeviceTaintRuleStatusUpdate(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
	p := metaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	at, list := field.NewPath("status", "conditions"), r.Status.Conditions
	p.add(metavalidation.ValidateConditions(list, at)...)
	if len(list) > resourcev1.DeviceTaintRuleStatusMaxConditions {
		p.add(field.TooMany(at, len(list), resourcev1.DeviceTaintRuleStatusMaxConditions))
	}
	return p.list
}

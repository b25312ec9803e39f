package kinds

import (
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

func resourceVersion() schema.GroupVersion { return resourcev1.SchemeGroupVersion }

// ResourceClaim declares what pods ask devices with.
func ResourceClaim() registry.Kind {
	k := namespaced[resourcev1.ResourceClaim, resourcev1.ResourceClaimList](resourceVersion(), "resourceclaims")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		str("State", "A summary of the current state (allocated, pending, reserved, etc.)."), ageColumn(),
	}
	k.Row = row(func(c *resourcev1.ResourceClaim) []any { return []any{claimState(c), age(c.CreationTimestamp)} })
	k.Default = defaults(defaulting.ResourceClaim)
	divide(&k, false, rules[*resourcev1.ResourceClaim]{
		create:   func(c *resourcev1.ResourceClaim) { dropDerived(&c.Spec.Devices, nil) },
		update:   func(c, old *resourcev1.ResourceClaim) { dropDerived(&c.Spec.Devices, &old.Spec.Devices) },
		validate: validation.ResourceClaim, validateUpdate: validation.ResourceClaimUpdate,
	}, rules[*resourcev1.ResourceClaim]{
		update: dropReturned, validateUpdate: validation.ResourceClaimStatusUpdate, keepsMeta: true,
	})
	return k
}

// dropDerived clears the alpha attributes of requests, unless the claim had
// some before.
func dropDerived(c, old *resourcev1.DeviceClaim) {
	used := false
	if old != nil {
		eachDerived(old, func(list *[]resourcev1.DeviceDerivedAttribute) { used = used || len(*list) > 0 })
	}
	if !used {
		eachDerived(c, func(list *[]resourcev1.DeviceDerivedAttribute) { *list = nil })
	}
}

func eachDerived(c *resourcev1.DeviceClaim, visit func(*[]resourcev1.DeviceDerivedAttribute)) {
	for i := range c.Requests {
		r := &c.Requests[i]
		if r.Exactly != nil {
			visit(&r.Exactly.DerivedAttributes)
		}
		for j := range r.FirstAvailable {
			visit(&r.FirstAvailable[j].DerivedAttributes)
		}
	}
}

// dropReturned forgets what drivers said of devices that the claim no longer has.
func dropReturned(c, old *resourcev1.ResourceClaim) {
	had, has := validation.AllocatedDevices(old.Status.Allocation), validation.AllocatedDevices(c.Status.Allocation)
	var kept []resourcev1.AllocatedDeviceStatus
	for i := range c.Status.Devices {
		d := &c.Status.Devices[i]
		if key := validation.DeviceOf(d); has[key] || !had[key] {
			kept = append(kept, *d)
		}
	}
	c.Status.Devices = kept
}

func claimState(c *resourcev1.ResourceClaim) string {
	var states []string
	if c.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case c.Status.Allocation == nil && c.DeletionTimestamp == nil:
		states = append(states, "pending")
	case c.Status.Allocation == nil:
	case len(c.Status.ReservedFor) > 0:
		states = append(states, "allocated", "reserved")
	default:
		states = append(states, "allocated")
	}
	return strings.Join(states, ",")
}

// ResourceClaimTemplate declares what claims of pods are made from.
func ResourceClaimTemplate() registry.Kind {
	k := namespaced[resourcev1.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList](resourceVersion(), "resourceclaimtemplates")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{ageColumn()}
	k.Row = row(func(t *resourcev1.ResourceClaimTemplate) []any { return []any{age(t.CreationTimestamp)} })
	k.Default = defaults(defaulting.ResourceClaimTemplate)
	k.Strategy = rules[*resourcev1.ResourceClaimTemplate]{
		create: func(t *resourcev1.ResourceClaimTemplate) { dropDerived(&t.Spec.Spec.Devices, nil) },
		update: func(t, old *resourcev1.ResourceClaimTemplate) {
			dropDerived(&t.Spec.Spec.Devices, &old.Spec.Spec.Devices)
		},
		validate: validation.ResourceClaimTemplate, validateUpdate: validation.ResourceClaimTemplateUpdate,
	}.strategy()
	return k
}

// DeviceClass declares which devices belong together.
func DeviceClass() registry.Kind {
	k := declare[resourcev1.DeviceClass, resourcev1.DeviceClassList](resourceVersion(), "deviceclasses")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{ageColumn()}
	k.Row = row(func(c *resourcev1.DeviceClass) []any { return []any{age(c.CreationTimestamp)} })
	count(&k, rules[*resourcev1.DeviceClass]{validate: validation.DeviceClass, validateUpdate: validation.DeviceClassUpdate}, "Spec")
	return k
}

// ResourceSlice declares what devices drivers offer.
func ResourceSlice() registry.Kind {
	spec := resourcev1.ResourceSliceSpec{}
	k := declare[resourcev1.ResourceSlice, resourcev1.ResourceSliceList](resourceVersion(), "resourceslices")
	k.ReturnDeleted = true
	k.Columns = []metav1.TableColumnDefinition{
		str("Node", describe(spec, "nodeName")), str("Driver", describe(spec, "driver")),
		str("Pool", describe(resourcev1.ResourcePool{}, "name")), ageColumn(),
	}
	k.Row = row(func(s *resourcev1.ResourceSlice) []any {
		return []any{valueOr(s.Spec.NodeName, ""), s.Spec.Driver, s.Spec.Pool.Name, age(s.CreationTimestamp)}
	})
	k.Select = selects(func(s *resourcev1.ResourceSlice) fields.Set {
		return fields.Set{
			resourcev1.ResourceSliceSelectorNodeName: valueOr(s.Spec.NodeName, ""),
			resourcev1.ResourceSliceSelectorDriver:   s.Spec.Driver,
			resourcev1.ResourceSliceSelectorPoolName: s.Spec.Pool.Name,
		}
	})
	k.Strategy = rules[*resourcev1.ResourceSlice]{
		create: func(s *resourcev1.ResourceSlice) {
			s.Generation = 1
			completeSlice(&s.Spec)
		},
		update: func(s, old *resourcev1.ResourceSlice) {
			recount(s, old, "Spec") // what is dropped next counts as well
			completeSlice(&s.Spec)
		},
		validate: validation.ResourceSlice, validateUpdate: validation.ResourceSliceUpdate,
		warn: func(s, _ *resourcev1.ResourceSlice) []string {
			if d := s.Spec.Driver; d != strings.ToLower(d) {
				return []string{`spec.driver: driver names should be lowercase; "` + d + `" contains uppercase characters`}
			}
			return nil
		},
	}.strategy()
	return k
}

// completeSlice dates the taints of an offer and drops its alpha fields.
func completeSlice(s *resourcev1.ResourceSliceSpec) {
	s.PartitionTypeAttribute, s.SkipNodeOperations = nil, nil
	for i := range s.Devices {
		d := &s.Devices[i]
		d.NodeAllocatableResources = nil
		for j := range d.ConsumesCounters {
			d.ConsumesCounters[j].CompatibilityGroups = nil
		}
		for name, a := range d.Attributes {
			a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
			d.Attributes[name] = a
		}
		for j := range d.Taints {
			dateTaint(&d.Taints[j])
		}
	}
}

func dateTaint(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		now := metav1.Now().Rfc3339Copy()
		t.TimeAdded = &now
	}
}

// DeviceTaintRule declares taints of devices that administrators set.
func DeviceTaintRule() registry.Kind {
	words := resourcev1.DeviceTaint{}
	k := declare[resourcev1.DeviceTaintRule, resourcev1.DeviceTaintRuleList](resourceVersion(), "devicetaintrules")
	k.Columns = []metav1.TableColumnDefinition{
		str("Key", describe(words, "key")), str("Value", describe(words, "value")), str("Effect", describe(words, "effect")),
		str("TimeAdded", describe(words, "timeAdded")), ageColumn(),
	}
	k.Row = row(func(r *resourcev1.DeviceTaintRule) []any {
		t, added := r.Spec.Taint, ""
		if t.TimeAdded != nil {
			added = age(*t.TimeAdded)
		}
		return []any{t.Key, t.Value, string(t.Effect), added, age(r.CreationTimestamp)}
	})
	divide(&k, true, rules[*resourcev1.DeviceTaintRule]{
		create: func(r *resourcev1.DeviceTaintRule) { dateTaint(&r.Spec.Taint) },
		update: func(r, old *resourcev1.DeviceTaintRule) {
			if t, had := &r.Spec.Taint, &old.Spec.Taint; t.Effect != had.Effect && t.TimeAdded.Equal(had.TimeAdded) {
				t.TimeAdded = nil // another effect is another taint
			}
			dateTaint(&r.Spec.Taint)
		},
		validate: validation.DeviceTaintRule, validateUpdate: validation.DeviceTaintRuleUpdate, needsVersion: true,
	}, rules[*resourcev1.DeviceTaintRule]{validateUpdate: validation.DeviceTaintRuleStatusUpdate, keepsMeta: true})
	return k
}

package validation

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ResourceClaim validates a claim of devices.
func ResourceClaim(c *resourcev1.ResourceClaim) field.ErrorList {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	deviceClaim(&p, field.NewPath("spec", "devices"), &c.Spec.Devices)
	return p.list
}

// ResourceClaimUpdate validates a change of a claim; what it asks for stays.
func ResourceClaimUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	p.add(metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list...)
	p.fixed(field.NewPath("spec"), c.Spec, old.Spec)
	return p.list
}

// ResourceClaimTemplate validates a template of claims.
func ResourceClaimTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	p := meta(&t.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	claimTemplate(&p, t)
	return p.list
}

func claimTemplate(p *problems, t *resourcev1.ResourceClaimTemplate) {
	path := field.NewPath("spec")
	p.labels(path.Child("metadata", "labels"), t.Spec.Labels)
	p.add(apimachinery.ValidateAnnotations(t.Spec.Annotations, path.Child("metadata", "annotations"))...)
	claimTemplateMeta(p, path.Child("metadata"), &t.Spec.ObjectMeta)
	deviceClaim(p, path.Child("spec", "devices"), &t.Spec.Spec.Devices)
}

// ResourceClaimTemplateUpdate validates a change of a template; its claim stays.
func ResourceClaimTemplateUpdate(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	p := metaUpdate(&t.ObjectMeta, &old.ObjectMeta)
	if equality.Semantic.DeepEqual(t.Spec, old.Spec) {
		return p.list
	}
	claimTemplate(&p, t)
	p.immutable(field.NewPath("spec"), printed(t.Spec), printed(old.Spec))
	return p.list
}

// allocated names one allocated device, or one share of it, as messages show it.
type allocated struct{ Driver, Pool, Device, ShareID string }

// ResourceClaimStatusUpdate validates what is allocated for a claim, who uses
// it, and what drivers say of the devices.
func ResourceClaimStatusUpdate(c, old *resourcev1.ResourceClaim) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	path, names := field.NewPath("status"), requestsOf(&c.Spec.Devices)
	users := path.Child("reservedFor")
	eachItem(&p, users, c.Status.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize,
		func(r resourcev1.ResourceClaimConsumerReference) string { return string(r.UID) },
		func(at *field.Path, r *resourcev1.ResourceClaimConsumerReference) {
			p.need(at, "resource", r.Resource)
			p.need(at, "name", r.Name)
			p.need(at, "uid", string(r.UID))
		})
	claimDevices(&p, path.Child("devices"), &c.Status)
	now, before := c.Status.Allocation, old.Status.Allocation
	if len(c.Status.ReservedFor) > 0 && now == nil {
		p.forbidden(users, "may not be specified when `allocated` is not set")
	} else if c.DeletionTimestamp != nil {
		had := map[resourcev1.ResourceClaimConsumerReference]bool{}
		for _, r := range old.Status.ReservedFor {
			had[r] = true
		}
		more := false
		for _, r := range c.Status.ReservedFor {
			more = more || !had[r]
		}
		p.forbid(users, more, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
	}
	switch {
	case now == nil:
	case before != nil:
		if !equality.Semantic.DeepEqual(now, before) {
			p.invalid(path.Child("allocation"), nil, "field cannot be modified once set")
		}
	default:
		allocation(&p, path.Child("allocation"), now, names)
	}
	return p.list
}

func allocation(p *problems, path *field.Path, a *resourcev1.AllocationResult, names requests) {
	devices := path.Child("devices")
	each[resourcev1.DeviceRequestAllocationResult, string](p, devices.Child("results"), a.Devices.Results, resourcev1.AllocationResultsMaxSize, nil,
		func(at *field.Path, r *resourcev1.DeviceRequestAllocationResult) {
			names.reference(p, at.Child("request"), r.Request)
			attacher(p, at.Child("driver"), r.Driver)
			if r.Pool == "" {
				p.required(at.Child("pool"), "")
			} else {
				generated(p, at.Child("pool"), r.Pool, validate.ResourcePoolName)
			}
			p.shortName(at.Child("device"), r.Device)
			bindingConditions(p, at, r.BindingConditions, r.BindingFailureConditions)
			for i := range r.Tolerations {
				deviceToleration(p, at.Child("tolerations").Index(i), &r.Tolerations[i])
			}
			if r.ShareID != nil {
				generated(p, at.Child("shareID"), *r.ShareID, validate.UUID)
			}
		})
	each[resourcev1.DeviceAllocationConfiguration, string](p, devices.Child("config"), a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, nil,
		func(at *field.Path, c *resourcev1.DeviceAllocationConfiguration) {
			requireOneOf(p, at.Child("source"), c.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
			requestRefs(p, at.Child("requests"), c.Requests, names)
			opaque(p, at.Child("opaque"), c.Opaque, false)
		})
	if a.NodeSelector != nil {
		nodeSelector(p, path.Child("nodeSelector"), a.NodeSelector, false)
	}
}

// AllocatedDevices are the devices of a claim, in a form that compares.
func AllocatedDevices(a *resourcev1.AllocationResult) map[any]bool {
	out := map[any]bool{}
	if a == nil {
		return out
	}
	for _, r := range a.Devices.Results {
		out[allocated{r.Driver, r.Pool, r.Device, string(deref(r.ShareID))}] = true
	}
	return out
}

// DeviceOf is the key in AllocatedDevices of the device that a status is about.
func DeviceOf(d *resourcev1.AllocatedDeviceStatus) any {
	return allocated{d.Driver, d.Pool, d.Device, deref(d.ShareID)}
}

func claimDevices(p *problems, path *field.Path, s *resourcev1.ResourceClaimStatus) {
	known := AllocatedDevices(s.Allocation)
	eachItem(p, path, s.Devices, -1, func(d resourcev1.AllocatedDeviceStatus) any { return DeviceOf(&d) },
		func(at *field.Path, d *resourcev1.AllocatedDeviceStatus) {
			csiDriverName(p, at.Child("driver"), d.Driver)
			poolName(p, at.Child("pool"), d.Pool)
			p.shortName(at.Child("device"), d.Device)
			if d.ShareID != nil {
				generated(p, at.Child("shareID"), *d.ShareID, validate.UUID)
			}
			if key := DeviceOf(d); !known[key] {
				p.invalid(at, key, "must be an allocated device in the claim")
			}
			if n := len(d.Conditions); n > resourcev1.AllocatedDeviceStatusMaxConditions {
				p.add(field.TooMany(at.Child("conditions"), n, resourcev1.AllocatedDeviceStatusMaxConditions))
			}
			p.add(metavalidation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
			if d.Data != nil && len(d.Data.Raw) > 0 {
				jsonObject(p, at.Child("data"), d.Data.Raw, false, resourcev1.AllocatedDeviceStatusDataMaxLength)
			}
			if d.NetworkData != nil {
				networkData(p, at.Child("networkData"), d.NetworkData)
			}
		})
}

func networkData(p *problems, at *field.Path, n *resourcev1.NetworkDeviceData) {
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		p.add(field.TooLong(at.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		p.add(field.TooLong(at.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	each(p, at.Child("ips"), n.IPs, resourcev1.NetworkDeviceDataMaxIPs, itself,
		func(at *field.Path, ip *string) { p.add(validation.IsValidInterfaceAddress(at, *ip)...) })
}

// DeviceClass validates a class of devices.
func DeviceClass(c *resourcev1.DeviceClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, longName)
	deviceClass(&p, &c.Spec, nil)
	return p.list
}

// DeviceClassUpdate validates a change of a class.
func DeviceClassUpdate(c, old *resourcev1.DeviceClass) field.ErrorList {
	p := clusterMeta(&c.ObjectMeta, longName)
	p.add(metaUpdate(&c.ObjectMeta, &old.ObjectMeta).list...)
	deviceClass(&p, &c.Spec, &old.Spec)
	return p.list
}

func deviceClass(p *problems, s, old *resourcev1.DeviceClassSpec) {
	path := field.NewPath("spec")
	deviceSelectors(p, path.Child("selectors"), s.Selectors, old != nil && equality.Semantic.DeepEqual(s.Selectors, old.Selectors))
	stored := old != nil && equality.Semantic.DeepEqual(s.Config, old.Config)
	each[resourcev1.DeviceClassConfiguration, string](p, path.Child("config"), s.Config, resourcev1.DeviceConfigMaxSize, nil,
		func(at *field.Path, c *resourcev1.DeviceClassConfiguration) {
			opaque(p, at.Child("opaque"), c.Opaque, stored)
		})
	if name := s.ExtendedResourceName; name != nil {
		generated(p, path.Child("extendedResourceName"), *name, validate.ExtendedResourceName)
	}
}

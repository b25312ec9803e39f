package defaulting

import (
	resourcev1 "k8s.io/api/resource/v1"
)

// ResourceClaim asks for one device where a claim names no number.
func ResourceClaim(c *resourcev1.ResourceClaim) {
	deviceClaim(&c.Spec.Devices)
	if a := c.Status.Allocation; a != nil {
		for i := range a.Devices.Results {
			deviceTolerations(a.Devices.Results[i].Tolerations)
		}
	}
}

// ResourceClaimTemplate defaults the claim within a template.
func ResourceClaimTemplate(t *resourcev1.ResourceClaimTemplate) { deviceClaim(&t.Spec.Spec.Devices) }

func deviceClaim(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		r := &c.Requests[i]
		if r.Exactly != nil {
			devices(&r.Exactly.AllocationMode, &r.Exactly.Count, r.Exactly.Tolerations)
		}
		for j := range r.FirstAvailable {
			sub := &r.FirstAvailable[j]
			devices(&sub.AllocationMode, &sub.Count, sub.Tolerations)
		}
	}
}

func devices(mode *resourcev1.DeviceAllocationMode, count *int64, tolerations []resourcev1.DeviceToleration) {
	set(mode, resourcev1.DeviceAllocationModeExactCount)
	if *mode == resourcev1.DeviceAllocationModeExactCount {
		set(count, 1)
	}
	deviceTolerations(tolerations)
}

func deviceTolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		set(&list[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

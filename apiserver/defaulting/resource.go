package defaulting

import (
	resourcev1 "k8s.io/api/resource/v1"
)

// ResourceClaim asks for one device where a claim names no number.
func ResourceClaim(c *resourcev1.ResourceClaim) { deviceClaim(&c.Spec.Devices) }

// ResourceClaimTemplate defaults the claim within a template.
func ResourceClaimTemplate(t *resourcev1.ResourceClaimTemplate) { deviceClaim(&t.Spec.Spec.Devices) }

func deviceClaim(c *resourcev1.DeviceClaim) {
	for i := range c.Requests {
		r := &c.Requests[i]
		if r.Exactly != nil {
			devices(&r.Exactly.AllocationMode, &r.Exactly.Count)
		}
		for j := range r.FirstAvailable {
			devices(&r.FirstAvailable[j].AllocationMode, &r.FirstAvailable[j].Count)
		}
	}
}

func devices(mode *resourcev1.DeviceAllocationMode, count *int64) {
	set(mode, resourcev1.DeviceAllocationModeExactCount)
	if *mode == resourcev1.DeviceAllocationModeExactCount {
		set(count, 1)
	}
}

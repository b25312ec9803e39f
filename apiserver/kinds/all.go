package kinds

import "skein.dev/skein/apiserver/registry"

// All declares every kind that is served.
func All() []registry.Kind {
	return []registry.Kind{
		Namespace(), Node(), Pod(), Service(), Endpoints(), ConfigMap(), Secret(), ServiceAccount(), Event(),
		EndpointSlice(), Lease(),
		Deployment(), ReplicaSet(), StatefulSet(), DaemonSet(),
		PodDisruptionBudget(), PriorityClass(), StorageClass(),
		Role(), ClusterRole(), RoleBinding(), ClusterRoleBinding(),
		Job(), CronJob(), ReplicationController(), ControllerRevision(), PodTemplate(),
		PersistentVolume(), PersistentVolumeClaim(), LimitRange(), ResourceQuota(), HorizontalPodAutoscaler(),
		NetworkPolicy(), Ingress(), IngressClass(), IPAddress(), ServiceCIDR(), RuntimeClass(),
		CSIDriver(), CSINode(), CSIStorageCapacity(), VolumeAttachment(), VolumeAttributesClass(),
		CertificateSigningRequest(), ClusterTrustBundle(), PodCertificateRequest(), StorageVersionMigration(),
		ValidatingWebhookConfiguration(), MutatingWebhookConfiguration(),
		ValidatingAdmissionPolicy(), ValidatingAdmissionPolicyBinding(), MutatingAdmissionPolicy(), MutatingAdmissionPolicyBinding(),
		FlowSchema(), PriorityLevelConfiguration(),
		ResourceClaim(), ResourceClaimTemplate(), ResourceSlice(), DeviceClass(), DeviceTaintRule(),
		Peer(),
	}
}

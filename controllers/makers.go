package controllers

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/accounttoken"
	"skein.dev/skein/controllers/autoscale"
	"skein.dev/skein/controllers/clusterrole"
	"skein.dev/skein/controllers/cronjob"
	"skein.dev/skein/controllers/csr"
	"skein.dev/skein/controllers/daemonset"
	"skein.dev/skein/controllers/deployment"
	"skein.dev/skein/controllers/disruption"
	"skein.dev/skein/controllers/endpoints"
	"skein.dev/skein/controllers/endpointslice"
	"skein.dev/skein/controllers/endpointslicemirroring"
	"skein.dev/skein/controllers/ephemeral"
	"skein.dev/skein/controllers/gc"
	"skein.dev/skein/controllers/job"
	"skein.dev/skein/controllers/namespace"
	"skein.dev/skein/controllers/nodelifecycle"
	"skein.dev/skein/controllers/podgc"
	"skein.dev/skein/controllers/policystatus"
	"skein.dev/skein/controllers/protection"
	"skein.dev/skein/controllers/replicaset"
	"skein.dev/skein/controllers/replicationcontroller"
	"skein.dev/skein/controllers/resourcequota"
	"skein.dev/skein/controllers/run"
	"skein.dev/skein/controllers/serviceaccount"
	"skein.dev/skein/controllers/statefulset"
	"skein.dev/skein/controllers/ttlafterfinished"
	"skein.dev/skein/controllers/volumebinder"
)

// maker makes one controller, where what it needs is served.
type maker struct {
	name    string
	account string // its user, a service account of kube-system; "": the controllers' common one
	needs   string // "resource.group ..." beyond what is always served
	wide    bool   // reaches objects of every kind
	make    func(Access) (run.Controller, error)
}

// user is who the controller is to the API, as with upstream.
func (m maker) user() string {
	if m.account == "" {
		return "system:kube-controller-manager"
	}
	return "system:serviceaccount:kube-system:" + m.account
}

// of makes a controller that needs a kit and no more.
func of(build func(component.Kit) (run.Controller, error)) func(Access) (run.Controller, error) {
	return func(a Access) (run.Controller, error) { return build(a.Kit) }
}

// serves reports whether all resources of a list are served.
func (c *Config) serves(list string) bool {
	for name := range strings.FieldsSeq(list) {
		if c.Serves == nil || !c.Serves(schema.ParseGroupResource(name)) {
			return false
		}
	}
	return true
}

func (c *Config) makers() []maker {
	const (
		requests = "certificatesigningrequests.certificates.k8s.io"
		signing  = "certificate-controller"
	)
	all := []maker{
		{"replicaset-controller", "replicaset-controller", "", false, of(replicaset.New)},
		{"deployment-controller", "deployment-controller", "", false, of(deployment.New)},
		{"endpointslice-controller", "endpointslice-controller", "", false, of(endpointslice.New)},
		{"endpoints-controller", "endpoint-controller", "", false, of(endpoints.New)},
		{"serviceaccount-controller", "service-account-controller", "", false, of(serviceaccount.New)},
		// It makes tokens of every account, with the common user's rights to that.
		{"serviceaccount-token-controller", "", "", false, func(a Access) (run.Controller, error) { return accounttoken.New(a.Kit, c.MintToken, c.RootCA) }},
		{"node-lifecycle-controller", "node-controller", "", false, func(a Access) (run.Controller, error) { return nodelifecycle.New(a.Kit, c.Members) }},
		{"pod-garbage-collector-controller", "pod-garbage-collector", "", false, of(podgc.New)},
		{"daemonset-controller", "daemon-set-controller", "daemonsets.apps controllerrevisions.apps", false, of(daemonset.New)},
		{"statefulset-controller", "statefulset-controller", "statefulsets.apps controllerrevisions.apps", false, func(a Access) (run.Controller, error) {
			return statefulset.New(a.Kit, c.serves("persistentvolumeclaims"))
		}},
		{"job-controller", "job-controller", "jobs.batch", false, of(job.New)},
		{"cronjob-controller", "cronjob-controller", "jobs.batch cronjobs.batch", false, of(cronjob.New)},
		{"ttl-after-finished-controller", "ttl-after-finished-controller", "jobs.batch", false, of(ttlafterfinished.New)},
		{"replicationcontroller-controller", "replication-controller", "replicationcontrollers", false, of(replicationcontroller.New)},
		{"resourcequota-controller", "resourcequota-controller", "resourcequotas", false, func(a Access) (run.Controller, error) {
			return resourcequota.New(a.Kit, a.Metadata, c.Serves)
		}},
		{"disruption-controller", "disruption-controller", "poddisruptionbudgets.policy statefulsets.apps", false, func(a Access) (run.Controller, error) {
			return disruption.New(a.Kit, c.Serves)
		}},
		{"clusterrole-aggregation-controller", "clusterrole-aggregation-controller", "clusterroles.rbac.authorization.k8s.io", false, of(clusterrole.New)},
		{"persistentvolumeclaim-protection-controller", "pvc-protection-controller", "persistentvolumeclaims", false, of(protection.NewClaims)},
		{"endpointslice-mirroring-controller", "endpointslicemirroring-controller", "endpointslices.discovery.k8s.io", false, of(endpointslicemirroring.New)},
		{"horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", "horizontalpodautoscalers.autoscaling", false, of(autoscale.New)},
		{"certificatesigningrequest-approving-controller", signing, requests, false, of(csr.NewApprover)},
		{"certificatesigningrequest-cleaner-controller", signing, requests, false, of(csr.NewCleaner)},
		{"podcertificaterequest-cleaner-controller", "podcertificaterequestcleaner", "podcertificaterequests.certificates.k8s.io", false, of(csr.NewPodCleaner)},
		{"persistentvolume-binder-controller", "persistent-volume-binder", "persistentvolumes persistentvolumeclaims storageclasses.storage.k8s.io", false, of(volumebinder.New)},
		{"ephemeral-volume-controller", "ephemeral-volume-controller", "persistentvolumeclaims", false, of(ephemeral.New)},
		{"persistentvolume-protection-controller", "pv-protection-controller", "persistentvolumes", false, of(protection.NewVolumes)},
		{
			"volumeattributesclass-protection-controller", "volumeattributesclass-protection-controller",
			"volumeattributesclasses.storage.k8s.io persistentvolumes persistentvolumeclaims", false, of(protection.NewAttributes),
		},
		{
			"validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status-controller",
			"validatingadmissionpolicies.admissionregistration.k8s.io", false, of(policystatus.New),
		},
		{"namespace-controller", "namespace-controller", "", true, func(a Access) (run.Controller, error) { return namespace.New(a.Kit, a.Metadata) }},
		{"garbage-collector-controller", "generic-garbage-collector", "", true, func(a Access) (run.Controller, error) {
			return gc.New(a.Kit, a.Metadata, c.Monitor)
		}},
	}
	if len(c.RootCA) > 0 {
		all = append(all,
			maker{"root-ca-certificate-publisher-controller", "root-ca-cert-publisher", "", false, func(a Access) (run.Controller, error) {
				return serviceaccount.NewRoot(a.Kit, c.RootCA)
			}},
			maker{"kube-apiserver-serving-clustertrustbundle-publisher-controller", "kube-apiserver-serving-clustertrustbundle-publisher", "clustertrustbundles.certificates.k8s.io", false, func(a Access) (run.Controller, error) {
				return csr.NewPublisher(a.Kit, c.RootCA)
			}})
	}
	if c.ClientCA != nil && c.ServingCA != nil {
		all = append(all, maker{"certificatesigningrequest-signing-controller", signing, requests, false, func(a Access) (run.Controller, error) {
			return csr.NewSigner(a.Kit, c.ClientCA, c.ServingCA)
		}})
	}
	return all
}

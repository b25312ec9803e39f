package controllers

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

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
	name  string
	needs string // "resource.group ..." beyond what is always served
	make  func() (run.Controller, error)
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
	const requests = "certificatesigningrequests.certificates.k8s.io"
	kit := c.Kit
	rootCA := c.RootCA
	if !c.Selection.Runs("root-ca-certificate-publisher-controller") {
		rootCA = nil
	}
	all := []maker{
		{"replicaset-controller", "", func() (run.Controller, error) { return replicaset.New(kit) }},
		{"deployment-controller", "", func() (run.Controller, error) { return deployment.New(kit) }},
		{"endpointslice-controller", "", func() (run.Controller, error) { return endpointslice.New(kit) }},
		{"endpoints-controller", "", func() (run.Controller, error) { return endpoints.New(kit) }},
		{"serviceaccount-controller", "", func() (run.Controller, error) { return serviceaccount.New(kit, rootCA) }},
		{"serviceaccount-token-controller", "", func() (run.Controller, error) { return accounttoken.New(kit, c.MintToken, c.RootCA) }},
		{"node-lifecycle-controller", "", func() (run.Controller, error) { return nodelifecycle.New(kit, c.Members) }},
		{"pod-garbage-collector-controller", "", func() (run.Controller, error) { return podgc.New(kit) }},
		{"daemonset-controller", "daemonsets.apps controllerrevisions.apps", func() (run.Controller, error) { return daemonset.New(kit) }},
		{"statefulset-controller", "statefulsets.apps controllerrevisions.apps", func() (run.Controller, error) {
			return statefulset.New(kit, c.serves("persistentvolumeclaims"))
		}},
		{"job-controller", "jobs.batch", func() (run.Controller, error) { return job.New(kit) }},
		{"cronjob-controller", "jobs.batch cronjobs.batch", func() (run.Controller, error) { return cronjob.New(kit) }},
		{"ttl-after-finished-controller", "jobs.batch", func() (run.Controller, error) { return ttlafterfinished.New(kit) }},
		{"replicationcontroller-controller", "replicationcontrollers", func() (run.Controller, error) { return replicationcontroller.New(kit) }},
		{"resourcequota-controller", "resourcequotas", func() (run.Controller, error) { return resourcequota.New(kit, c.Metadata, c.Serves) }},
		{"disruption-controller", "poddisruptionbudgets.policy statefulsets.apps", func() (run.Controller, error) { return disruption.New(kit, c.Serves) }},
		{"clusterrole-aggregation-controller", "clusterroles.rbac.authorization.k8s.io", func() (run.Controller, error) { return clusterrole.New(kit) }},
		{"persistentvolumeclaim-protection-controller", "persistentvolumeclaims", func() (run.Controller, error) { return protection.NewClaims(kit) }},
		{"endpointslice-mirroring-controller", "endpointslices.discovery.k8s.io", func() (run.Controller, error) { return endpointslicemirroring.New(kit) }},
		{"horizontal-pod-autoscaler-controller", "horizontalpodautoscalers.autoscaling", func() (run.Controller, error) { return autoscale.New(kit) }},
		{"certificatesigningrequest-approving-controller", requests, func() (run.Controller, error) { return csr.NewApprover(kit) }},
		{"certificatesigningrequest-cleaner-controller", requests, func() (run.Controller, error) { return csr.NewCleaner(kit) }},
		{"podcertificaterequest-cleaner-controller", "podcertificaterequests.certificates.k8s.io", func() (run.Controller, error) { return csr.NewPodCleaner(kit) }},
		{"persistentvolume-binder-controller", "persistentvolumes persistentvolumeclaims storageclasses.storage.k8s.io", func() (run.Controller, error) { return volumebinder.New(kit) }},
		{"ephemeral-volume-controller", "persistentvolumeclaims", func() (run.Controller, error) { return ephemeral.New(kit) }},
		{"persistentvolume-protection-controller", "persistentvolumes", func() (run.Controller, error) { return protection.NewVolumes(kit) }},
	}
	if len(c.RootCA) > 0 {
		all = append(all, maker{"kube-apiserver-serving-clustertrustbundle-publisher-controller", "clustertrustbundles.certificates.k8s.io", func() (run.Controller, error) {
			return csr.NewPublisher(kit, c.RootCA)
		}})
	}
	if c.ClientCA != nil && c.ServingCA != nil {
		all = append(all, maker{"certificatesigningrequest-signing-controller", requests, func() (run.Controller, error) {
			return csr.NewSigner(kit, c.ClientCA, c.ServingCA)
		}})
	}
	if c.Metadata != nil {
		all = append(all,
			maker{"namespace-controller", "", func() (run.Controller, error) { return namespace.New(kit, c.Metadata) }},
			maker{"garbage-collector-controller", "", func() (run.Controller, error) { return gc.New(kit, c.Metadata, c.Monitor) }},
		)
	}
	return all
}

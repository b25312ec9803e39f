package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Selection says which controllers run; the zero value is upstream's default.
type Selection struct {
	on, off map[string]bool
	only    bool // no "*": what is not named does not run
}

// ErrUnknownController is wrapped by the errors of [Select].
var ErrUnknownController = errors.New("no such controller")

// Select reads the list of --controllers as kube-controller-manager does: "*"
// is all that are on by default, "name" switches one on, "-name" off; without
// "*" only those named run. Old short names are understood. Nothing: "*".
func Select(list []string) (Selection, error) {
	s := Selection{on: map[string]bool{}, off: map[string]bool{}, only: len(list) > 0 && !slices.Contains(list, "*")}
	for _, word := range list {
		name, off := strings.CutPrefix(word, "-")
		if name == "*" && !off {
			continue
		}
		full, ok := fullName(name)
		if !ok {
			return Selection{}, fmt.Errorf("%w: %q; known are *, %s", ErrUnknownController, name, strings.Join(Names(), ", "))
		}
		if s.on[full] || s.off[full] { // the first word counts
			continue
		}
		if off {
			s.off[full] = true
		} else {
			s.on[full] = true
		}
	}
	return s, nil
}

// Runs reports whether a controller, by its full name, is to run.
func (s Selection) Runs(name string) bool {
	switch {
	case s.on[name]:
		return true
	case s.off[name], s.only:
		return false
	default:
		return !slices.Contains(offByDefault(), name)
	}
}

// None reports whether no controller is to run at all.
func (s Selection) None() bool { return !slices.ContainsFunc(Names(), s.Runs) }

// Names are all names that [Select] knows, upstream's. Those of controllers
// that a mesh has no need of are known and do nothing.
func Names() []string {
	out := make([]string, 0, len(aliases()))
	for _, a := range aliases() {
		out = append(out, a[0])
	}
	slices.Sort(out)
	return out
}

func fullName(name string) (string, bool) {
	for _, a := range aliases() {
		if slices.Contains(a, name) {
			return a[0], true
		}
	}
	return "", false
}

func offByDefault() []string {
	return []string{"bootstrap-signer-controller", "token-cleaner-controller", "selinux-warning-controller"}
}

// aliases are upstream's names, each with its older ones.
func aliases() [][]string {
	return [][]string{
		{"serviceaccount-token-controller", "serviceaccount-token"},
		{"endpoints-controller", "endpoint"},
		{"endpointslice-controller", "endpointslice"},
		{"endpointslice-mirroring-controller", "endpointslicemirroring"},
		{"replicationcontroller-controller", "replicationcontroller"},
		{"pod-garbage-collector-controller", "podgc"},
		{"resourcequota-controller", "resourcequota"},
		{"namespace-controller", "namespace"},
		{"serviceaccount-controller", "serviceaccount"},
		{"garbage-collector-controller", "garbagecollector"},
		{"daemonset-controller", "daemonset"},
		{"job-controller", "job"},
		{"deployment-controller", "deployment"},
		{"replicaset-controller", "replicaset"},
		{"horizontal-pod-autoscaler-controller", "horizontalpodautoscaling"},
		{"disruption-controller", "disruption"},
		{"statefulset-controller", "statefulset"},
		{"cronjob-controller", "cronjob"},
		{"certificatesigningrequest-signing-controller", "csrsigning"},
		{"certificatesigningrequest-approving-controller", "csrapproving"},
		{"certificatesigningrequest-cleaner-controller", "csrcleaner"},
		{"podcertificaterequest-cleaner-controller"},
		{"ttl-controller", "ttl"},
		{"bootstrap-signer-controller", "bootstrapsigner"},
		{"token-cleaner-controller", "tokencleaner"},
		{"node-ipam-controller", "nodeipam"},
		{"node-lifecycle-controller", "nodelifecycle"},
		{"taint-eviction-controller"},
		{"device-taint-eviction-controller"},
		{"persistentvolume-binder-controller", "persistentvolume-binder"},
		{"persistentvolume-attach-detach-controller", "attachdetach"},
		{"persistentvolume-expander-controller", "persistentvolume-expander"},
		{"clusterrole-aggregation-controller", "clusterrole-aggregation"},
		{"persistentvolumeclaim-protection-controller", "pvc-protection"},
		{"persistentvolume-protection-controller", "pv-protection"},
		{"podgroup-protection-controller"},
		{"ttl-after-finished-controller", "ttl-after-finished"},
		{"root-ca-certificate-publisher-controller", "root-ca-cert-publisher"},
		{"kube-apiserver-serving-clustertrustbundle-publisher-controller"},
		{"ephemeral-volume-controller", "ephemeral-volume"},
		{"storageversion-garbage-collector-controller", "storage-version-gc"},
		{"resourceclaim-controller", "resource-claim-controller"},
		{"resourcepoolstatusrequest-controller"},
		{"legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner"},
		{"validatingadmissionpolicy-status-controller"},
		{"volumeattributesclass-protection-controller"},
		{"service-cidr-controller"},
		{"storage-version-migrator-controller", "svm"},
		{"selinux-warning-controller"},
	}
}

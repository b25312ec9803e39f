package kinds

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/validation"
)

const (
	rolePrefix = "node-role.kubernetes.io/"
	roleLabel  = "kubernetes.io/role"
)

// Node declares nodes. A node may bring its status along when it is created.
func Node() registry.Kind {
	return registry.Kind{
		Resource: corev1.SchemeGroupVersion.WithResource("nodes"), Kind: "Node", Singular: "node", ShortNames: []string{"no"},
		New: func() runtime.Object { return &corev1.Node{} }, NewList: func() runtime.Object { return &corev1.NodeList{} },
		Columns: nodeColumns(), Row: row(nodeRow), Default: defaults(defaulting.Node),
		Select: selects(func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		}),
		Strategy: rules[*corev1.Node]{
			create: func(n *corev1.Node) {
				n.Spec.ConfigSource, n.Status.Config, n.Spec.PodPreemptionPolicy = nil, nil, nil
			},
			update: func(n, old *corev1.Node) {
				n.Status = old.Status
				if old.Spec.ConfigSource == nil {
					n.Spec.ConfigSource = nil
				}
				if old.Spec.PodPreemptionPolicy == nil {
					n.Spec.PodPreemptionPolicy = nil // not generally available
				}
			},
			validate: validation.Node,
			validateUpdate: func(n, old *corev1.Node) field.ErrorList {
				return append(validation.Node(n), validation.NodeUpdate(n, old)...)
			},
			warn: warnNode,
		}.strategy(),
		Status: rules[*corev1.Node]{
			update: func(n, old *corev1.Node) {
				n.Spec = old.Spec
				if old.Status.Config == nil {
					n.Status.Config = nil
				}
			},
			validateUpdate: validation.NodeUpdate,
		}.status(),
	}
}

func warnNode(n, _ *corev1.Node) []string {
	var warnings []string
	if n.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return warnings
}

func nodeColumns() []metav1.TableColumnDefinition {
	addresses, info := describe(corev1.NodeStatus{}, "addresses"), corev1.NodeSystemInfo{}
	return columns([]metav1.TableColumnDefinition{
		str("Status", "The status of the node"),
		str("Roles", "The roles of the node"),
		ageColumn(),
		str("Version", describe(info, "kubeletVersion")),
	}, wide(
		str("Internal-IP", addresses), str("External-IP", addresses),
		str("OS-Image", describe(info, "osImage")),
		str("Kernel-Version", describe(info, "kernelVersion")),
		str("Container-Runtime", describe(info, "containerRuntimeVersion")),
	)...)
}

func nodeRow(n *corev1.Node) []any {
	info := n.Status.NodeInfo
	kernel := or(info.KernelVersion, unknown)
	if info.Architecture != "" {
		kernel += " (" + info.Architecture + ")"
	}
	return []any{
		nodeState(n), or(strings.Join(roles(n), ","), none), age(n.CreationTimestamp), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		or(info.OSImage, unknown), kernel, or(info.ContainerRuntimeVersion, unknown),
	}
}

func nodeState(n *corev1.Node) string {
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type != corev1.NodeReady:
		case c.Status == corev1.ConditionTrue:
			state = "Ready"
		default:
			state = "NotReady"
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	return state
}

func roles(n *corev1.Node) []string {
	var found []string
	for label, value := range n.Labels {
		if role, ok := strings.CutPrefix(label, rolePrefix); ok && role != "" {
			found = append(found, role)
		} else if label == roleLabel && value != "" {
			found = append(found, value)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func nodeAddress(n *corev1.Node, t corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == t {
			return a.Address
		}
	}
	return none
}

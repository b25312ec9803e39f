package validation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// tolerated names rules that came after objects which break them. An object
// that broke one before may go on doing so.
type tolerated struct {
	hostNetworkInUserNamespace   bool
	volumeDevicesInUserNamespace bool
	restartingInitResize         bool
	indivisibleHugePages         bool
	nodeAffinityValues           bool
	selectorValues               bool
	spreadSelector               bool
	nonLocalTokenPath            bool
	hostSysctls                  bool
	emptyImageReference          bool
	sysAdminWithoutEscalation    bool
}

// tolerate finds out which rules the old spec breaks; nil breaks none.
func tolerate(old *corev1.PodSpec) tolerated {
	if old == nil {
		return tolerated{}
	}
	own := old.HostUsers != nil && !*old.HostUsers
	t := tolerated{hostNetworkInUserNamespace: own && old.HostNetwork}
	eachContainer(old, nil, func(c *corev1.Container, _ *field.Path) {
		t.volumeDevicesInUserNamespace = t.volumeDevicesInUserNamespace || own && len(c.VolumeDevices) > 0
		t.indivisibleHugePages = t.indivisibleHugePages || brokenPages(c.Resources.Limits) || brokenPages(c.Resources.Requests)
		t.sysAdminWithoutEscalation = t.sysAdminWithoutEscalation || sysAdmin(c.SecurityContext)
	})
	for i := range old.InitContainers {
		c := &old.InitContainers[i]
		t.restartingInitResize = t.restartingInitResize || !sidecar(c) && slices.ContainsFunc(c.ResizePolicy,
			func(p corev1.ContainerResizePolicy) bool { return p.RestartPolicy == corev1.RestartContainer })
	}
	t.affinity(old.Affinity)
	for _, s := range old.TopologySpreadConstraints {
		t.spreadSelector = t.spreadSelector ||
			len(metavalidation.ValidateLabelSelector(s.LabelSelector, metavalidation.LabelSelectorValidationOptions{}, nil)) > 0
	}
	for i := range old.Volumes {
		v := &old.Volumes[i]
		t.emptyImageReference = t.emptyImageReference || v.Image != nil && v.Image.Reference == ""
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if token := source.ServiceAccountToken; token != nil {
				var p problems
				p.unreserved(nil, token.Path)
				t.nonLocalTokenPath = t.nonLocalTokenPath || len(p.list) > 0
			}
		}
	}
	if old.SecurityContext != nil {
		t.hostSysctls = slices.ContainsFunc(old.SecurityContext.Sysctls,
			func(s corev1.Sysctl) bool { return hostSysctl(old, s.Name) != "" })
	}
	return t
}

func brokenPages(list corev1.ResourceList) bool {
	for name, q := range list {
		if hugePage(name) && !wholePages(name, q) {
			return true
		}
	}
	return false
}

func sysAdmin(s *corev1.SecurityContext) bool {
	return s != nil && s.Capabilities != nil && s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation &&
		slices.Contains(s.Capabilities.Add, "CAP_SYS_ADMIN")
}

func (t *tolerated) affinity(a *corev1.Affinity) {
	if a == nil {
		return
	}
	if a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, r := range term.MatchExpressions {
				bad := func(value string) bool { return len(validation.IsValidLabelValue(value)) > 0 }
				t.nodeAffinityValues = t.nodeAffinityValues || slices.ContainsFunc(r.Values, bad)
			}
		}
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range preferred {
			required = append(required, preferred[i].PodAffinityTerm)
		}
		for i := range required {
			t.selectorValues = t.selectorValues || badValues(required[i].LabelSelector) || badValues(required[i].NamespaceSelector)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(slices.Clone(p.RequiredDuringSchedulingIgnoredDuringExecution), p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(slices.Clone(p.RequiredDuringSchedulingIgnoredDuringExecution), p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func badValues(s *metav1.LabelSelector) bool {
	return s != nil && metavalidation.LabelSelectorHasInvalidLabelValue(s)
}

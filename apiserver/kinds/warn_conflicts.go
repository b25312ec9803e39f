package kinds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const matchesNothing = "a null labelSelector results in matching no pod"

// replacedLabel says what became of an old label of nodes.
func replacedLabel(key string) (string, bool) {
	now := map[string]string{
		"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
		"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
		"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
		"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
		"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
		"app.kubernetes.io/created-by":                  `deprecated since v1.9`,
		"scheduler.alpha.kubernetes.io/preferAvoidPods": `deprecated since v1.22; use Taints and Tolerations instead`,
		"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
	}
	text, ok := now[key]
	return text, ok
}

func (w *podWarner) selectors(s *corev1.PodSpec) {
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		if text, ok := replacedLabel(key); ok {
			w.at(w.spec("nodeSelector").Key(key), text)
		}
	}
	if s.Affinity != nil && s.Affinity.NodeAffinity != nil {
		n, path := s.Affinity.NodeAffinity, w.spec("affinity", "nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			at := path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
			for i := range r.NodeSelectorTerms {
				w.term(at.Index(i), &r.NodeSelectorTerms[i])
			}
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := path.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference")
			w.term(at, &n.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference)
		}
	}
	for i, c := range s.TopologySpreadConstraints {
		at := w.spec("topologySpreadConstraints").Index(i)
		if text, ok := replacedLabel(c.TopologyKey); ok {
			w.at(at.Child("topologyKey"), c.TopologyKey+" is "+text)
		}
		if c.LabelSelector == nil {
			w.at(at.Child("labelSelector"), matchesNothing)
		}
	}
}

func (w *podWarner) term(path *field.Path, t *corev1.NodeSelectorTerm) {
	for i, e := range t.MatchExpressions {
		if text, ok := replacedLabel(e.Key); ok {
			w.at(path.Child("matchExpressions").Index(i).Child("key"), e.Key+" is "+text)
		}
	}
}

func (w *podWarner) affinity(a *corev1.Affinity) {
	if a == nil {
		return
	}
	terms := func(name string, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		path := w.spec("affinity", name)
		null := func(at *field.Path, s *metav1.LabelSelector) {
			if s == nil {
				w.at(at.Child("labelSelector"), matchesNothing)
			}
		}
		for i := range required {
			null(path.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i), required[i].LabelSelector)
		}
		for i := range preferred {
			null(path.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"), preferred[i].PodAffinityTerm.LabelSelector)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms("podAffinity", p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		terms("podAntiAffinity", p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// env warns of a second definition unless it builds upon the first.
func (w *podWarner) env(path *field.Path, vars []corev1.EnvVar) {
	seen := map[string]bool{}
	for i, v := range vars {
		own := "$(" + v.Name + ")"
		extends := v.ValueFrom == nil && v.Value != own && strings.Contains(v.Value, own)
		if seen[v.Name] && !extends {
			w.at(path.Index(i), fmt.Sprintf("hides previous definition of %q, which may be dropped when using apply", v.Name))
		}
		seen[v.Name] = true
	}
}

// ports warns of ports that collide or may collide.
func (w *podWarner) ports(s *corev1.PodSpec) {
	type place struct {
		at   *field.Path
		port corev1.ContainerPort
	}
	all := map[string][]place{}
	w.each(s, func(c *corev1.Container, at *field.Path) {
		for i, port := range c.Ports {
			here := at.Child("ports").Index(i)
			if port.HostIP != "" && port.HostPort == 0 {
				w.at(here, fmt.Sprintf("hostIP set without hostPort: %+v", port))
			}
			key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
			for _, other := range all[key] {
				switch o := other.port; {
				case port.HostIP == o.HostIP && port.HostPort == o.HostPort:
					w.at(here, fmt.Sprintf("duplicate port definition with %s", other.at))
				case port.HostPort == 0 || o.HostPort == 0:
					w.at(here, fmt.Sprintf("overlapping port definition with %s", other.at))
				case port.HostPort == o.HostPort && (port.HostIP == "") != (o.HostIP == ""):
					w.at(here, fmt.Sprintf("dangerously ambiguous port definition with %s", other.at))
				}
			}
			all[key] = append(all[key], place{here, port})
		}
	})
}

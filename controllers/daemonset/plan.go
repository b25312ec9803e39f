package daemonset

import (
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"skein.dev/skein/controllers/pods"
)

// Plan is what one reconcile does.
type Plan struct {
	Create []string // nodes that get a pod
	Delete []*corev1.Pod
	Status appsv1.DaemonSetStatus
	After  time.Duration // a pod becomes available then; 0: none
}

// PodFor is the set's pod for a node. The scheduler binds it: the node is
// asked for by affinity, so that resources are counted in one place.
func PodFor(ds *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	p := pods.FromTemplate(ds, kind(), &ds.Spec.Template)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = hash
	p.Spec.Tolerations = tolerations(&p.Spec)
	term := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{
		Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node},
	}}}
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	// The template's own terms were judged when the node was chosen.
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{term},
	}
	return p
}

// tolerations are the template's and those every daemon has: it outlives
// trouble of its node.
func tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	out := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		out = append(out, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect})
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return out
}

// Suits reports whether the node should get a pod, and whether a pod that is
// there may stay.
func Suits(ds *appsv1.DaemonSet, node *corev1.Node) (start, stay bool) {
	spec := &ds.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != node.Name {
		return false, false
	}
	ok, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: *spec}).Match(node)
	if err != nil || !ok {
		return false, false
	}
	borne := tolerations(spec)
	start, stay = true, true
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || pods.Tolerates(borne, t) {
			continue
		}
		start = false
		stay = stay && t.Effect != corev1.TaintEffectNoExecute
	}
	return start, stay
}

// target is the node a pod is on or meant for.
func target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName
	}
	if p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return ""
	}
	req := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if req == nil || len(req.NodeSelectorTerms) == 0 {
		return ""
	}
	for _, f := range req.NodeSelectorTerms[0].MatchFields {
		if f.Key == "metadata.name" && len(f.Values) == 1 {
			return f.Values[0]
		}
	}
	return ""
}

// Decide plans the next step of ds, whose present template has hash.
func Decide(ds *appsv1.DaemonSet, hash string, nodes []*corev1.Node, mine []*corev1.Pod, now time.Time) Plan {
	byNode := map[string][]*corev1.Pod{}
	for _, p := range mine {
		byNode[target(p)] = append(byNode[target(p)], p)
	}
	plan := Plan{Status: appsv1.DaemonSetStatus{
		ObservedGeneration: ds.Generation, CollisionCount: ds.Status.CollisionCount, Conditions: ds.Status.Conditions,
	}}
	minReady := time.Duration(ds.Spec.MinReadySeconds) * time.Second
	var outdated []*corev1.Pod // good pods of an older template
	missing := 0               // nodes without an available pod
	for _, n := range nodes {
		here := byNode[n.Name]
		delete(byNode, n.Name)
		start, stay := Suits(ds, n)
		keep := plan.node(here, start, stay, now)
		if !start && (!stay || keep == nil) {
			if len(here) > 0 {
				plan.Status.NumberMisscheduled++
			}
			continue
		}
		plan.Status.DesiredNumberScheduled++
		if keep == nil {
			missing++
			if start && len(here) == 0 { // a pod that ends still holds the node
				plan.Create = append(plan.Create, n.Name)
			}
			continue
		}
		plan.Status.CurrentNumberScheduled++
		fresh := keep.Labels[appsv1.ControllerRevisionHashLabelKey] == hash
		if fresh {
			plan.Status.UpdatedNumberScheduled++
		}
		if pods.Ready(keep) {
			plan.Status.NumberReady++
		}
		ok, wait := pods.Available(keep, minReady, now)
		switch {
		case ok:
			plan.Status.NumberAvailable++
			if !fresh {
				outdated = append(outdated, keep)
			}
		default:
			missing++
			plan.again(wait)
			if !fresh && rolls(ds) { // it serves nobody: replacing it costs nothing
				plan.Delete = append(plan.Delete, keep)
			}
		}
	}
	for _, gone := range byNode { // pods of nodes that no longer exist
		plan.Delete = append(plan.Delete, active(gone)...)
	}
	plan.Status.NumberUnavailable = plan.Status.DesiredNumberScheduled - plan.Status.NumberAvailable
	plan.roll(ds, outdated, missing)
	slices.SortFunc(plan.Delete, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(plan.Create)
	return plan
}

// failedPause is the least time between a pod's creation and its replacement
// after it failed, so that a node which refuses it is not flooded.
const failedPause = 10 * time.Second

// node chooses the pod that counts on a node and gives up the others.
func (plan *Plan) node(here []*corev1.Pod, start, stay bool, now time.Time) *corev1.Pod {
	var keep *corev1.Pod
	for _, p := range here {
		switch {
		case p.DeletionTimestamp != nil:
		case pods.Finished(p):
			if wait := failedPause - now.Sub(p.CreationTimestamp.Time); wait > 0 {
				plan.again(wait)
				continue
			}
			plan.Delete = append(plan.Delete, p)
		case !start && !stay:
			plan.Delete = append(plan.Delete, p)
		case keep == nil:
			keep = p
		case p.CreationTimestamp.Before(&keep.CreationTimestamp):
			plan.Delete = append(plan.Delete, keep)
			keep = p
		default:
			plan.Delete = append(plan.Delete, p)
		}
	}
	return keep
}

// again asks to be called after d, if nothing asked for earlier.
func (plan *Plan) again(d time.Duration) {
	if d > 0 && (plan.After == 0 || d < plan.After) {
		plan.After = d
	}
}

func active(all []*corev1.Pod) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range all {
		if p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

func rolls(ds *appsv1.DaemonSet) bool {
	return ds.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType
}

// roll gives up available pods of an older template as far as maxUnavailable
// allows. Surge is not done yet: such a set rolls with one unavailable node.
func (plan *Plan) roll(ds *appsv1.DaemonSet, outdated []*corev1.Pod, missing int) {
	if !rolls(ds) {
		return
	}
	allowed := 1
	if u := ds.Spec.UpdateStrategy.RollingUpdate; u != nil && u.MaxUnavailable != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(u.MaxUnavailable, int(plan.Status.DesiredNumberScheduled), true)
		if err == nil {
			allowed = max(n, 1)
		}
	}
	slices.SortFunc(outdated, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	plan.Delete = append(plan.Delete, outdated[:min(len(outdated), max(0, allowed-missing))]...)
}

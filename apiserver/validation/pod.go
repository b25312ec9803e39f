package validation

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// changeable names what a user may change of a pod that exists.
const changeable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// Pod validates a new pod.
func Pod(pod *corev1.Pod) field.ErrorList {
	p := podRules(pod, nil)
	path := field.NewPath("spec")
	p.forbid(path.Child("ephemeralContainers"), len(pod.Spec.EphemeralContainers) > 0, "cannot be set on create")
	p.forbid(path.Child("nodeName"), pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0,
		"cannot be set until all schedulingGates have been cleared")
	seccompAnnotations(p, path, &pod.ObjectMeta, &pod.Spec)
	appArmorAnnotations(p, path, &pod.ObjectMeta, &pod.Spec)
	return p.list
}

// podRules are what holds for pods at all times; old is the pod before, or nil.
func podRules(pod, old *corev1.Pod) *problems {
	p := meta(&pod.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	annotations := field.NewPath("metadata", "annotations")
	podAnnotations(&p, annotations, pod.Annotations, &pod.Spec)
	if old == nil || validDeletionCost(old.Annotations) {
		deletionCost(&p, annotations, pod.Annotations)
	}
	path := field.NewPath("spec")
	var before *corev1.PodSpec
	if old != nil {
		before = &old.Spec
	}
	checkPodSpec(&p, path, &pod.Spec, before, &pod.ObjectMeta, true)
	if pod.Spec.ServiceAccountName == "" {
		tokensNeedAccount(&p, path.Child("volumes"), &pod.Spec)
	}
	if n := pod.Spec.TerminationGracePeriodSeconds; n != nil {
		p.nonNegative(path.Child("terminationGracePeriodSeconds"), *n)
	}
	c := &podCheck{problems: &p, spec: &pod.Spec}
	for i := range pod.Spec.Containers {
		c.checkImageSpace(path.Child("containers").Index(i), &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		c.checkImageSpace(path.Child("initContainers").Index(i), &pod.Spec.InitContainers[i])
	}
	return &p
}

func tokensNeedAccount(p *problems, path *field.Path, s *corev1.PodSpec) {
	for i := range s.Volumes {
		if s.Volumes[i].Projected == nil {
			continue
		}
		for j, source := range s.Volumes[i].Projected.Sources {
			p.forbid(path.Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
				source.ServiceAccountToken != nil, "must not be specified when serviceAccountName is not set")
		}
	}
}

// PodUpdate validates a change of a pod: little of one may change.
func PodUpdate(pod, old *corev1.Pod) field.ErrorList {
	m := metaUpdate(&pod.ObjectMeta, &old.ObjectMeta)
	p := &m
	p.add(podRules(pod, old).list...)
	annotationChanges(p, pod, old)
	path := field.NewPath("spec")
	if !sameContainers(p, path.Child("containers"), pod.Spec.Containers, old.Spec.Containers) ||
		!sameContainers(p, path.Child("initContainers"), pod.Spec.InitContainers, old.Spec.InitContainers) ||
		!deadline(p, path.Child("activeDeadlineSeconds"), pod.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds) {
		return p.list
	}
	addedTolerations(p, path.Child("tolerations"), pod, old)
	removedGates(p, path.Child("schedulingGates"), pod.Spec.SchedulingGates, old.Spec.SchedulingGates)
	if equality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		return p.list
	}
	rest := pod.Spec.DeepCopy() // what is left when all that may change is put back
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	rest.SchedulingGates = old.Spec.SchedulingGates
	rest.Tolerations = old.Spec.Tolerations
	if had := old.Spec.TerminationGracePeriodSeconds; had != nil && *had < 0 && deref(rest.TerminationGracePeriodSeconds) == 1 {
		rest.TerminationGracePeriodSeconds = had
	}
	if len(old.Spec.SchedulingGates) > 0 {
		gatedChanges(p, path, rest, &old.Spec)
	}
	if !equality.Semantic.DeepEqual(*rest, old.Spec) {
		p.forbidden(path, "pod updates may not change fields other than "+changeable+"\n"+diff.Diff(old.Spec, *rest))
	}
	return p.list
}

// sameContainers reports false if the lists cannot be compared further.
func sameContainers(p *problems, path *field.Path, now, before []corev1.Container) bool {
	if len(now) != len(before) {
		p.forbidden(path, "pod updates may not add or remove containers")
		return false
	}
	for i := range now {
		image := path.Index(i).Child("image")
		if now[i].Image == "" {
			p.required(image, "")
		}
		if strings.TrimSpace(now[i].Image) != now[i].Image {
			p.invalid(image, now[i].Image, "must not have leading or trailing whitespace")
		}
	}
	return true
}

// deadline may be set and come nearer. It reports false if there is no sense
// in comparing further.
func deadline(p *problems, path *field.Path, now, before *int64) bool {
	switch {
	case now == nil && before != nil:
		p.invalid(path, now, "must not update from a positive integer to nil value")
	case now == nil:
	case *now < 0 || *now > math.MaxInt32:
		p.invalid(path, *now, validation.InclusiveRangeError(0, math.MaxInt32))
		return false
	case before != nil && *before < *now:
		p.invalid(path, *now, "must be less than or equal to previous value")
		return false
	}
	return true
}

func addedTolerations(p *problems, path *field.Path, pod, old *corev1.Pod) {
	for _, had := range old.Spec.Tolerations {
		kept := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			t.TolerationSeconds = had.TolerationSeconds
			return equality.Semantic.DeepEqual(t, had)
		})
		if !kept {
			p.forbidden(path, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
	(&podCheck{problems: p, spec: &pod.Spec}).checkTolerations(path, pod.Spec.Tolerations)
}

func removedGates(p *problems, path *field.Path, now, before []corev1.PodSchedulingGate) {
	for i, gate := range now {
		if !slices.Contains(before, gate) {
			p.forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
}

// gatedChanges lets a pod that may not be scheduled yet become choosier about
// its node, and puts the old choice back into rest.
func gatedChanges(p *problems, path *field.Path, rest, old *corev1.PodSpec) {
	for _, key := range sorted(old.NodeSelector) {
		if value, ok := rest.NodeSelector[key]; !ok || value != old.NodeSelector[key] {
			p.invalid(path.Child("nodeSelector"), rest.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	rest.NodeSelector = old.NodeSelector
	var now, had *corev1.NodeAffinity
	if rest.Affinity != nil {
		now = rest.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		had = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(now, had) {
		return
	}
	narrowedAffinity(p, path.Child("affinity", "nodeAffinity", requiredTerms, "nodeSelectorTerms"), now, had)
	switch {
	case rest.Affinity == nil:
		rest.Affinity = &corev1.Affinity{NodeAffinity: had}
	case old.Affinity == nil && rest.Affinity.PodAffinity == nil && rest.Affinity.PodAntiAffinity == nil:
		rest.Affinity = nil
	default:
		rest.Affinity.NodeAffinity = had
	}
}

func narrowedAffinity(p *problems, path *field.Path, now, had *corev1.NodeAffinity) {
	if had == nil || had.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return
	}
	before := had.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var terms []corev1.NodeSelectorTerm
	if now != nil && now.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(before) > 0 && len(before) != len(terms) {
		p.invalid(path, printed(terms), "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	extends := func(now, before []corev1.NodeSelectorRequirement) bool {
		return len(now) >= len(before) && equality.Semantic.DeepEqual(now[:len(before)], before)
	}
	for i := range before {
		wasEmpty := len(before[i].MatchExpressions)+len(before[i].MatchFields) == 0
		isEmpty := len(terms[i].MatchExpressions)+len(terms[i].MatchFields) == 0
		good := extends(terms[i].MatchExpressions, before[i].MatchExpressions) && extends(terms[i].MatchFields, before[i].MatchFields)
		if wasEmpty && !isEmpty || !wasEmpty && !good {
			p.invalid(path.Index(i), printed(terms[i]), "only additions are allowed (no mutations or deletions)")
		}
	}
}

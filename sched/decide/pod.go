package decide

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Prepared is a pod with all that the rules ask of it worked out once.
type Prepared struct {
	Object   *corev1.Pod
	Requests Resources
	// Priority orders pods; higher goes first.
	Priority int32
	// Group is equal for pods that should be spread: those of one namespace
	// with the same labels, but for the labels that tell revisions apart.
	Group string
	// Volumes are the node affinities of the pod's bound volumes; the caller
	// fills it, and Blocked when a volume can never be had as things are.
	Volumes []*nodeaffinity.NodeSelector
	Blocked string
	// Waiting are the claims that are bound with the pod; the caller's, too.
	Waiting []Waiting

	ports     []port
	required  nodeaffinity.RequiredNodeAffinity
	hasWishes bool // has a node selector or required node affinity
	preferred *nodeaffinity.PreferredSchedulingTerms
	affinity  []term
	anti      []term
	liked     []weighted
	score     Resources // requests with a floor, so that pods without requests count
}

// Floors for scoring: a pod that asks for nothing still uses something.
const (
	floorCPU    = 100               // milli
	floorMemory = 200 * 1024 * 1024 // bytes
)

// Prepare works out what the rules need of p, which must not change after.
func Prepare(p *corev1.Pod) *Prepared {
	list := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true})
	out := &Prepared{
		Object: p, Requests: fromList(list), Group: group(p), ports: portsOf(p),
		required: nodeaffinity.GetRequiredNodeAffinity(p),
	}
	out.hasWishes = len(p.Spec.NodeSelector) > 0
	if p.Spec.Priority != nil {
		out.Priority = *p.Spec.Priority
	}
	out.score = out.Requests
	if out.score.CPU == 0 {
		out.score.CPU = floorCPU
	}
	if out.score.Memory == 0 {
		out.score.Memory = floorMemory
	}
	if a := p.Spec.Affinity; a != nil {
		if na := a.NodeAffinity; na != nil {
			out.hasWishes = out.hasWishes || na.RequiredDuringSchedulingIgnoredDuringExecution != nil
			if t, err := nodeaffinity.NewPreferredSchedulingTerms(na.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
				out.preferred = t
			}
		}
		out.prepareInterPod(a)
	}
	return out
}

// group names the pods that stand in for each other.
func group(p *corev1.Pod) string {
	l := maps.Clone(p.Labels)
	for _, k := range []string{
		"pod-template-hash", "controller-revision-hash", "pod-template-generation",
		"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index",
	} {
		delete(l, k)
	}
	if len(l) == 0 {
		if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
			return string(ref.UID)
		}
		return ""
	}
	var b strings.Builder
	b.WriteString(p.Namespace)
	for _, k := range slices.Sorted(maps.Keys(l)) {
		b.WriteString("\x00" + k + "=" + l[k])
	}
	return b.String()
}

// port is a port taken on the host; ip "" is all addresses.
type port struct {
	protocol corev1.Protocol
	ip       string
	number   int32
}

func portsOf(p *corev1.Pod) []port {
	var out []port
	add := func(c *corev1.Container) {
		for _, cp := range c.Ports {
			if cp.HostPort <= 0 {
				continue
			}
			x := port{protocol: cp.Protocol, ip: cp.HostIP, number: cp.HostPort}
			if x.protocol == "" {
				x.protocol = corev1.ProtocolTCP
			}
			if x.ip == "0.0.0.0" || x.ip == "::" {
				x.ip = ""
			}
			out = append(out, x)
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

func (p port) clashes(o port) bool {
	return p.number == o.number && p.protocol == o.protocol && (p.ip == "" || o.ip == "" || p.ip == o.ip)
}

package decide_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"skein.dev/skein/sched/decide"
)

func cluster(nodes []*corev1.Node, placed map[string][]*corev1.Pod) *decide.Snapshot {
	c := decide.NewCluster()
	c.SetNamespace("default", map[string]string{"kubernetes.io/metadata.name": "default"})
	for _, n := range nodes {
		c.SetNode(n)
	}
	for n, pods := range placed {
		for _, p := range pods {
			c.SetPod(n, decide.Prepare(p))
		}
	}
	return c.Snapshot()
}

func with(p *corev1.Pod, f func(*corev1.Pod)) *corev1.Pod { f(p); return p }

func withNode(n *corev1.Node, f func(*corev1.Node)) *corev1.Node { f(n); return n }

func near(app, key string, anti bool) func(*corev1.Pod) {
	term := []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{}
		if anti {
			p.Spec.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}
		} else {
			p.Spec.Affinity.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: term}
		}
	}
}

func taint(key string, effect corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

func hostPort(p *corev1.Pod) {
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80}}
}

func TestRules(t *testing.T) {
	gpu := corev1.ResourceName("example.com/gpu")
	for _, row := range []struct {
		name    string
		nodes   []*corev1.Node
		placed  map[string][]*corev1.Pod
		pod     *corev1.Pod
		want    string // node
		message string
	}{
		{
			name: "an empty cluster has no nodes to offer", pod: pod("p", "a", "1"), message: "no nodes available to schedule pods",
		}, {
			name: "a pod without requests fits a full node", nodes: []*corev1.Node{node("n1", "", "1")},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "x", "1")}}, pod: pod("p", "a", ""), want: "n1",
		}, {
			name: "requests beyond what is free are refused by resource", nodes: []*corev1.Node{node("n1", "", "1"), node("n2", "", "1"), node("n3", "", "1")},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "x", "100m")}}, pod: pod("p", "a", "1100m"),
			message: "0/3 nodes are available: 3 Insufficient cpu.",
		}, {
			name: "an extended resource that no node has", nodes: []*corev1.Node{node("n1", "", "1")},
			pod: with(pod("p", "a", "1"), func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests[gpu] = resource.MustParse("1")
			}), message: "0/1 nodes are available: 1 Insufficient example.com/gpu.",
		}, {
			name: "init containers count by their maximum", nodes: []*corev1.Node{node("n1", "", "2")},
			pod: with(pod("p", "a", "1"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{*pod("i", "", "3").Spec.Containers[0].DeepCopy()}
			}), message: "0/1 nodes are available: 1 Insufficient cpu.",
		}, {
			name: "a full node takes no more pods", nodes: []*corev1.Node{withNode(node("n1", "", "4"), func(n *corev1.Node) {
				n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1")
			})},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "x", "")}}, pod: pod("p", "a", ""), message: "0/1 nodes are available: 1 Too many pods.",
		}, {
			name: "different reasons are counted and sorted",
			nodes: []*corev1.Node{
				withNode(node("n1", "", "1"), taint("k", corev1.TaintEffectNoSchedule)), node("n2", "", "1"),
				withNode(node("n3", "", "4"), func(n *corev1.Node) { n.Spec.Unschedulable = true }),
			},
			pod: pod("p", "a", "2"), message: "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
		}, {
			name:  "a tolerated taint does not matter",
			nodes: []*corev1.Node{withNode(node("n1", "", "1"), taint("k", corev1.TaintEffectNoExecute))},
			pod: with(pod("p", "a", "1"), func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
			}), want: "n1",
		}, {
			name: "a PreferNoSchedule taint only costs", nodes: []*corev1.Node{withNode(node("n1", "", "1"), taint("k", corev1.TaintEffectPreferNoSchedule)), node("n2", "", "1")},
			pod: pod("p", "a", "100m"), want: "n2",
		}, {
			name: "a node selector", nodes: []*corev1.Node{node("n1", "a", "1"), node("n2", "b", "1")},
			pod: with(pod("p", "a", "1"), func(p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "b"}
			}), want: "n2",
		}, {
			name: "a node selector that no node meets", nodes: []*corev1.Node{node("n1", "a", "1")},
			pod: with(pod("p", "a", "1"), func(p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
			}), message: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
		}, {
			name: "a taken host port", nodes: []*corev1.Node{node("n1", "", "1"), node("n2", "", "1")},
			placed: map[string][]*corev1.Pod{"n1": {with(pod("x", "x", ""), hostPort)}}, pod: with(pod("p", "a", ""), hostPort), want: "n2",
		}, {
			name: "a host port taken everywhere", nodes: []*corev1.Node{node("n1", "", "1")},
			placed: map[string][]*corev1.Pod{"n1": {with(pod("x", "x", ""), hostPort)}}, pod: with(pod("p", "a", ""), hostPort),
			message: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
		}, {
			name: "affinity joins the other pod's zone", nodes: []*corev1.Node{node("n1", "a", "1"), node("n2", "b", "1"), node("n3", "b", "1")},
			placed: map[string][]*corev1.Pod{"n2": {pod("x", "db", "1")}}, pod: with(pod("p", "a", "500m"), near("db", corev1.LabelTopologyZone, false)), want: "n3",
		}, {
			name: "affinity to nobody is refused", nodes: []*corev1.Node{node("n1", "a", "1")},
			pod:     with(pod("p", "a", ""), near("db", corev1.LabelTopologyZone, false)),
			message: "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
		}, {
			name: "the first of a group that wants to be together may start it", nodes: []*corev1.Node{node("n1", "a", "1")},
			pod: with(pod("p", "a", ""), near("a", corev1.LabelTopologyZone, false)), want: "n1",
		}, {
			name: "anti-affinity keeps away", nodes: []*corev1.Node{node("n1", "a", "1"), node("n2", "b", "1")},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "a", "")}}, pod: with(pod("p", "a", ""), near("a", corev1.LabelHostname, true)), want: "n2",
		}, {
			name: "anti-affinity refuses", nodes: []*corev1.Node{node("n1", "a", "1")},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "a", "")}}, pod: with(pod("p", "a", ""), near("a", corev1.LabelHostname, true)),
			message: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.",
		}, {
			name: "the anti-affinity of those who are there counts too", nodes: []*corev1.Node{node("n1", "a", "1")},
			placed: map[string][]*corev1.Pod{"n1": {with(pod("x", "x", ""), near("a", corev1.LabelHostname, true))}}, pod: pod("p", "a", ""),
			message: "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
		}, {
			name: "a spread constraint", nodes: []*corev1.Node{node("n1", "a", "4"), node("n2", "b", "1")},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "a", "")}}, pod: with(pod("p", "a", ""), spread(corev1.LabelTopologyZone)), want: "n2",
		}, {
			name: "a spread constraint over a label that nodes lack", nodes: []*corev1.Node{node("n1", "a", "4")},
			pod:     with(pod("p", "a", ""), spread("rack")),
			message: "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
		}, {
			name: "a spread constraint that cannot hold", nodes: []*corev1.Node{node("n1", "a", "4"), withNode(node("n2", "b", "1"), taint("k", corev1.TaintEffectNoSchedule))},
			placed: map[string][]*corev1.Pod{"n1": {pod("x", "a", "")}}, pod: with(pod("p", "a", ""), spread(corev1.LabelTopologyZone)),
			message: "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint(s).",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := decide.Pod(cluster(row.nodes, row.placed), decide.Prepare(row.pod), 1)
			if got.Node != row.want {
				t.Errorf("node %q, want %q (%s)", got.Node, row.want, got.Message())
			}
			if row.message != "" && got.Message() != row.message {
				t.Errorf("message\n %q, want\n %q", got.Message(), row.message)
			}
		})
	}
}

func spread(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
		}}
	}
}

// TestNeverOvercommits places random pods on random nodes, with removals, and
// adds up by hand what each node holds.
func TestNeverOvercommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := decide.NewCluster()
		room, used, count := map[string]int64{}, map[string]int64{}, map[string]int{}
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			name := fmt.Sprintf("n%d", i)
			room[name] = int64(rapid.IntRange(0, 4000).Draw(t, "cpu"))
			n := node(name, fmt.Sprintf("z%d", i%2), fmt.Sprintf("%dm", room[name]))
			n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("5")
			c.SetNode(n)
		}
		type at struct {
			node string
			cpu  int64
		}
		where := map[string]at{}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(where) > 0 && rapid.Bool().Draw(t, "remove") {
				for name, a := range where { // any
					c.RemovePod(types.UID(name))
					used[a.node] -= a.cpu
					count[a.node]--
					delete(where, name)
					break
				}
				continue
			}
			cpu := int64(rapid.IntRange(0, 2000).Draw(t, "request"))
			name := fmt.Sprintf("p%d", i)
			p := decide.Prepare(pod(name, "a", fmt.Sprintf("%dm", cpu)))
			d := decide.Pod(c.Snapshot(), p, uint64(i))
			if d.Node == "" {
				for n := range room {
					if (cpu == 0 || used[n]+cpu <= room[n]) && count[n] < 5 {
						t.Fatalf("%dm refused, but %s has %d of %d: %s", cpu, n, used[n], room[n], d.Message())
					}
				}
				continue
			}
			c.SetPod(d.Node, p)
			where[name] = at{d.Node, cpu}
			used[d.Node] += cpu
			count[d.Node]++
			if cpu > 0 && used[d.Node] > room[d.Node] || count[d.Node] > 5 {
				t.Fatalf("%s holds %dm of %dm and %d pods", d.Node, used[d.Node], room[d.Node], count[d.Node])
			}
		}
	})
}

func TestASnapshotDoesNotChange(t *testing.T) {
	c := decide.NewCluster()
	c.SetNode(node("n1", "", "1"))
	before := c.Snapshot()
	c.SetPod("n1", decide.Prepare(pod("x", "x", "1")))
	c.SetNode(node("n2", "", "1"))
	if got := before.Len(); got != 1 {
		t.Errorf("the old snapshot has %d nodes", got)
	}
	if got := len(before.Node("n1").Pods()); got != 0 {
		t.Errorf("the old snapshot's node has %d pods", got)
	}
	if d := decide.Pod(before, decide.Prepare(pod("p", "a", "1")), 0); d.Node != "n1" {
		t.Errorf("on the old snapshot: %q, %s", d.Node, d.Message())
	}
	if d := decide.Pod(c.Snapshot(), decide.Prepare(pod("p", "a", "1")), 0); d.Node != "n2" {
		t.Errorf("on the new snapshot: %q, %s", d.Node, d.Message())
	}
}

func TestTheSameQuestionHasTheSameAnswer(t *testing.T) {
	var nodes []*corev1.Node
	for i := range 20 {
		nodes = append(nodes, node(fmt.Sprintf("n%d", i), "z", "4"))
	}
	s := cluster(nodes, nil)
	answers := map[string]int{}
	for seed := range uint64(200) {
		p := decide.Prepare(pod("p", "a", "1"))
		a, b := decide.Pod(s, p, seed), decide.Pod(s, p, seed)
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatal(diff)
		}
		answers[a.Node]++
	}
	if len(answers) < 15 {
		t.Errorf("200 seeds chose among only %d of 20 equal nodes", len(answers))
	}
}

func TestReplicasAreSpreadOverZonesThenNodes(t *testing.T) {
	c := decide.NewCluster()
	for i := range 6 {
		c.SetNode(node(fmt.Sprintf("n%d", i), fmt.Sprintf("z%d", i%3), "8"))
	}
	perNode, perZone := map[string]int{}, map[string]int{}
	for i := range 6 {
		p := decide.Prepare(pod(fmt.Sprintf("p%d", i), "a", "100m"))
		s := c.Snapshot()
		d := decide.Pod(s, p, uint64(i))
		c.SetPod(d.Node, p)
		perNode[d.Node]++
		perZone[s.Node(d.Node).Zone]++
	}
	if len(perNode) != 6 || perZone["z0"] != 2 || perZone["z1"] != 2 || perZone["z2"] != 2 {
		t.Errorf("per node %v, per zone %v", perNode, perZone)
	}
}

package kubelet_test

import (
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func waiting(p *corev1.Pod, reason string) bool {
	return p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
		p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
}

func TestCrashedContainerIsRestarted(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	n.eventually("a", "running", running)
	if err := n.runtime.Crash("app", 1); err != nil {
		t.Fatal(err)
	}
	p := n.eventually("a", "restarted", func(p *corev1.Pod) bool { return running(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 1 || last.Reason != "Error" {
		t.Errorf("last state %+v", p.Status.ContainerStatuses[0].LastTerminationState)
	}
	if err := n.runtime.Crash("app", 1); err != nil {
		t.Fatal(err)
	}
	n.eventually("a", "backing off", func(p *corev1.Pod) bool { return waiting(p, "CrashLoopBackOff") })
}

func TestJobPodSucceeds(t *testing.T) {
	n := newNode(t)
	n.create(pod("job", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: image, Command: []string{"exit", "0"}}}
		p.Spec.Containers[0].Command = []string{"exit", "0"}
	}))
	p := n.eventually("job", "succeeded", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodSucceeded })
	if st := p.Status.InitContainerStatuses[0]; st.State.Terminated == nil || !st.Ready {
		t.Errorf("init %+v", st)
	}
}

func TestKubeletRestartTouchesNoContainer(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	before := n.eventually("a", "running", running)
	n.stop()
	n.create(pod("b", nil)) // bound while the kubelet is away
	n.start()
	n.eventually("b", "running", running)
	after := n.eventually("a", "running", running)
	if b, a := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 {
		t.Errorf("before %+v, after %+v", b, a)
	}
}

func TestPodWithoutItsConfigMapWaitsAndThenRuns(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "late"},
		}}}
	}))
	n.eventually("a", "waiting", func(p *corev1.Pod) bool { return waiting(p, "CreateContainerConfigError") })
	_, err := n.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "late", Namespace: "default"}, Data: map[string]string{"KEY": "value"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.eventually("a", "running", running)
	for _, e := range n.runtime.Config("app").Envs {
		if e.Key == "KEY" && string(e.Value) == "value" {
			return
		}
	}
	t.Errorf("environment %v", n.runtime.Config("app").Envs)
}

func TestImageThatDoesNotExist(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "example.test/none:1" }))
	p := n.eventually("a", "waiting", func(p *corev1.Pod) bool { return waiting(p, "ErrImagePull") || waiting(p, "ImagePullBackOff") })
	if p.Status.Phase != corev1.PodPending {
		t.Errorf("phase %s", p.Status.Phase)
	}
}

func TestProbesDecideReadinessAndLife(t *testing.T) {
	n := newNode(t)
	n.runtime.Put("alive", true)
	has := func(name string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"has", name}}},
			PeriodSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1, TimeoutSeconds: 1,
		}
	}
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = has("ready"), has("alive")
	}))
	n.eventually("a", "running", func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodRunning })
	n.runtime.Put("ready", true)
	p := n.eventually("a", "ready", ready0)
	n.runtime.Put("alive", false)
	n.eventually("a", "restarted", func(q *corev1.Pod) bool {
		return q != nil && q.Status.ContainerStatuses[0].RestartCount > p.Status.ContainerStatuses[0].RestartCount
	})
}

func ready0(p *corev1.Pod) bool { return p != nil && ready(p) }

func TestSandboxThatDiesIsReplaced(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	before := n.eventually("a", "running", running)
	n.runtime.CrashSandboxes()
	n.eventually("a", "running again", func(p *corev1.Pod) bool {
		return running(p) && p.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID
	})
}

func TestOrphansEndOnlyOnceTheReplicaIsVerified(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	n.eventually("a", "running", running)
	stranger := n.strangersPod()
	n.stop()
	if err := n.client.CoreV1().Pods("default").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var settled atomic.Bool
	n.settled = settled.Load
	n.start()
	n.create(pod("b", nil)) // by then the kubelet has looked at everything
	n.eventually("b", "running", running)
	time.Sleep(3 * time.Second) // several relists
	if s, c := n.runtime.Left(); s != 3 || c != 2 {
		t.Fatalf("before the replica is verified: %d sandboxes, %d containers", s, c)
	}
	settled.Store(true)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, _ := n.runtime.Left()
		if s == 2 { // b and the stranger
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d sandboxes", s)
		}
	}
	r, err := n.cri().PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: stranger})
	if err != nil || r.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("somebody else's sandbox: %v %v", r, err)
	}
}

func (n *node) cri() runtimeapi.RuntimeServiceClient {
	n.Helper()
	conn, err := grpc.NewClient("unix:"+n.config().CRIEndpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// strangersPod is a sandbox that no kubelet made.
func (n *node) strangersPod() string {
	n.Helper()
	r, err := n.cri().RunPodSandbox(n.Context(), &runtimeapi.RunPodSandboxRequest{Config: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "s", Uid: "s", Namespace: "s"},
		Labels:   map[string]string{"io.kubernetes.pod.uid": "s"},
	}})
	if err != nil {
		n.Fatal(err)
	}
	return r.PodSandboxId
}

func TestStatefulPodDoesNotStartBeforeTheReplicaIsVerified(t *testing.T) {
	n := newNode(t)
	n.stop()
	var settled atomic.Bool
	n.settled = settled.Load
	n.start()
	yes := true
	n.create(pod("db-0", func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "x", Controller: &yes}}
	}))
	n.create(pod("b", nil))
	n.eventually("b", "running", running)
	n.eventually("db-0", "held", func(p *corev1.Pod) bool { return waiting(p, "ContainerCreating") })
	settled.Store(true)
	n.eventually("db-0", "running", running)
}

func TestForcedDeletionEndsTheContainers(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"stubborn"} }))
	n.eventually("a", "running", running)
	n.remove("a", 0)
	n.eventually("a", "deleted", func(p *corev1.Pod) bool { return p == nil })
	if s, c := n.runtime.Left(); s+c != 0 {
		t.Errorf("%d sandboxes and %d containers left", s, c)
	}
}

func TestBrokenNetworkMakesTheNodeNotReady(t *testing.T) {
	n := newNode(t)
	n.stop()
	n.runtime.Break("cni config uninitialized")
	n.start()
	n.create(pod("a", nil))
	n.eventually("a", "creating", func(p *corev1.Pod) bool { return waiting(p, "ContainerCreating") })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		node, err := n.client.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err == nil && len(node.Status.Conditions) == 4 && node.Status.Conditions[3].Reason == "KubeletNotReady" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("node %+v %v", node, err)
		}
	}
	n.runtime.Break("")
	n.eventually("a", "running", running)
}

func TestAContainerIsReadyOnceItsPostStartHookHasEnded(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"await", "go"}}}}
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"has", "go"}}},
			PeriodSeconds: 1, FailureThreshold: 1, // it must not be asked before
		}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second", Image: image, Command: []string{"sleep"}})
	}))
	n.eventually("a", "waiting for its hook", func(*corev1.Pod) bool { return n.runtime.Containers()["app"] != "" })
	n.create(pod("b", nil)) // by then the kubelet has looked often
	n.eventually("b", "running", running)
	time.Sleep(2 * time.Second)
	p := n.eventually("a", "waiting", func(p *corev1.Pod) bool { return waiting(p, "ContainerCreating") })
	if p.Status.Phase != corev1.PodPending || n.runtime.Containers()["second"] != "" {
		t.Errorf("phase %s, running %v", p.Status.Phase, n.runtime.Containers())
	}
	n.runtime.Put("go", true)
	p = n.eventually("a", "running", running)
	if c := p.Status.ContainerStatuses[0]; c.RestartCount != 0 || c.Started == nil || !*c.Started {
		t.Errorf("status %+v", c)
	}
}

func TestAContainerWhosePostStartHookFailsIsKilledAndStartedAgain(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"has", "what it needs"}}}}
	}))
	n.eventually("a", "told to have failed", func(p *corev1.Pod) bool {
		return waiting(p, "PostStartHookError") && p.Status.ContainerStatuses[0].LastTerminationState.Terminated != nil
	})
	n.runtime.Put("what it needs", true)
	p := n.eventually("a", "running", running)
	if p.Status.ContainerStatuses[0].RestartCount == 0 {
		t.Errorf("the same container runs on: %+v", p.Status.ContainerStatuses[0])
	}
}

func TestAHookThatNeverEndsDoesNotHoldUpDeletion(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", func(p *corev1.Pod) {
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"await", "never"}}}}
	}))
	n.eventually("a", "waiting for its hook", func(*corev1.Pod) bool { return n.runtime.Containers()["app"] != "" })
	n.remove("a", 5)
	n.eventually("a", "gone", func(p *corev1.Pod) bool { return p == nil })
}

func TestAnEphemeralContainerJoinsItsTarget(t *testing.T) {
	n := newNode(t)
	n.create(pod("a", nil))
	p := n.eventually("a", "running", running)
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		TargetContainerName:      "app",
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "look", Image: image, Command: []string{"sleep"}},
	}}
	if _, err := n.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	p = n.eventually("a", "looked into", func(p *corev1.Pod) bool {
		return running(p) && len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Running != nil
	})
	ns := n.runtime.Config("look").Linux.SecurityContext.NamespaceOptions
	if want := "critest://" + ns.TargetId; ns.Pid != runtimeapi.NamespaceMode_TARGET || p.Status.ContainerStatuses[0].ContainerID != want {
		t.Errorf("namespaces %v, want the target %s", ns, want)
	}
	if err := n.runtime.Crash("look", 1); err != nil {
		t.Fatal(err)
	}
	p = n.eventually("a", "looked into no more", func(p *corev1.Pod) bool { return p.Status.EphemeralContainerStatuses[0].State.Terminated != nil })
	if !running(p) {
		t.Errorf("status %+v", p.Status)
	}
}

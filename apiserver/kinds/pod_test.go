package kinds_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/apiserver/kinds"
)

func TestPodLineSaysWhatKeepsItFromRunning(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	ago := metav1.NewTime(time.Now().Add(-150*time.Minute - 30*time.Second))
	for _, tc := range []struct {
		rule   string
		change func(p *corev1.Pod)
		want   []any // READY STATUS RESTARTS
	}{
		{"pending before anything is known", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, []any{"0/1", "Pending", "0"}},
		{"running", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Ready: true, State: running}}}
		}, []any{"1/1", "Running", "0"}},
		{"the first init container runs", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i"}, {Name: "j"}}
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", State: running}, {Name: "j"}}}
		}, []any{"0/1", "Init:0/2", "0"}},
		{"an init container failed", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i"}}
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{{Name: "i", RestartCount: 2, State: ended(1, "")}}}
		}, []any{"0/1", "Init:ExitCode:1", "2"}},
		{"a sidecar counts as a container", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: &always}}
			started := true
			p.Status = corev1.PodStatus{
				Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Ready: true, State: running}},
				InitContainerStatuses: []corev1.ContainerStatus{{Name: "s", Ready: true, Started: &started, State: running, RestartCount: 1}},
			}
		}, []any{"2/2", "Running", "1"}},
		{"a crash loop with its last restart", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
				RestartCount: 3, State: waiting("CrashLoopBackOff"),
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: ago}},
			}}}
		}, []any{"0/1", "CrashLoopBackOff", "3 (150m ago)"}},
		{"completed", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: []corev1.ContainerStatus{{State: ended(0, "Completed")}}}
		}, []any{"0/1", "Completed", "0"}},
		{"completed beside a running one is running", func(p *corev1.Pod) {
			p.Spec.Containers = make([]corev1.Container, 2)
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{ready}, ContainerStatuses: []corev1.ContainerStatus{
				{State: ended(0, "Completed")}, {Ready: true, State: running},
			}}
		}, []any{"1/2", "Running", "0"}},
		{"killed by a signal", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{
				State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Signal: 9, ExitCode: 137}},
			}}}
		}, []any{"0/1", "Signal:9", "0"}},
		{"terminating", func(p *corev1.Pod) { p.DeletionTimestamp, p.Status.Phase = &ago, corev1.PodRunning }, []any{"0/1", "Terminating", "0"}},
		{"its node is lost", func(p *corev1.Pod) { p.DeletionTimestamp, p.Status.Reason = &ago, "NodeLost" }, []any{"0/1", "Unknown", "0"}},
		{"evicted", func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, []any{"0/1", "Evicted", "0"}},
		{"gated", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: corev1.PodReasonSchedulingGated}}
		}, []any{"0/1", "SchedulingGated", "0"}},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
			tc.change(p)
			if d := cmp.Diff(tc.want, kinds.Pod().Row(p)[:3]); d != "" {
				t.Errorf("cells (-want +got):\n%s", d)
			}
		})
	}
}

func TestWideColumnsOfPods(t *testing.T) {
	p := &corev1.Pod{
		Spec: corev1.PodSpec{NodeName: "n", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}},
		Status: corev1.PodStatus{
			PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, Conditions: []corev1.PodCondition{{Type: "a", Status: corev1.ConditionTrue}},
		},
	}
	want := []any{"<unknown>", "10.0.0.1", "n", "<none>", "1/2"}
	if d := cmp.Diff(want, kinds.Pod().Row(p)[3:]); d != "" {
		t.Errorf("cells (-want +got):\n%s", d)
	}
}

func TestQualityOfService(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
	full := corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")}
	for want, containers := range map[corev1.PodQOSClass][]corev1.ResourceRequirements{
		corev1.PodQOSBestEffort: {{}, {}},
		corev1.PodQOSGuaranteed: {full, full},
		corev1.PodQOSBurstable:  {full, {}},
	} {
		p := &corev1.Pod{}
		for _, r := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: r})
		}
		kinds.Pod().Strategy.PrepareCreate(t.Context(), p)
		if p.Status.QOSClass != want || p.Status.Phase != corev1.PodPending || p.Generation != 1 {
			t.Errorf("got %s, %s, generation %d; want %s, Pending, 1", p.Status.QOSClass, p.Status.Phase, p.Generation, want)
		}
	}
}

func TestGraceOfPods(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		pod    corev1.Pod
		asked  *int64
		wanted int64
	}{
		{"the spec's time", corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}, nil, 30},
		{"the deletion's time", corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}, new(int64), 0},
		{"none without a node", corev1.Pod{}, nil, 0},
		{"none when it is over", corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodFailed}}, nil, 0},
	} {
		thirty := int64(30)
		tc.pod.Spec.TerminationGracePeriodSeconds = &thirty
		o := &metav1.DeleteOptions{GracePeriodSeconds: tc.asked}
		if graceful := kinds.Pod().Grace(t.Context(), &tc.pod, o); !graceful || *o.GracePeriodSeconds != tc.wanted {
			t.Errorf("%s: got %v and %d s, want %d s", tc.rule, graceful, *o.GracePeriodSeconds, tc.wanted)
		}
	}
}

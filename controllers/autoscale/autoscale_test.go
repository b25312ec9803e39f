package autoscale_test

import (
	"fmt"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/autoscale"
)

var now = time.Unix(100000, 0)

func pods(n int, young int) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range n {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
		since := now.Add(-time.Hour)
		if i < young {
			since = now.Add(-10 * time.Second)
		}
		p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &metav1.Time{Time: since}
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(since)}}
		out = append(out, p)
	}
	return out
}

func TestPropose(t *testing.T) {
	metric := &autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: "cpu", Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32(50))},
	}}
	for _, row := range []struct {
		name  string
		young int
		used  []string // "": no figure
		want  int32
	}{
		{"twice the goal", 0, []string{"1", "1", "1"}, 6},
		{"half of it", 0, []string{"250m", "250m", "250m", "250m"}, 2},
		{"nearly right is right", 0, []string{"520m", "530m", "510m"}, 3},
		{"a pod without figures holds growth back", 0, []string{"1", "1", ""}, 4},
		{"and shrinking", 0, []string{"100m", "100m", ""}, 3},
		{"a young pod's heat is not believed", 1, []string{"1", "500m", "500m"}, 3},
	} {
		figures := map[string]autoscale.Figure{}
		for i, u := range row.used {
			if u != "" {
				figures[fmt.Sprintf("p%d", i)] = autoscale.Figure{"c": {"cpu": resource.MustParse(u)}}
			}
		}
		got, err := autoscale.Propose(metric, int32(len(row.used)), pods(len(row.used), row.young), figures, now)
		if err != nil || got.Replicas != row.want {
			t.Errorf("%s: %d %v, want %d", row.name, got.Replicas, err, row.want)
		}
	}
	if _, err := autoscale.Propose(metric, 1, pods(1, 0), nil, now); err == nil {
		t.Error("without any figure something is proposed")
	}
}

func TestBehave(t *testing.T) {
	var m autoscale.Memory
	do := func(after time.Duration, current, asked, want int32) {
		t.Helper()
		at := now.Add(after)
		n, why := autoscale.Behave(&m, nil, current, asked, 1, 50, at)
		if n != want {
			t.Errorf("after %v at %d, asked for %d: %d (%s), want %d", after, current, asked, n, why, want)
		}
		m.Scaled(current, n, at)
	}
	do(0, 2, 20, 6)                  // four pods in 15 s
	do(5*time.Second, 6, 20, 6)      // no more within the period
	do(20*time.Second, 6, 20, 12)    // then twice as many
	do(40*time.Second, 12, 20, 20)   //
	do(60*time.Second, 20, 2, 20)    // calm for five minutes
	do(300*time.Second, 20, 3, 20)   //
	do(345*time.Second, 20, 2, 3)    // then the highest of the window
	do(1000*time.Second, 3, 500, 7)  //
	do(1100*time.Second, 40, 99, 50) // the bound holds
}

func TestDisabledDirectionDoesNotMove(t *testing.T) {
	off := autoscalingv2.DisabledPolicySelect
	b := &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{SelectPolicy: &off, StabilizationWindowSeconds: new(int32)}}
	if n, why := autoscale.Behave(&autoscale.Memory{}, b, 5, 1, 1, 9, now); n != 5 || why != "ScaleDownLimit" {
		t.Errorf("%d %s", n, why)
	}
}

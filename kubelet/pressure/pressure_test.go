package pressure_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/kubelet/pressure"
)

func TestThresholdsAreReadAsKubeletConfigurationWritesThem(t *testing.T) {
	got, err := pressure.Parse(map[string]string{"memory.available": "200Mi", "nodefs.available": "12.5%", "pid.available": "0"})
	want := []pressure.Threshold{{Signal: pressure.Memory, Amount: 200 << 20}, {Signal: pressure.NodeDisk, Percent: 12.5}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, value := range map[string]string{"disk.available": "1%", "memory.available": "much", "nodefs.available": "101%", "pid.available": "-1"} {
		if _, err := pressure.Parse(map[string]string{name: value}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

func TestAConditionOutlastsItsShortage(t *testing.T) {
	var m pressure.Monitor
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	have := map[pressure.Signal]pressure.Sample{
		pressure.Memory:   {Available: 200 << 20, Capacity: 1 << 30},
		pressure.NodeDisk: {Available: 9, Capacity: 100},
	}
	short := m.Observe(pressure.Defaults(), now, have)
	if len(short) != 1 || short[0].Threshold.Signal != pressure.NodeDisk {
		t.Fatalf("short: %v", short)
	}
	have[pressure.Memory] = pressure.Sample{Available: 99 << 20, Capacity: 1 << 30}
	if short = m.Observe(pressure.Defaults(), now, have); len(short) != 2 || short[0].Threshold.Signal != pressure.Memory {
		t.Errorf("memory is not the most pressing: %v", short)
	}
	if got := m.Conditions(now); !slices.Equal(got, []corev1.NodeConditionType{corev1.NodeDiskPressure, corev1.NodeMemoryPressure}) {
		t.Errorf("conditions %v", got)
	}
	have[pressure.NodeDisk] = pressure.Sample{Available: 10, Capacity: 100}
	have[pressure.Memory] = pressure.Sample{Available: 100 << 20, Capacity: 1 << 30}
	if short = m.Observe(pressure.Defaults(), now.Add(time.Minute), have); len(short) != 0 {
		t.Errorf("still short: %v", short)
	}
	if got := m.Conditions(now.Add(pressure.Transition - 1)); len(got) != 2 {
		t.Errorf("conditions that come and go: %v", got)
	}
	if got := m.Conditions(now.Add(pressure.Transition)); len(got) != 0 {
		t.Errorf("conditions stay: %v", got)
	}
}

func usage(name string, priority int32, used, requested int64) pressure.Usage {
	return pressure.Usage{
		Pod:  &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority}},
		Used: used, Requested: requested,
	}
}

func TestWhoStaysWithinHisRequestGoesLast(t *testing.T) {
	for _, c := range []struct {
		rule string
		r    corev1.ResourceName
		pods []pressure.Usage
		want string
	}{
		{rule: "above the request before below", pods: []pressure.Usage{usage("within", 0, 90, 100), usage("above", 50, 11, 10)}, want: "above"},
		{rule: "then by priority", pods: []pressure.Usage{usage("low", 1, 11, 10), usage("high", 2, 99, 10)}, want: "low"},
		{rule: "then who is furthest above", pods: []pressure.Usage{usage("some", 1, 20, 10), usage("most", 1, 40, 10)}, want: "most"},
		{rule: "process ids know no requests", r: "pids", pods: []pressure.Usage{usage("many", 5, 900, 0), usage("low", 1, 2, 0)}, want: "low"},
		{rule: "critical pods never", pods: []pressure.Usage{usage("system", 2_000_000_000, 900, 0)}},
	} {
		if c.r == "" {
			c.r = corev1.ResourceMemory
		}
		got := ""
		if u := pressure.Next(c.r, c.pods); u != nil {
			got = u.Pod.Name
		}
		if got != c.want {
			t.Errorf("%s: %q goes, want %q", c.rule, got, c.want)
		}
		slices.Reverse(c.pods)
		if u := pressure.Next(c.r, c.pods); u != nil && u.Pod.Name != c.want {
			t.Errorf("%s: the order decides", c.rule)
		}
	}
}

func TestTheMessageNamesWhatWasShortAndWhoUsedIt(t *testing.T) {
	u := usage("p", 0, 300<<20, 0)
	u.Pod.Spec.Containers = []corev1.Container{{Name: "a"}, {Name: "b"}}
	u.Pod.Spec.Containers[1].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("200Mi")}
	u.Containers = map[string]int64{"": 300 << 20, "a": 150 << 20, "b": 150 << 20}
	got := pressure.Message(pressure.Short{
		Threshold: pressure.Threshold{Signal: pressure.Memory, Amount: 100 << 20}, Sample: pressure.Sample{Available: 64 << 20, Capacity: 1 << 30},
	}, &u)
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. Container a was using 150Mi, request is 0, has larger consumption of memory. "
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestANodeUnderPressureRefusesPods(t *testing.T) {
	memory, disk := []corev1.NodeConditionType{corev1.NodeMemoryPressure}, []corev1.NodeConditionType{corev1.NodeDiskPressure}
	system, plain := int32(2_000_001_000), &corev1.Pod{}
	tolerant := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists}}}}
	for _, c := range []struct {
		rule       string
		under      []corev1.NodeConditionType
		pod        *corev1.Pod
		bestEffort bool
		want       string
	}{
		{rule: "none", pod: plain, bestEffort: true},
		{rule: "memory, and the pod asked for nothing", under: memory, pod: plain, bestEffort: true, want: "The node had condition: [MemoryPressure]. "},
		{rule: "memory, and the pod asked for some", under: memory, pod: plain},
		{rule: "memory, tolerated", under: memory, pod: tolerant, bestEffort: true},
		{rule: "disk", under: disk, pod: plain, want: "The node had condition: [DiskPressure]. "},
		{rule: "a critical pod", under: disk, pod: &corev1.Pod{Spec: corev1.PodSpec{Priority: &system}}},
	} {
		if got := pressure.Refuses(c.under, c.pod, c.bestEffort); got != c.want {
			t.Errorf("%s: %q, want %q", c.rule, got, c.want)
		}
	}
}

func TestTheLongestUnusedImageGoesFirst(t *testing.T) {
	var m pressure.Images
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	all := []pressure.Image{{ID: "pinned", Pinned: true}, {ID: "used", InUse: true}, {ID: "lately", InUse: true}, {ID: "never"}}
	m.Look(all, now)
	all[2].InUse = false
	all = append(all, pressure.Image{ID: "new"})
	m.Look(all, now.Add(pressure.MinAge))
	var got []string
	for _, i := range m.Unused(all, now.Add(pressure.MinAge)) {
		got = append(got, i.ID)
	}
	if !slices.Equal(got, []string{"never", "lately"}) {
		t.Errorf("got %v", got)
	}
	if n := pressure.Excess(pressure.Sample{Available: 16, Capacity: 100}, pressure.High); n != 0 {
		t.Errorf("84 %% used: %d to free", n)
	}
	if n := pressure.Excess(pressure.Sample{Available: 10, Capacity: 100}, 100); n != 0 {
		t.Errorf("with a high mark of 100: %d bytes in excess", n)
	}
	if n := pressure.Excess(pressure.Sample{Available: 10, Capacity: 100}, pressure.High); n != 10 {
		t.Errorf("90 %% used: %d to free, want 10", n)
	}
}

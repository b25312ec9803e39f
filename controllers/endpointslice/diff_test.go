package endpointslice_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"skein.dev/skein/controllers/endpointslice"
)

func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default", UID: "s"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}},
		},
	}
}

func pod(i int, ready bool) *corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	ip := fmt.Sprintf("10.0.%d.%d", i/200, 1+i%200)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), Namespace: "default", UID: types.UID(fmt.Sprintf("p%d", i))},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}},
		},
	}
}

func zone(string) string { return "z1" }

// apply is what the API would hold after the changes.
func apply(have []*discoveryv1.EndpointSlice, ch endpointslice.Changes, serial *int) []*discoveryv1.EndpointSlice {
	byName := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		byName[s.Name] = s
	}
	for _, s := range ch.Update {
		byName[s.Name] = s
	}
	for _, s := range ch.Delete {
		delete(byName, s.Name)
	}
	for _, s := range ch.Create {
		*serial++
		s.Name = fmt.Sprintf("s-%d", *serial)
		byName[s.Name] = s
	}
	var out []*discoveryv1.EndpointSlice
	for _, s := range byName {
		out = append(out, s)
	}
	return out
}

// TestSlicesSayExactlyWhichPodsThereAre lets random pods come and go.
func TestSlicesSayExactlyWhichPodsThereAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var have []*discoveryv1.EndpointSlice
		serial := 0
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			var pods []*corev1.Pod
			from := rapid.IntRange(0, 300).Draw(t, "from")
			for i := range rapid.IntRange(0, 260).Draw(t, "pods") {
				pods = append(pods, pod(from+i, i%3 > 0))
			}
			groups := endpointslice.Groups(service(), pods, zone)
			have = apply(have, endpointslice.Diff(service(), have, groups), &serial)
			seen := map[string]bool{}
			for _, s := range have {
				if len(s.Endpoints) > endpointslice.MaxEndpoints {
					t.Fatalf("a slice has %d endpoints", len(s.Endpoints))
				}
				for _, e := range s.Endpoints {
					if seen[e.Addresses[0]] {
						t.Fatalf("%s is there twice", e.Addresses[0])
					}
					seen[e.Addresses[0]] = true
				}
			}
			if len(seen) != len(pods) {
				t.Fatalf("%d endpoints for %d pods", len(seen), len(pods))
			}
			if len(have) == 0 {
				t.Fatal("no slice at all: readers would not know that the service was looked at")
			}
			again := endpointslice.Diff(service(), have, groups)
			if len(again.Create)+len(again.Update)+len(again.Delete) > 0 {
				t.Fatalf("not stable: %d creates, %d updates, %d deletes", len(again.Create), len(again.Update), len(again.Delete))
			}
		}
	})
}

func TestOnePodRewritesOneSlice(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 250 {
		pods = append(pods, pod(i, true))
	}
	serial := 0
	have := apply(nil, endpointslice.Diff(service(), nil, endpointslice.Groups(service(), pods, zone)), &serial)
	if len(have) != 3 {
		t.Fatalf("%d slices for 250 pods, want 3", len(have))
	}
	pods[7] = pod(7, false)
	ch := endpointslice.Diff(service(), have, endpointslice.Groups(service(), pods, zone))
	if len(ch.Update) != 1 || len(ch.Create)+len(ch.Delete) != 0 {
		t.Errorf("%d updates, %d creates, %d deletes, want one update", len(ch.Update), len(ch.Create), len(ch.Delete))
	}
}

func TestConditionsOfAnEndpoint(t *testing.T) {
	now := metav1.Now()
	leaving := pod(1, true)
	leaving.DeletionTimestamp = &now
	for _, row := range []struct {
		name                        string
		pod                         *corev1.Pod
		publish                     bool
		ready, serving, terminating bool
	}{
		{"a ready pod", pod(1, true), false, true, true, false},
		{"a pod that is not ready", pod(1, false), false, false, false, false},
		{"a pod that is leaving still serves", leaving, false, false, true, true},
		{"publishNotReadyAddresses calls all ready", pod(1, false), true, true, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			svc := service()
			svc.Spec.PublishNotReadyAddresses = row.publish
			e := endpointslice.Groups(svc, []*corev1.Pod{row.pod}, zone)[0].Endpoints[0]
			if *e.Conditions.Ready != row.ready || *e.Conditions.Serving != row.serving || *e.Conditions.Terminating != row.terminating {
				t.Errorf("ready %v serving %v terminating %v", *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
			}
			if *e.NodeName != "n1" || *e.Zone != "z1" {
				t.Errorf("node %s zone %s", *e.NodeName, *e.Zone)
			}
		})
	}
}

func TestDualStackServiceHasAGroupPerFamily(t *testing.T) {
	svc := service()
	svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	groups := endpointslice.Groups(svc, []*corev1.Pod{pod(1, true)}, zone)
	if len(groups) != 2 {
		t.Fatalf("%d groups", len(groups))
	}
	for _, g := range groups {
		if want := map[discoveryv1.AddressType]int{discoveryv1.AddressTypeIPv4: 1, discoveryv1.AddressTypeIPv6: 0}[g.Type]; len(g.Endpoints) != want {
			t.Errorf("%s has %d endpoints, want %d", g.Type, len(g.Endpoints), want)
		}
	}
}

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func leader(t *testing.T) string {
	t.Helper()
	for _, p := range peers {
		if m, err := meshStatus(t.Context(), client(t, p)); err == nil && m.Leaders.Store != "" {
			return m.Leaders.Store
		}
	}
	t.Fatal("no peer knows a store leader")
	return ""
}

func writeMap(ctx context.Context, c *kubernetes.Clientset, name string) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"e2e": "faults"}},
	}, metav1.CreateOptions{})
}

func removeMaps(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { kubectl(t, "delete", "configmap", "-l", "e2e=faults", "--ignore-not-found") })
}

// restart brings a killed peer back at the end of a test.
func restart(t *testing.T, name string) {
	t.Helper()
	skein(t, "lab", "start", name)
	healthy(t)
}

func TestLossOfTheStoreLeaderKeepsWritesWatchesAndPodsGoing(t *testing.T) {
	deployHello(t)
	removeMaps(t)
	ip := helloAddress(t)
	lost := leader(t)
	alive := others(lost)
	first, second := client(t, alive[0]), client(t, alive[1])

	w, err := first.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{LabelSelector: "e2e=faults"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()

	skein(t, "lab", "kill", lost)
	t.Cleanup(func() { restart(t, lost) })
	write := eventually(t, "a write after the leader's death", 10*time.Second, func() error {
		_, err := writeMap(t.Context(), second, fmt.Sprintf("after-%d", time.Now().UnixNano()))
		return err
	})
	t.Logf("next write %v after the kill returned (goal 3 s)", write)

	var want []string
	for i := range 50 {
		cm, err := writeMap(t.Context(), second, fmt.Sprintf("row-%02d", i))
		if err != nil {
			t.Fatalf("write %d after the new leader was found: %v", i, err)
		}
		want = append(want, cm.Name+"@"+cm.ResourceVersion)
	}
	checkWatch(t, w.ResultChan(), want)

	moved := eventually(t, "three hello pods Ready on the survivors", 60*time.Second, func() error {
		pods, err := first.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "app=hello"})
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods.Items {
			if p.Spec.NodeName != lost && p.DeletionTimestamp == nil && isReady(&p) {
				ready++
			}
		}
		if ready != 3 {
			return fmt.Errorf("%d are Ready", ready)
		}
		return nil
	})
	t.Logf("pods Ready elsewhere %v after the writes (goal 15 s after the kill)", moved)

	eventually(t, "the survivors to call the lost peer dead", 60*time.Second, func() error {
		for _, c := range []*kubernetes.Clientset{first, second} {
			if err := knownDead(t.Context(), c, lost); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 20 {
		for _, p := range alive {
			if err := askFrom(p, ip); err != nil {
				t.Errorf("request %d from %s after the dead peer's endpoints were removed: %v", i, p, err)
			}
		}
	}
}

// knownDead is nil when a peer holds the named one for dead.
func knownDead(ctx context.Context, c *kubernetes.Clientset, name string) error {
	m, err := meshStatus(ctx, c)
	if err != nil {
		return err
	}
	for _, p := range m.Peers {
		if p.Name == name && p.Health != "Dead" {
			return fmt.Errorf("%s is %s", name, p.Health)
		}
	}
	return nil
}

// askFrom asks the Service at ip once, from a peer's own network.
func askFrom(peer, ip string) error {
	out, err := trySkein("lab", "exec", peer, "--", "busybox", "timeout", "3", "busybox", "wget", "-qO-", "http://"+ip)
	if err == nil && !strings.Contains(out, "hello-") {
		err = fmt.Errorf("it answered %q", out)
	}
	return err
}

// resolveAt looks the Service's name up at a peer's own DNS.
func resolveAt(peer, ip string) error {
	out, err := trySkein("lab", "exec", peer, "--", "busybox", "nslookup", "hello.default.svc.cluster.local", "10.96.0.10")
	if err == nil && !strings.Contains(out, ip) {
		err = fmt.Errorf("it answered %q", out)
	}
	return err
}

func helloAddress(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// checkWatch reads events until all rows have come and fails on a gap, a
// duplicate, or an ended watch.
func checkWatch(t *testing.T, events <-chan watchEvent, want []string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var got []string
	for len(got) < len(want) {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("the watch ended after %d of %d events", len(got), len(want))
			}
			cm, ok := e.Object.(*corev1.ConfigMap)
			if !ok {
				t.Fatalf("the watch answered %v %v", e.Type, e.Object)
			}
			if strings.HasPrefix(cm.Name, "row-") {
				got = append(got, cm.Name+"@"+cm.ResourceVersion)
			}
		case <-deadline:
			t.Fatalf("the watch showed %d of %d events", len(got), len(want))
		}
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("event %d is %s, want %s", i, got[i], want[i])
		}
	}
}

func TestACutPeerRefusesWhatNeedsTheQuorumAndServesTheRest(t *testing.T) {
	deployHello(t)
	removeMaps(t)
	ip := helloAddress(t)
	cut := others(leader(t))[0]
	c := client(t, cut)
	skein(t, "lab", "cut", cut)
	healed := false
	t.Cleanup(func() {
		if !healed {
			skein(t, "lab", "heal")
		}
		healthy(t)
	})

	eventually(t, "the cut peer to know it has no quorum", 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := c.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return errors.New("a consistent read was answered")
		}
		if !apierrors.IsServiceUnavailable(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsTimeout(err) {
			return fmt.Errorf("the refusal is unclear: %w", err)
		}
		return nil
	})
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "lost", Labels: map[string]string{"e2e": "faults"}},
	}, metav1.CreateOptions{}); err == nil {
		t.Error("a write was acknowledged without a quorum")
	}
	list, err := c.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{ResourceVersion: "0", LabelSelector: "app=hello"})
	if err != nil || len(list.Items) != 3 {
		t.Errorf("a read at resourceVersion 0 gave %v, %v, want the three pods", list, err)
	}

	if err := resolveAt(cut, ip); err != nil {
		t.Errorf("DNS on the cut peer: %v", err)
	}
	eventually(t, "the service on the cut peer", 30*time.Second, func() error { return askFrom(cut, ip) })

	other := client(t, others(cut)[0])
	if _, err := writeMap(t.Context(), other, "while-cut"); err != nil {
		t.Errorf("the majority refused a write: %v", err)
	}
	skein(t, "lab", "heal")
	healed = true
	eventually(t, "the healed peer to catch up", 30*time.Second, func() error {
		_, err := c.CoreV1().ConfigMaps("default").Get(t.Context(), "while-cut", metav1.GetOptions{ResourceVersion: "0"})
		return err
	})
	if _, err := c.CoreV1().ConfigMaps("default").Get(t.Context(), "lost", metav1.GetOptions{}); err == nil {
		t.Log("the write that got no acknowledgement was applied later, which it may")
	}
}

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

type watchEvent = watch.Event

// containers are the ids of all hello containers.
func containers(t *testing.T) string {
	t.Helper()
	return kubectl(t, "get", "pods", "-l", "app=hello", "-o",
		"jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}\n{end}")
}

func TestAKilledDaemonLeavesItsContainersAlone(t *testing.T) {
	deployHello(t)
	before := containers(t)
	skein(t, "lab", "kill", "p2", "--daemon-only")
	healthy(t)
	if after := containers(t); after != before {
		t.Errorf("containers changed:\nbefore\n%s\nafter\n%s", before, after)
	}
	if _, err := ask(); err != nil {
		t.Errorf("the service does not answer after the restart: %v", err)
	}
}

func TestNoAcknowledgedWriteIsLostWhenAllPeersDie(t *testing.T) {
	healthy(t)
	removeMaps(t)
	c := client(t, "p1")
	var acknowledged []string
	for i := range 100 {
		cm, err := writeMap(t.Context(), c, fmt.Sprintf("kept-%03d", i))
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, cm.Name)
	}
	for _, p := range peers {
		skein(t, "lab", "kill", p)
	}
	for _, p := range peers {
		skein(t, "lab", "start", p)
	}
	healthy(t)
	list, err := client(t, "p2").CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{LabelSelector: "e2e=faults"})
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, cm := range list.Items {
		have[cm.Name] = true
	}
	for _, name := range acknowledged {
		if !have[name] {
			t.Errorf("acknowledged write %s is lost", name)
		}
	}
}

func TestAPeerRestartedWithoutQuorumKeepsItsPodsRulesAndNames(t *testing.T) {
	deployHello(t)
	node := strings.TrimSpace(kubectl(t, "get", "pod", "client", "-o", "jsonpath={.spec.nodeName}"))
	ip := helloAddress(t)
	const ofNode = `jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID}{"\n"}{end}`
	before := kubectl(t, "get", "pods", "--field-selector", "spec.nodeName="+node, "-o", ofNode)
	for _, p := range others(node) {
		skein(t, "lab", "kill", p)
	}
	t.Cleanup(func() {
		for _, p := range others(node) {
			skein(t, "lab", "start", p)
		}
		healthy(t)
		if after := kubectl(t, "get", "pods", "--field-selector", "spec.nodeName="+node, "-o", ofNode); !strings.Contains(after, before) {
			t.Errorf("containers of %s changed:\nbefore\n%s\nafter\n%s", node, before, after)
		}
	})
	skein(t, "lab", "kill", node, "--daemon-only")
	c := client(t, node)
	eventually(t, "the lone peer to serve what it knows", 60*time.Second, func() error {
		list, err := c.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		if len(list.Items) < 4 {
			return fmt.Errorf("%d pods are known", len(list.Items))
		}
		return nil
	})
	eventually(t, "the service's rules on the lone peer", 60*time.Second, func() error { return askFrom(node, ip) })
	eventually(t, "names on the lone peer", 60*time.Second, func() error { return resolveAt(node, ip) })
}

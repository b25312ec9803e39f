package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// deployHello applies the example and waits until it answers; it goes with
// the test.
func deployHello(t *testing.T) {
	t.Helper()
	healthy(t)
	kubectl(t, "apply", "-f", "../../examples/hello")
	t.Cleanup(func() {
		kubectl(t, "delete", "-f", "../../examples/hello", "--ignore-not-found", "--wait=true", "--timeout=90s")
	})
	kubectl(t, "rollout", "status", "deployment/hello", "--timeout=90s")
	skein(t, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s") // kubectl's verbs also without its name
}

func helloPods(t *testing.T) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].metadata.name}"))
}

// ask asks the Service by its name from the client pod.
func ask() (string, error) {
	out, err := trySkein("kubectl", "exec", "client", "--", "wget", "-qO-", "http://hello.default.svc.cluster.local")
	return strings.TrimSpace(out), err
}

func TestHelloRunsSpreadAndEveryReplicaAnswers(t *testing.T) {
	deployHello(t)
	nodes := strings.Fields(kubectl(t, "get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].spec.nodeName}"))
	slices.Sort(nodes)
	if !slices.Equal(nodes, peers) {
		t.Errorf("hello runs on %v, want one on each of %v", nodes, peers)
	}
	ips := strings.Fields(kubectl(t, "get", "pods", "-l", "app=hello", "-o", "jsonpath={.items[*].status.podIP}"))
	slices.Sort(ips)
	if len(slices.Compact(ips)) != 3 {
		t.Errorf("pod IPs %v, want three different ones", ips)
	}
	missing := map[string]bool{}
	for _, p := range helloPods(t) {
		missing[p] = true
	}
	eventually(t, "an answer of every replica", 60*time.Second, func() error {
		answer, err := ask()
		if err != nil {
			return err
		}
		for p := range missing {
			if strings.Contains(answer, p) {
				delete(missing, p)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("no answer yet of %v; last %q", missing, answer)
		}
		return nil
	})
	if logs := kubectl(t, "logs", "deploy/hello"); logs == "" {
		t.Error("kubectl logs shows nothing of a server that was asked")
	}
}

func TestARollingUpdateNeverLeavesTheServiceWithoutAnAnswer(t *testing.T) {
	deployHello(t)
	before := helloPods(t)
	kubectl(t, "set", "env", "deployment/hello", "ROUND=2")
	stop, failures := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failures)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := ask(); err != nil {
				failures <- err
				return
			}
		}
	}()
	kubectl(t, "rollout", "status", "deployment/hello", "--timeout=120s")
	close(stop)
	if err := <-failures; err != nil {
		t.Errorf("the service failed during the roll-out: %v", err)
	}
	eventually(t, "old pods gone", 60*time.Second, func() error {
		for _, p := range helloPods(t) {
			if slices.Contains(before, p) {
				return fmt.Errorf("pod %s is still there", p)
			}
		}
		return nil
	})
	kubectl(t, "rollout", "undo", "deployment/hello")
	kubectl(t, "rollout", "status", "deployment/hello", "--timeout=120s")
	if env := kubectl(t, "get", "deployment", "hello", "-o", "jsonpath={.spec.template.spec.containers[0].env[?(@.name=='ROUND')].value}"); env != "" {
		t.Errorf("after undo ROUND is %q, want it gone", env)
	}
}

func TestANamespaceGoesWithAllInIt(t *testing.T) {
	healthy(t)
	kubectl(t, "create", "namespace", "brief")
	eventually(t, "default service account", 30*time.Second, func() error {
		_, err := trySkein("kubectl", "get", "serviceaccount", "default", "-n", "brief")
		return err
	})
	kubectl(t, "create", "configmap", "kept", "--from-literal=a=b", "-n", "brief")
	kubectl(t, "create", "deployment", "idle", "--image=skein.dev/examples/busybox:1", "-n", "brief", "--", "sleep", "3600")
	kubectl(t, "rollout", "status", "deployment/idle", "-n", "brief", "--timeout=90s")
	kubectl(t, "delete", "namespace", "brief", "--timeout=120s")
	for _, kind := range []string{"configmap", "deployment", "pod", "replicaset"} {
		if out := kubectl(t, "get", kind, "-n", "brief", "-o", "name"); out != "" {
			t.Errorf("of %s there is still %s", kind, out)
		}
	}
}

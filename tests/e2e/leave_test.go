package e2e_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// labPeer is what the lab knows of one of its peers.
type labPeer struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Dir     string `json:"dir"`
	Cgroup  string `json:"cgroup"`
}

func ofLab(t *testing.T, name string) labPeer {
	t.Helper()
	var s struct{ Peers []labPeer }
	if err := json.Unmarshal([]byte(skein(t, "lab", "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Peers {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("the lab has no %s", name)
	return labPeer{}
}

func TestAPeerLeavesInOrderAndItsMachineJoinsAnew(t *testing.T) {
	deployHello(t)
	p := ofLab(t, "p3")
	on := func(args ...string) { skein(t, append([]string{"lab", "exec", "p3", "--", lab.bin}, args...)...) }

	on("leave", "--data-dir", p.Dir)
	if nodes := kubectl(t, "get", "nodes", "-o", "name"); strings.Contains(nodes, "p3") {
		t.Errorf("the node of a peer that left is still there: %s", nodes)
	}
	c := client(t, "p1")
	eventually(t, "three hello pods on the two that stay", 60*time.Second, func() error {
		out := kubectl(t, "get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}")
		if out != "3" {
			return fmt.Errorf("%s are ready", out)
		}
		return nil
	})
	m, err := meshStatus(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Quorum {
		t.Error("two peers of which one left in order have no quorum")
	}

	on("reset", "--yes", "--data-dir", p.Dir)
	token := strings.TrimSpace(skein(t, "token", "create"))
	on("join", ofLab(t, "p1").Address+":6443", "--token", token, "--name", p.Name, "--address", p.Address,
		"--data-dir", p.Dir, "--state-dir", filepath.Join(p.Dir, "run"), "--kubeconfig-out", filepath.Join(p.Dir, "kubeconfig.yaml"),
		"--cgroup-parent", p.Cgroup, "--detach")
	for _, image := range []string{"hello", "busybox"} {
		path, err := filepath.Abs("../../build/images/" + image + ".tar")
		if err != nil {
			t.Fatal(err)
		}
		on("image", "import", "--data-dir", p.Dir, path)
	}
	healthy(t)
}

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// refused runs skein and returns what it said; it fails the test if the
// command succeeds.
func refused(t *testing.T, args ...string) string {
	t.Helper()
	out, err := trySkein(args...)
	if err == nil {
		t.Fatalf("skein %s succeeded: %s", strings.Join(args, " "), out)
	}
	return err.Error()
}

// joinFromP1 tries to make a further peer on p1's machine.
func joinFromP1(t *testing.T, token string) string {
	t.Helper()
	dir := t.TempDir()
	said := refused(t, "lab", "exec", "p1", "--", lab.bin, "join", "198.18.0.12:6443", "--token", token,
		"--name", "p9", "--address", "198.18.0.11", "--port", "7443", "--node-port", "7250", "--guard-port", "7444",
		"--data-dir", filepath.Join(dir, "d"), "--state-dir", filepath.Join(dir, "s"), "--kubeconfig-out", filepath.Join(dir, "k"))
	left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("a refused join left %v (%v)", left, err)
	}
	if peers := kubectl(t, "get", "peers.mesh.skein.dev", "-o", "name"); strings.Contains(peers, "p9") {
		t.Errorf("a refused joiner is on record: %s", peers)
	}
	return said
}

func wantWords(t *testing.T, said string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("it says %q, want %q in it", said, w)
		}
	}
}

func TestATokenThatIsWrongExpiredOrAnothersOpensNothing(t *testing.T) {
	healthy(t)
	good := strings.TrimSpace(skein(t, "token", "create", "--ttl", "2s"))
	parts := strings.Split(good, ".")

	wrong := strings.Join([]string{parts[0], parts[1], "aaaaaaaaaaaaaaaa", parts[3]}, ".")
	wantWords(t, joinFromP1(t, wrong), "token is not known here", "skein token create")

	eventually(t, "the token to expire", 20*time.Second, func() error {
		if out, err := trySkein("token", "list"); err != nil || !strings.Contains(out, "(expired)") {
			return errString("not expired yet: " + out)
		}
		return nil
	})
	wantWords(t, joinFromP1(t, good), "token has expired", "skein token create")

	foreign := strings.Join([]string{parts[0], parts[1], parts[2], strings.Repeat("ab", 32)}, ".")
	wantWords(t, joinFromP1(t, foreign), "not of the token's cluster")

	skein(t, "token", "revoke", parts[1])
	if out := skein(t, "token", "list", "-o", "json"); strings.Contains(out, parts[1]) {
		t.Errorf("a revoked token is listed: %s", out)
	}
	wantWords(t, refused(t, "token", "revoke", parts[1]), "there is none", "skein token list")
}

type errString string

func (e errString) Error() string { return string(e) }

func TestASecondUpAndAPortInUseAreRefused(t *testing.T) {
	healthy(t)
	dir := filepath.Join(lab.dir, "p1")
	wantWords(t, refused(t, "lab", "exec", "p1", "--", lab.bin, "up", "--name", "p1", "--data-dir", dir, "--address", "198.18.0.11"),
		"it already holds the peer p1", "skein start")
	wantWords(t, refused(t, "lab", "exec", "p1", "--", lab.bin, "start", "--data-dir", dir), "it runs already")
	fresh := t.TempDir()
	wantWords(t, refused(t, "lab", "exec", "p1", "--", lab.bin, "up", "--name", "other", "--data-dir", filepath.Join(fresh, "d"),
		"--state-dir", filepath.Join(fresh, "s"), "--kubeconfig-out", filepath.Join(fresh, "k"), "--address", "198.18.0.11"),
		"port 6443", "address already in use", "--port")
	if left, _ := os.ReadDir(fresh); len(left) > 0 {
		t.Errorf("a refused up left %v", left)
	}
}

func TestAManifestThatIsWrongGetsKubernetesOwnError(t *testing.T) {
	healthy(t)
	dir := t.TempDir()
	for name, row := range map[string]struct{ manifest, want string }{
		"field": {
			"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, imagee: c}]}\n",
			`strict decoding error: unknown field "spec.containers[0].imagee"`,
		},
		"empty": {
			"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
			`The Pod "a" is invalid: spec.containers: Required value`,
		},
		"selector": {
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {x: one}}, " +
				"template: {metadata: {labels: {x: two}}, spec: {containers: [{name: a, image: b}]}}}\n",
			"spec.template.metadata.labels: Invalid value: {\"x\":\"two\"}: `selector` does not match template `labels`",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".yaml")
			if err := os.WriteFile(path, []byte(row.manifest), 0o600); err != nil {
				t.Fatal(err)
			}
			wantWords(t, refused(t, "kubectl", "apply", "-f", path), row.want)
		})
	}
}

func TestAnImageThatDoesNotExistIsToldInThePod(t *testing.T) {
	healthy(t)
	kubectl(t, "run", "nowhere", "--image=skein.invalid/none:1", "--restart=Never", "--image-pull-policy=Never")
	t.Cleanup(func() { kubectl(t, "delete", "pod", "nowhere", "--now") })
	eventually(t, "the reason in the pod's status", 30*time.Second, func() error {
		out := kubectl(t, "get", "pod", "nowhere", "-o", "jsonpath={.status.containerStatuses[0].state.waiting.reason}")
		if out != "ErrImageNeverPull" {
			return errString("reason " + out)
		}
		return nil
	})
	if line := kubectl(t, "get", "pod", "nowhere"); !strings.Contains(line, "ErrImageNeverPull") {
		t.Errorf("kubectl get shows %s", line)
	}
}

// The machine of this test has its memory controller hidden, as a Raspberry
// Pi's is until it boots with cgroup_enable=memory. What a kernel without
// nftables or overlayfs gets is in tests/vm, where there is such a kernel.
func TestAMissingKernelFeatureIsNamedAndNothingIsMade(t *testing.T) {
	healthy(t)
	dir := t.TempDir()
	hidden := "for m in /sys/fs/cgroup/*memory*; do umount -l $m; done; " // /proc/self/mountinfo no longer has it
	said := refused(t, "lab", "exec", "p1", "--", "unshare", "-m", "--propagation", "private", "sh", "-ec",
		hidden+"exec "+lab.bin+" up --detach --name p9 --address 198.18.0.11 --port 7443 --node-port 7250 --guard-port 7444"+
			" --data-dir "+dir+"/d --state-dir "+dir+"/s --kubeconfig-out "+dir+"/k")
	wantWords(t, said, "no mounted cgroup hierarchy offers memory", "cgroup_enable=memory")
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("a refused peer left %v (%v)", left, err)
	}
}

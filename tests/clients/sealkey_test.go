package clients

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTheMeshsSealingKeyIsReplaced rotates it while one peer is away; that
// one, those that stayed and one that joins later open everything.
func TestTheMeshsSealingKeyIsReplaced(t *testing.T) {
	m := startMesh(t)
	create := func(p *peer, name string) {
		t.Helper()
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"of": name}}
		if _, err := p.client.CoreV1().Secrets("default").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]bool{}
	for i := range 9 {
		name := fmt.Sprint("sealed-", i)
		create(m.peers[i%3], name)
		want[name] = true
	}
	m.stop(m.peers[2])
	out := m.run(m.peers[1].kubeconfig, "sealing-key", "rotate")
	create(m.peers[1], "sealed-new")
	want["sealed-new"] = true
	m.start(m.peers[2])
	token := strings.TrimSpace(m.run(m.peers[0].kubeconfig, "token", "create"))
	m.add("join", fmt.Sprint("127.0.0.1:", m.peers[0].port), "--token", token)
	create(m.peers[2], "sealed-late")
	want["sealed-late"] = true
	if !regexp.MustCompile(`(?m)^\S+ +20\S+ +seals and opens +[1-9]`).MatchString(out) || !regexp.MustCompile(`(?m)^\S+ +with the cluster +opens +0$`).MatchString(out) {
		t.Errorf("rotate says\n%s\nwant that the new key has sealed all", out)
	}
	for _, p := range m.peers {
		eventually(t, p.name+" opens all", func() bool {
			got, err := p.client.CoreV1().Secrets("default").List(context.WithoutCancel(t.Context()), metav1.ListOptions{})
			n := 0
			if err == nil {
				for _, s := range got.Items {
					if want[s.Name] && string(s.Data["of"]) == s.Name {
						n++
					}
				}
			}
			return n == len(want)
		})
	}
}

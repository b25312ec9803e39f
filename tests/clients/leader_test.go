package clients

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// TestLeaderElectionHandsOn lets three candidates, each at a peer of its own,
// elect; each leader ends and the next takes over. Never do two lead.
func TestLeaderElectionHandsOn(t *testing.T) {
	m := startMesh(t)
	var mu sync.Mutex
	leading, order := "", []string{}
	stop := map[string]context.CancelFunc{}
	var wg sync.WaitGroup
	for _, p := range m.peers {
		ctx, cancel := context.WithCancel(t.Context())
		stop[p.name] = cancel
		lock := &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: "flock", Namespace: "default"}, Client: p.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: p.name},
		}
		wg.Go(func() {
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second, ReleaseOnCancel: true,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(ctx context.Context) {
						mu.Lock()
						if leading != "" {
							t.Errorf("%s leads while %s does", p.name, leading)
						}
						leading = p.name
						order = append(order, p.name)
						mu.Unlock()
						<-ctx.Done()
						mu.Lock()
						defer mu.Unlock()
						leading = ""
					},
					OnStoppedLeading: func() {},
				},
			})
		})
	}
	now := func() (string, int) {
		mu.Lock()
		defer mu.Unlock()
		return leading, len(order)
	}
	for n := range 3 {
		eventually(t, "a leader", func() bool { who, had := now(); return who != "" && had == n+1 })
		who, _ := now()
		stop[who]()
		eventually(t, who+" to end", func() bool { other, _ := now(); return other != who })
	}
	wg.Wait()
}

// TestServerSideApplyKeepsOwners applies to each peer what another manager
// owns.
func TestServerSideApplyKeepsOwners(t *testing.T) {
	m := startMesh(t)
	for i, p := range m.peers {
		t.Run(p.name, func(t *testing.T) {
			here, there := p.client.CoreV1().ConfigMaps("default"), m.peers[(i+1)%3].client.CoreV1().ConfigMaps("default")
			mine := corev1apply.ConfigMap("own-"+p.name, "default").WithData(map[string]string{"a": "1", "b": "1"})
			if _, err := here.Apply(t.Context(), mine, metav1.ApplyOptions{FieldManager: "first"}); err != nil {
				t.Fatal(err)
			}
			other := corev1apply.ConfigMap("own-"+p.name, "default").WithData(map[string]string{"b": "2", "c": "2"})
			_, err := there.Apply(t.Context(), other, metav1.ApplyOptions{FieldManager: "second"})
			if !apierrors.IsConflict(err) {
				t.Fatalf("applying a field of another: %v, want a conflict", err)
			}
			if _, err := there.Apply(t.Context(), other, metav1.ApplyOptions{FieldManager: "second", Force: true}); err != nil {
				t.Fatal(err)
			}
			// The first gives up a, and no longer owns b.
			less := corev1apply.ConfigMap("own-"+p.name, "default").WithData(map[string]string{})
			got, err := here.Apply(t.Context(), less, metav1.ApplyOptions{FieldManager: "first"})
			if err != nil {
				t.Fatal(err)
			}
			if _, has := got.Data["a"]; has || got.Data["b"] != "2" || got.Data["c"] != "2" {
				t.Errorf("data %v, want only the second's b and c", got.Data)
			}
			owners(t, got)
		})
	}
}

func owners(t *testing.T, cm *corev1.ConfigMap) {
	t.Helper()
	for _, f := range cm.ManagedFields {
		if f.Manager == "second" && f.Operation == metav1.ManagedFieldsOperationApply {
			return
		}
	}
	t.Errorf("managed fields %v: the second manager is missing", cm.ManagedFields)
}

package run_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"

	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers/run"
)

func configMap(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: version}}
}

// source is a started informer over the given ConfigMaps.
func source(t *testing.T, client *fake.Clientset) cache.SharedIndexInformer {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	inf := factory.Core().V1().ConfigMaps().Informer()
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	return inf
}

func start(t *testing.T, cfg run.Config, progress func()) {
	t.Helper()
	l, err := run.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, role.Fence{Role: role.Controllers, Epoch: 5}, progress) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// seen counts calls by key.
type seen struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *seen) add(k string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n[k]++
	return s.n[k]
}

func (s *seen) get(k string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[k]
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		select {
		case <-t.Context().Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("never came: %s", what)
}

func TestEveryReconcileCarriesTheFence(t *testing.T) {
	client := fake.NewClientset(configMap("a", "1"))
	var got atomic.Value
	start(t, run.Config{Controllers: []run.Controller{{
		Name: "x", Reads: []run.Source{{Informer: source(t, client)}},
		Reconcile: func(ctx context.Context, _ run.Key) (time.Duration, error) {
			f, _ := role.From(ctx)
			got.Store(f)
			return 0, nil
		},
	}}}, nil)
	wait(t, "a reconcile", func() bool { return got.Load() != nil })
	if want := (role.Fence{Role: role.Controllers, Epoch: 5}); got.Load() != want {
		t.Errorf("fence %v, want %v", got.Load(), want)
	}
}

func TestPoisonousObjectIsParkedReportedAndTriedAgainWhenItChanges(t *testing.T) {
	client := fake.NewClientset(configMap("good", "1"), configMap("poison", "1"))
	recorder := events.NewFakeRecorder(10)
	var calls seen
	var mended atomic.Bool
	start(t, run.Config{CrashBudget: 3, Controllers: []run.Controller{{
		Name: "x", Reads: []run.Source{{Informer: source(t, client)}}, Recorder: recorder,
		Reconcile: func(_ context.Context, k run.Key) (time.Duration, error) {
			calls.add(k.Name)
			if k.Name == "poison" && !mended.Load() {
				panic("poison")
			}
			return 0, nil
		},
	}}}, nil)
	if e := <-recorder.Events; !strings.Contains(e, "Parked") {
		t.Errorf("event %q", e)
	}
	if got := calls.get("poison"); got != 3 {
		t.Errorf("poison was reconciled %d times, want its budget of 3", got)
	}
	if _, err := client.CoreV1().ConfigMaps("default").Update(t.Context(), configMap("good", "2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the good object goes on", func() bool { return calls.get("good") >= 2 })
	mended.Store(true)
	if _, err := client.CoreV1().ConfigMaps("default").Update(t.Context(), configMap("poison", "2"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the mended object is tried", func() bool { return calls.get("poison") == 4 })
}

func TestFailedReconcileComesAgainAndAfterIsHonoured(t *testing.T) {
	client := fake.NewClientset(configMap("a", "1"))
	var calls seen
	start(t, run.Config{Controllers: []run.Controller{{
		Name: "x", Reads: []run.Source{{Informer: source(t, client)}},
		Reconcile: func(context.Context, run.Key) (time.Duration, error) {
			switch calls.add("a") {
			case 1:
				return 0, errors.New("first")
			case 2:
				return time.Millisecond, nil
			}
			return 0, nil
		},
	}}}, nil)
	wait(t, "three calls", func() bool { return calls.get("a") == 3 })
}

func TestHungReconcileWithholdsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var beats atomic.Int64
		hang := make(chan struct{})
		l, err := run.New(run.Config{Hung: time.Second, Controllers: []run.Controller{{
			Name: "x", Timeout: time.Second,
			Feed: func(ctx context.Context, add func(run.Key)) error {
				select { // an idle while first
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
				}
				add(run.Key{Name: "a"})
				<-ctx.Done()
				return nil
			},
			Reconcile: func(context.Context, run.Key) (time.Duration, error) {
				<-hang // deaf to its context
				return 0, nil
			},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx, role.Fence{}, func() { beats.Add(1) }) }()
		time.Sleep(9 * time.Second)
		if got := beats.Load(); got < 18 {
			t.Errorf("%d beats in 9 idle seconds, want at least 18", got)
		}
		time.Sleep(4 * time.Second) // the reconcile hangs for 3 s, 1 s too long
		stuck := beats.Load()
		time.Sleep(time.Minute)
		if got := beats.Load(); got != stuck {
			t.Errorf("%d beats while a reconcile hung", got-stuck)
		}
		close(hang)
		time.Sleep(time.Second)
		if beats.Load() == stuck {
			t.Error("no beat after the reconcile returned")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPanickingFeedEndsTheLoopWithAnError(t *testing.T) {
	l, err := run.New(run.Config{Log: slog.New(slog.DiscardHandler), Controllers: []run.Controller{{
		Name: "x", Feed: func(context.Context, func(run.Key)) error { panic("feed") },
		Reconcile: func(context.Context, run.Key) (time.Duration, error) { return 0, nil },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context(), role.Fence{}, nil); !errors.Is(err, run.ErrPanicked) {
		t.Errorf("Run: %v, want ErrPanicked", err)
	}
}

func TestLedgerHoldsUntilOwnWritesAreSeen(t *testing.T) {
	client := fake.NewClientset(configMap("old", "1"))
	inf := source(t, client)
	wait(t, "sync", func() bool { return inf.HasSynced() && len(inf.GetStore().ListKeys()) == 1 })
	key := run.Key{Namespace: "default", Name: "owner"}
	l := run.NewLedger(inf)
	made := configMap("made", "1000")
	l.Created(key, made)
	if l.Settled(key) {
		t.Error("settled before the created object is seen")
	}
	if !l.Settled(run.Key{Name: "other"}) {
		t.Error("another key waits too")
	}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the created object", func() bool { return l.Settled(key) })
	l.Deleted(key, made)
	if l.Settled(key) {
		t.Error("settled before the deletion is seen")
	}
	if err := client.CoreV1().ConfigMaps("default").Delete(t.Context(), "made", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the deletion", func() bool { return l.Settled(key) })
}

func TestRunStartsAgainForALaterEpoch(t *testing.T) {
	client := fake.NewClientset(configMap("a", "1"))
	var calls seen
	l, err := run.New(run.Config{Controllers: []run.Controller{{
		Name: "x", Reads: []run.Source{{Informer: source(t, client)}},
		Reconcile: func(ctx context.Context, _ run.Key) (time.Duration, error) {
			f, _ := role.From(ctx)
			calls.add(fmt.Sprint(f.Epoch))
			return 0, nil
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for epoch := uint64(1); epoch <= 3; epoch++ {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx, role.Fence{Epoch: epoch}, nil) }()
		wait(t, "a reconcile", func() bool { return calls.get(fmt.Sprint(epoch)) > 0 })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

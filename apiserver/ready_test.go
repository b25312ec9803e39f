package apiserver_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/storage/memstore"
)

// slowStore holds back cluster role bindings until they may pass.
type slowStore struct {
	*memstore.Store

	once    sync.Once
	reached chan struct{} // closed when the first one waits
	pass    chan struct{}
}

func (s *slowStore) Propose(ctx context.Context, t store.Txn) (store.Result, error) {
	if strings.Contains(t.Ops[0].Key, "/clusterrolebindings/") {
		s.once.Do(func() { close(s.reached) })
		select {
		case <-s.pass:
		case <-ctx.Done():
			return store.Result{}, ctx.Err()
		}
	}
	return s.Store.Propose(ctx, t)
}

// run runs a server that only in-process clients reach.
func run(t *testing.T, st store.Store) *apiserver.Server {
	t.Helper()
	s, err := apiserver.New(apiserver.Config{Peer: "a", Store: st, Kinds: kinds.All()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run server: %v", err)
		}
	})
	return s
}

func newAccount(t *testing.T, s *apiserver.Server) error {
	t.Helper()
	c, err := kubernetes.NewForConfig(s.ClientConfig("system:kube-controller-manager"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CoreV1().ServiceAccounts("default").Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, metav1.CreateOptions{})
	return err
}

func TestComponentsMayDoTheirWorkFromTheMomentTheServerIsReady(t *testing.T) {
	st := &slowStore{Store: memstore.New(), reached: make(chan struct{}), pass: make(chan struct{})}
	s := run(t, st)
	<-st.reached
	if err := newAccount(t, s); !apierrors.IsForbidden(err) {
		t.Errorf("without its role: got %v, want 403", err)
	}
	early, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if s.Ready(early) == nil {
		t.Error("ready before the first roles exist")
	}
	close(st.pass)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := newAccount(t, s); err != nil {
		t.Errorf("when ready: %v", err)
	}
}

func TestOldReplicaIsReadyWithoutQuorum(t *testing.T) {
	st := memstore.New()
	first := run(t, st)
	if err := first.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for st.Local().Get("/registry/core/services/default/kubernetes") == nil {
		if t.Context().Err() != nil {
			t.Fatal("the first objects were never made")
		}
		time.Sleep(10 * time.Millisecond)
	}
	st.Fail(store.ErrNoQuorum)
	if err := run(t, st).Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	st.Fail(nil)
}

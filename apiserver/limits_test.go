package apiserver_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/storage/memstore"
)

// stuckStore answers nothing while it is stuck.
type stuckStore struct {
	*memstore.Store

	stuck chan struct{} // closed when nothing goes any more
}

func (s *stuckStore) hang(ctx context.Context) error {
	select {
	case <-s.stuck:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

func (s *stuckStore) Propose(ctx context.Context, t store.Txn) (store.Result, error) {
	if err := s.hang(ctx); err != nil {
		return store.Result{}, err
	}
	return s.Store.Propose(ctx, t)
}

func (s *stuckStore) Current(ctx context.Context) (store.View, error) {
	if err := s.hang(ctx); err != nil {
		return nil, err
	}
	return s.Store.Current(ctx)
}

func TestEveryRequestEndsWithinItsTimeout(t *testing.T) {
	st := &stuckStore{Store: memstore.New(), stuck: make(chan struct{})}
	f := start(t, func(c *apiserver.Config) { c.Store = st })
	c := f.client(t, f.admin(t))
	mustCreate(t, c, configMap("a", nil))
	close(st.stuck)
	of := func(r *rest.Request) *rest.Request {
		return r.Namespace("default").Resource("configmaps").Param("timeout", "300ms")
	}
	core := c.CoreV1().RESTClient()
	for verb, r := range map[string]*rest.Request{
		"create": of(core.Post()).Body(configMap("b", nil)),
		"update": of(core.Put()).Name("a").Body(configMap("a", map[string]string{"k": "v"})),
		"patch":  of(core.Patch(types.MergePatchType)).Name("a").Body([]byte(`{"data":{"k":"v"}}`)),
		"delete": of(core.Delete()).Name("a"),
		"get":    of(core.Get()).Name("a"),
		"list":   of(core.Get()),
	} {
		var code int
		err := r.MaxRetries(0).Do(t.Context()).StatusCode(&code).Error()
		if code != http.StatusGatewayTimeout || !apierrors.IsTimeout(err) || !strings.Contains(err.Error(), "request did not complete within") {
			t.Errorf("%s: got %d, %v", verb, code, err)
		}
	}
	if code, _ := request(t, f.admin(t), "/api/v1/namespaces?timeout=soon"); code != http.StatusBadRequest {
		t.Errorf("timeout without a meaning: got %d", code)
	}
}

func TestBodiesAndObjectsThatAreTooLargeAreRefused(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	roles := c.RbacV1().ClusterRoles()
	for what, row := range map[string]struct {
		size int
		want string
	}{
		"body":   {4 << 20, "limit is 3145728"},
		"object": {2 << 20, "too large"},
	} {
		_, err := roles.Create(t.Context(), &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "big"},
			Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/" + strings.Repeat("x", row.size)}}},
		}, metav1.CreateOptions{})
		if !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %.300v", what, err)
		}
	}
}

func TestStoppingServerFinishesWhatItHasBegun(t *testing.T) {
	slow := &turnstile{pass: make(chan struct{})}
	f := start(t, func(c *apiserver.Config) {
		c.Handlers = []apiserver.Handler{{Path: "/slow", Handler: slow}}
	})
	c := f.client(t, f.admin(t))
	w, err := c.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan int)
	go func() {
		code, _ := request(t, f.admin(t), "/slow")
		answer <- code
	}()
	within(t, "the request is under way", func() bool { return slow.waiting.Load() == 1 })
	f.stop()
	within(t, "readiness fails", func() bool {
		inside, err := rest.HTTPClientFor(f.ClientConfig("system:apiserver"))
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://skein.in-process/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := inside.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusInternalServerError
	})
	for e := range w.ResultChan() {
		if e.Object != nil && e.Type == "ERROR" {
			t.Errorf("the watch ended with %v", e.Object)
		}
	}
	select {
	case code := <-answer:
		t.Errorf("a request under way was cut off with %d", code)
	case <-time.After(50 * time.Millisecond):
	}
	slow.pass <- struct{}{}
	if code := <-answer; code != http.StatusOK {
		t.Errorf("request under way: got %d", code)
	}
}

func TestSmallHeadersAreSentWhenTheyAreAskedFor(t *testing.T) {
	f := start(t, func(c *apiserver.Config) {
		c.HSTS, c.GoawayChance = []string{"max-age=31536000", "includeSubDomains"}, 1
	})
	_, h := request(t, f.admin(t), "/version")
	if got := h.Get("Strict-Transport-Security"); got != "max-age=31536000; includeSubDomains" {
		t.Errorf("HSTS: got %q", got)
	}
	if got := h.Get("Cache-Control"); got != "no-cache, private" {
		t.Errorf("cache control: got %q", got)
	}
}

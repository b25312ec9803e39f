package apiserver_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
)

// turnstile lets one request at a time through, when it is told to.
type turnstile struct {
	pass    chan struct{}
	waiting atomic.Int64
	passed  atomic.Int64
}

func (s *turnstile) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	select {
	case <-s.pass:
		s.passed.Add(1)
	case <-r.Context().Done():
	}
}

// within waits for something that happens by itself.
func within(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// request sends one GET and returns its status and headers.
func request(t *testing.T, cfg *rest.Config, path string) (int, http.Header) {
	t.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, cfg.Host+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil
	}
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}

func fair(h http.Header) bool { return h.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) != "" }

// worker holds each request for a while, so that they pile up.
type worker struct {
	hold   time.Duration
	served atomic.Int64
}

func (b *worker) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(b.hold):
		b.served.Add(1)
	case <-r.Context().Done():
	}
}

func TestAnIdleServerClassifiesNothing(t *testing.T) {
	f := start(t)
	if _, h := request(t, f.admin(t), "/version"); fair(h) {
		t.Error("an idle server classifies requests")
	}
}

func TestGreedyClientDoesNotStarveAPoliteOne(t *testing.T) {
	work := &worker{hold: 10 * time.Millisecond}
	f := start(t, func(c *apiserver.Config) {
		c.MaxReads, c.MaxWrites = 24, 8
		c.Handlers = []apiserver.Handler{{Path: "/work", Handler: work}}
	})
	mayAsk(t, f.client(t, f.admin(t)), "/work")

	// Hundreds of requests of one client stand in line all the time.
	greedy, polite := f.user(t, "greedy"), f.user(t, "polite")
	var refused atomic.Int64
	over, wg := make(chan struct{}), sync.WaitGroup{}
	for range 400 {
		wg.Go(func() {
			for {
				code, _ := request(t, greedy, "/work")
				pause := time.Duration(0)
				if code == http.StatusTooManyRequests {
					refused.Add(1)
					pause = 100 * time.Millisecond
				}
				select {
				case <-over:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	defer wg.Wait()
	defer close(over)
	within(t, "fairness comes with the load, and what cannot wait is refused", func() bool {
		code, h := request(t, f.admin(t), "/version")
		return code == http.StatusOK && fair(h) && refused.Load() > 0
	})

	const asked = 20
	if code, _ := request(t, polite, "/work"); code != http.StatusOK {
		t.Errorf("polite client: got %d", code)
	}
	before := work.served.Load()
	for range asked {
		if code, _ := request(t, polite, "/work"); code != http.StatusOK {
			t.Errorf("polite client: got %d", code)
		}
	}
	if served := work.served.Load() - before; served > 100*asked {
		t.Errorf("%d greedy requests were served beside %d polite ones, which is a line for all", served, asked)
	}
	if code, _ := request(t, f.admin(t), "/readyz"); code != http.StatusOK {
		t.Errorf("administrator: got %d", code)
	}
}

// mayAsk lets everybody GET the paths.
func mayAsk(t *testing.T, c kubernetes.Interface, paths ...string) {
	t.Helper()
	_, err := c.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "ask"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: paths}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "ask"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ask"},
		Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:authenticated"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDeclaredFlowsAreHonouredAtOnce(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	shares := int32(1)
	level, err := c.FlowcontrolV1().PriorityLevelConfigurations().Create(t.Context(), &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: &shares, LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	schema, err := c.FlowcontrolV1().FlowSchemas().Create(t.Context(), &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "mine"},
		Spec: flowcontrolv1.FlowSchemaSpec{
			MatchingPrecedence:         1000,
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "mine"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "noxu"}}},
				NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the flow's level is found", func() bool {
		got, err := c.FlowcontrolV1().FlowSchemas().Get(t.Context(), "mine", metav1.GetOptions{})
		return err == nil && len(got.Status.Conditions) == 1 && got.Status.Conditions[0].Status == flowcontrolv1.ConditionFalse
	})
	within(t, "a matching user is told its flow and level", func() bool {
		_, h := request(t, f.user(t, "noxu"), "/version")
		return h.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) == string(schema.UID) &&
			h.Get(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID) == string(level.UID)
	})
	if _, h := request(t, f.user(t, "foo"), "/version"); !fair(h) || h.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID) == string(schema.UID) {
		t.Errorf("another user: got flow %q", h.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID))
	}
}

func TestEveryClusterHasUpstreamsFlowsAndLevels(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t)).FlowcontrolV1()
	names := func() string {
		flows, err := c.FlowSchemas().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, f := range flows.Items {
			if len(f.Status.Conditions) != 1 || f.Status.Conditions[0].Status != flowcontrolv1.ConditionFalse {
				return ""
			}
			all = append(all, f.Name)
		}
		return strings.Join(all, " ")
	}
	const want = "catch-all exempt global-default kube-controller-manager kube-scheduler kube-system-service-accounts probes " +
		"service-accounts system-leader-election system-node-high system-nodes"
	within(t, "all flows are there and have their level", func() bool { return names() == want })
	if err := c.FlowSchemas().Delete(t.Context(), "exempt", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, "a deleted one comes back", func() bool { return names() == want })
}

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	authzunion "k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/util/webhook"
	authzwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	authzmetrics "k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

const (
	modeNode, modeRBAC = "Node", "RBAC"
	modeWebhook        = string(apiserverapi.TypeWebhook)
)

// deciders is who says what users may do, and says what that is.
type deciders struct {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// chosen are the deciders that an AuthorizationConfiguration names, in its
// order.
type chosen struct {
	server   *Server
	compiler authorizationcel.Compiler
	current  atomic.Pointer[deciders]
}

var (
	_ authorizer.Authorizer   = (*chosen)(nil)
	_ authorizer.RuleResolver = (*chosen)(nil)
)

// Authorize implements authorizer.Authorizer.
func (c *chosen) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	return c.current.Load().Authorize(ctx, a)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (c *chosen) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return c.current.Load().ConditionsAwareAuthorize(ctx, a)
}

// EvaluateConditions implements authorizer.Authorizer.
func (c *chosen) EvaluateConditions(ctx context.Context, d authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return c.current.Load().EvaluateConditions(ctx, d, data)
}

// RulesFor implements authorizer.RuleResolver.
func (c *chosen) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return c.current.Load().RulesFor(ctx, u, namespace)
}

// deciders asks, without a file, in this order: is it the administrators'
// group, a node at its own work, or anybody with a role.
func (s *Server) deciders() (*deciders, error) {
	if s.cfg.AuthorizationFile == "" {
		return s.decide(&apiserverapi.AuthorizationConfiguration{Authorizers: []apiserverapi.AuthorizerConfiguration{
			{Type: modeNode, Name: "node"}, {Type: modeRBAC, Name: "rbac"},
		}}, nil)
	}
	raw, err := os.ReadFile(s.cfg.AuthorizationFile)
	if err != nil {
		return nil, fmt.Errorf("read authorization configuration: %w", err)
	}
	s.loaded[s.cfg.AuthorizationFile] = raw
	s.chosen = &chosen{server: s, compiler: authorizationcel.NewDefaultCompiler()}
	if err := s.chosen.reload(s.base, raw); err != nil {
		return nil, fmt.Errorf("authorization configuration %s: %w", s.cfg.AuthorizationFile, err)
	}
	return &deciders{s.chosen, s.chosen}, nil
}

// reload takes a new content of the file.
func (c *chosen) reload(_ context.Context, raw []byte) error {
	file, err := parseAuthorization(raw, c.compiler)
	if err != nil {
		return err
	}
	d, err := c.server.decide(file, c.compiler)
	if err != nil {
		return err
	}
	c.current.Store(d)
	return nil
}

func parseAuthorization(raw []byte, compiler authorizationcel.Compiler) (*apiserverapi.AuthorizationConfiguration, error) {
	file, err := load.LoadFromData(raw)
	if err != nil {
		return nil, err
	}
	errs := validation.ValidateAuthorizationConfiguration(compiler, nil, file, sets.New(modeNode, modeRBAC, modeWebhook), sets.New(modeWebhook))
	if len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	for _, needed := range []string{modeNode, modeRBAC} {
		if !slices.ContainsFunc(file.Authorizers, func(a apiserverapi.AuthorizerConfiguration) bool { return string(a.Type) == needed }) {
			return nil, fmt.Errorf("authorizers: %s is missing: the mesh's own parts have their rights by it", needed)
		}
	}
	return file, nil
}

func (s *Server) decide(file *apiserverapi.AuthorizationConfiguration, compiler authorizationcel.Compiler) (*deciders, error) {
	all := []authzunion.NamedAuthorizer{{
		AuthorizerName: "privileged", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup),
	}}
	var rules []authorizer.RuleResolver
	for _, a := range file.Authorizers {
		var d deciders
		switch string(a.Type) {
		case modeNode:
			d = deciders{s.nodes, s.nodes}
		case modeRBAC:
			d = deciders{s.rbac, s.rbac}
		case modeWebhook:
			w, err := decidingWebhook(&a, compiler)
			if err != nil {
				return nil, fmt.Errorf("authorizer %s: %w", a.Name, err)
			}
			d = deciders{w, w}
		default:
			return nil, errors.New("unknown type of authorizer " + string(a.Type))
		}
		all = append(all, authzunion.NamedAuthorizer{AuthorizerName: a.Name, Authorizer: d.Authorizer})
		rules = append(rules, d.RuleResolver)
	}
	together, err := authzunion.New(all...)
	if err != nil {
		return nil, fmt.Errorf("authorizers: %w", err)
	}
	return &deciders{together, authzunion.NewRuleResolvers(rules...)}, nil
}

func webhookBackoff() *wait.Backoff {
	b := webhook.DefaultRetryBackoffWithInitialDelay(webhookRetry)
	return &b
}

// uncounted is a webhook's figures, which nobody reads here yet.
type uncounted struct {
	authzmetrics.NoopRequestMetrics
	authzmetrics.NoopWebhookMetrics
	authorizationcel.MatcherMetrics
}

func decidingWebhook(a *apiserverapi.AuthorizerConfiguration, compiler authorizationcel.Compiler) (*authzwebhook.WebhookAuthorizer, error) {
	w := a.Webhook
	if w.ConnectionInfo.Type != apiserverapi.AuthorizationWebhookConnectionInfoTypeKubeConfigFile || w.ConnectionInfo.KubeConfigFile == nil {
		return nil, errors.New("webhook.connectionInfo must name a kubeConfigFile")
	}
	client, err := webhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	client.Timeout = w.Timeout.Duration
	onError := authorizer.DecisionDeny
	if w.FailurePolicy == apiserverapi.FailurePolicyNoOpinion {
		onError = authorizer.DecisionNoOpinion
	}
	yes, no := w.AuthorizedTTL.Duration, w.UnauthorizedTTL.Duration
	if !w.CacheAuthorizedRequests {
		yes = 0
	}
	if !w.CacheUnauthorizedRequests {
		no = 0
	}
	return authzwebhook.New(client, w.SubjectAccessReviewVersion, yes, no, *webhookBackoff(), onError, w.MatchConditions, a.Name,
		uncounted{MatcherMetrics: authorizationcel.NewMatcherMetrics()}, compiler)
}

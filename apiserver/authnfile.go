package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	tokenwebhook "k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
)

const (
	// issuerWait is how long a new configuration waits for its issuers'
	// keys before it is taken; until then the one before holds.
	issuerWait = time.Minute
	issuerLook = time.Second
	// webhookKept is how long a webhook's word on a token is kept.
	webhookKept = 2 * time.Minute
	// webhookRetry is the first pause before a webhook is asked again.
	webhookRetry = 500 * time.Millisecond
)

// outside are the ways to know users that an AuthenticationConfiguration
// names. Without a file everybody without a credential is anonymous, as
// upstream has it by default, and no issuer but this cluster is believed.
type outside struct {
	server  *Server
	current atomic.Pointer[configured]
}

// configured is one state of the file.
type configured struct {
	tokens    authenticator.Token   // nil: no issuers
	anonymous authenticator.Request // nil: nobody is anonymous
	healthy   []func() error
	end       context.CancelFunc
}

func (s *Server) outsiders() (*outside, error) {
	o := &outside{server: s}
	if s.cfg.AuthenticationFile == "" {
		o.current.Store(&configured{anonymous: anonymous.NewAuthenticator(nil), end: func() {}})
		return o, nil
	}
	raw, err := os.ReadFile(s.cfg.AuthenticationFile)
	if err != nil {
		return nil, fmt.Errorf("read authentication configuration: %w", err)
	}
	s.loaded[s.cfg.AuthenticationFile] = raw
	c, err := o.build(raw)
	if err != nil {
		return nil, fmt.Errorf("authentication configuration %s: %w", s.cfg.AuthenticationFile, err)
	}
	o.current.Store(c)
	return o, nil
}

// AuthenticateToken implements authenticator.Token.
func (o *outside) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if t := o.current.Load().tokens; t != nil {
		return t.AuthenticateToken(ctx, token)
	}
	return nil, false, nil
}

// AuthenticateRequest implements authenticator.Request: it lets in those who
// show no credential, where they are let in.
func (o *outside) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if a := o.current.Load().anonymous; a != nil {
		return a.AuthenticateRequest(r)
	}
	return nil, false, nil
}

// reload takes a new content of the file, once its issuers have answered.
func (o *outside) reload(ctx context.Context, raw []byte) error {
	c, err := o.build(raw)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, issuerWait)
	defer cancel()
	for {
		err := errors.Join(all(c.healthy)...)
		if err == nil {
			o.current.Swap(c).end()
			return nil
		}
		select {
		case <-ctx.Done():
			c.end()
			return err
		case <-time.After(issuerLook):
		}
	}
}

func all(checks []func() error) (errs []error) {
	for _, check := range checks {
		errs = append(errs, check())
	}
	return errs
}

func parseAuthentication(raw []byte, issuer string) (*apiserverapi.AuthenticationConfiguration, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, err := runtime.Decode(codecs.UniversalDecoder(), raw)
	if err != nil {
		return nil, err
	}
	c, ok := obj.(*apiserverapi.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected AuthenticationConfiguration, got %T", obj)
	}
	return c, validation.ValidateAuthenticationConfiguration(authenticationcel.NewDefaultCompiler(), c, []string{issuer}).ToAggregate()
}

func (o *outside) build(raw []byte) (_ *configured, err error) {
	file, err := parseAuthentication(raw, o.server.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(o.server.base)
	defer func() {
		if err != nil {
			end()
		}
	}()
	c := &configured{end: end, anonymous: anonymous.NewAuthenticator(nil)}
	switch a := file.Anonymous; {
	case a == nil:
	case !a.Enabled:
		c.anonymous = nil
	default:
		c.anonymous = anonymous.NewAuthenticator(a.Conditions)
	}
	var issuers []authenticator.Token
	for _, jwt := range file.JWT {
		options := oidc.Options{
			JWTAuthenticator: jwt, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
			DisallowedIssuers: []string{o.server.cfg.Issuer}, APIServerID: string(o.server.cfg.Peer),
		}
		if pem := jwt.Issuer.CertificateAuthority; pem != "" {
			if options.CAContentProvider, err = dynamiccertificates.NewStaticCAContent("oidc-authenticator", []byte(pem)); err != nil {
				return nil, fmt.Errorf("issuer %s: %w", jwt.Issuer.URL, err)
			}
		}
		issuer, err := oidc.New(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("issuer %s: %w", jwt.Issuer.URL, err)
		}
		issuers = append(issuers, issuer)
		c.healthy = append(c.healthy, issuer.HealthCheck)
	}
	if len(issuers) > 0 {
		c.tokens = authenticator.WrapAudienceAgnosticToken([]string{o.server.cfg.Issuer}, tokenunion.NewFailOnError(issuers...))
	}
	return c, nil
}

// askWebhook is the authenticator that asks another server about tokens.
func (s *Server) askWebhook() (authenticator.Token, error) {
	client, err := webhook.LoadKubeconfig(s.cfg.TokenWebhook.File, nil)
	if err != nil {
		return nil, fmt.Errorf("token webhook: %w", err)
	}
	ask, err := tokenwebhook.New(client, s.cfg.TokenWebhook.Version, []string{s.cfg.Issuer}, *webhookBackoff())
	if err != nil {
		return nil, fmt.Errorf("token webhook: %w", err)
	}
	return cache.New(ask, false, webhookKept, webhookKept), nil
}

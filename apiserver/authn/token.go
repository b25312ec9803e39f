// Package authn knows who sends a request: by certificates, service account
// tokens and bootstrap tokens.
//
// Its invariant: a bound token is good only while everything it is bound to
// exists in the replica, and nothing is asked of another machine to find out.
package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

// deletedFor is how long after its deletion time a pod's tokens stay good, so
// that it can end in order.
const deletedFor = 60 * time.Second

// keyWait is how long a token of an unknown key waits for the key to come.
const keyWait = 2 * time.Second

// Reader finds what tokens are bound to. A nil result means that it does not exist.
type Reader interface {
	ServiceAccount(namespace, name string) *corev1.ServiceAccount
	Pod(namespace, name string) *corev1.Pod
	Secret(namespace, name string) *corev1.Secret
	Node(name string) *corev1.Node
}

// Tokens issues and checks service account tokens.
type Tokens struct{ cfg TokensConfig }

// TokensConfig is what tokens are made of and checked against.
type TokensConfig struct {
	// Keys returns the keys of the cluster as the replica has them: all of
	// them are good, the first one signs. Without any, no token is good and
	// none is made.
	Keys func() []*Key
	// CatchUp makes Keys show all that was written anywhere before.
	CatchUp func(ctx context.Context) error
	Issuer  string
	// Audiences are those of the API itself.
	Audiences []string
	Reader    Reader
}

var _ authenticator.Token = (*Tokens)(nil)

// NewTokens returns an issuer that accepts its own tokens.
func NewTokens(c TokensConfig) *Tokens { return &Tokens{cfg: c} }

// Audiences are those of the API itself.
func (t *Tokens) Audiences() []string { return slices.Clone(t.cfg.Audiences) }

// Issuer is the issuer that tokens name.
func (t *Tokens) Issuer() string { return t.cfg.Issuer }

// Keys is the public key set by which others check tokens.
func (t *Tokens) Keys() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, k := range t.cfg.Keys() {
		set.Keys = append(set.Keys, k.public())
	}
	return set
}

// ref is an object that a token is bound to.
type ref struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// binding is the claim kubernetes.io.
type binding struct {
	Namespace      string `json:"namespace"`
	ServiceAccount ref    `json:"serviceaccount"`
	Pod            *ref   `json:"pod,omitempty"`
	Secret         *ref   `json:"secret,omitempty"`
	Node           *ref   `json:"node,omitempty"`
}

type private struct {
	Kubernetes binding `json:"kubernetes.io"`
}

// Bound is what a token is issued for. Pod, Secret and Node may be nil.
type Bound struct {
	Account   *corev1.ServiceAccount
	Pod       *corev1.Pod
	Secret    *corev1.Secret
	Node      *corev1.Node
	Audiences []string
	TTL       time.Duration
}

func to(m *metav1.ObjectMeta) *ref { return &ref{Name: m.Name, UID: m.UID} }

// Issue returns a new token and when it expires.
func (t *Tokens) Issue(b Bound) (string, time.Time, error) {
	now := time.Now()
	expires := now.Add(b.TTL)
	k := binding{Namespace: b.Account.Namespace, ServiceAccount: *to(&b.Account.ObjectMeta)}
	if b.Pod != nil {
		k.Pod = to(&b.Pod.ObjectMeta)
	}
	if b.Secret != nil {
		k.Secret = to(&b.Secret.ObjectMeta)
	}
	if b.Node != nil {
		k.Node = to(&b.Node.ObjectMeta)
	}
	public := jwt.Claims{
		Issuer: t.cfg.Issuer, Subject: serviceaccount.MakeUsername(b.Account.Namespace, b.Account.Name),
		Audience: b.Audiences, Expiry: jwt.NewNumericDate(expires), NotBefore: jwt.NewNumericDate(now),
		IssuedAt: jwt.NewNumericDate(now), ID: uuid.NewString(),
	}
	token, err := t.sign(public, private{k})
	return token, expires, err
}

func (t *Tokens) sign(claims ...any) (string, error) {
	keys := t.cfg.Keys()
	if len(keys) == 0 {
		return "", errors.New("sign token: the cluster's keys cannot be read")
	}
	b := jwt.Signed(keys[0].signer)
	for _, c := range claims {
		b = b.Claims(c)
	}
	token, err := b.Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// AuthenticateToken implements authenticator.Token. What is no token of this
// issuer is left to others.
func (t *Tokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if strings.Count(token, ".") != 2 {
		return nil, false, nil
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, false, nil //nolint:nilerr // not ours
	}
	var public jwt.Claims
	if err := parsed.UnsafeClaimsWithoutVerification(&public); err != nil {
		return nil, false, nil //nolint:nilerr // not ours
	}
	switch public.Issuer {
	case t.cfg.Issuer:
	case legacyIssuer:
		return t.authenticateLegacy(ctx, token, parsed)
	default:
		return nil, false, nil
	}
	var own private
	if err := t.verify(ctx, parsed, &public, &own); err != nil {
		return nil, false, err
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: t.cfg.Issuer, Time: time.Now()}, 0); err != nil {
		return nil, false, fmt.Errorf("service account token: %w", err)
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		wanted = t.cfg.Audiences
	}
	audiences := authenticator.Audiences(public.Audience).Intersect(wanted)
	if len(audiences) == 0 {
		return nil, false, fmt.Errorf("service account token: it is for the audiences %q", []string(public.Audience))
	}
	info, err := t.check(&own.Kubernetes, public.ID)
	if err != nil {
		return nil, false, fmt.Errorf("service account token: %w", err)
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// verify checks the signature and reads the claims. A peer may meet a token
// before the key that has just begun to sign: it looks again at a newer state.
func (t *Tokens) verify(ctx context.Context, parsed *jwt.JSONWebToken, claims ...any) error {
	id := ""
	if len(parsed.Headers) > 0 {
		id = parsed.Headers[0].KeyID
	}
	find := func() *Key {
		keys := t.cfg.Keys()
		if i := slices.IndexFunc(keys, func(k *Key) bool { return k.id == id }); i >= 0 {
			return keys[i]
		}
		return nil
	}
	key := find()
	if key == nil {
		ctx, cancel := context.WithTimeout(ctx, keyWait)
		defer cancel()
		if t.cfg.CatchUp(ctx) == nil {
			key = find()
		}
	}
	if key == nil || parsed.Claims(&key.key.PublicKey, claims...) != nil {
		return errors.New("service account token: the signature is not this cluster's")
	}
	return nil
}

// check finds everything that a token is bound to.
func (t *Tokens) check(b *binding, id string) (*serviceaccount.ServiceAccountInfo, error) {
	sa := t.cfg.Reader.ServiceAccount(b.Namespace, b.ServiceAccount.Name)
	if sa == nil || sa.UID != b.ServiceAccount.UID || gone(sa.DeletionTimestamp) {
		return nil, errors.New("the service account has been deleted")
	}
	info := &serviceaccount.ServiceAccountInfo{
		Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: string(b.ServiceAccount.UID),
	}
	if id != "" {
		info.CredentialID = "JTI=" + id
	}
	if b.Pod != nil {
		p := t.cfg.Reader.Pod(b.Namespace, b.Pod.Name)
		if p == nil || p.UID != b.Pod.UID || gone(p.DeletionTimestamp) {
			return nil, errors.New("the pod it is bound to has been deleted")
		}
		info.PodName, info.PodUID = b.Pod.Name, string(b.Pod.UID)
	}
	if b.Secret != nil {
		s := t.cfg.Reader.Secret(b.Namespace, b.Secret.Name)
		if s == nil || s.UID != b.Secret.UID || gone(s.DeletionTimestamp) {
			return nil, errors.New("the secret it is bound to has been deleted")
		}
	}
	if b.Node != nil {
		// Beside a pod the node is only told; alone it must exist.
		n := t.cfg.Reader.Node(b.Node.Name)
		if b.Pod == nil && (n == nil || n.UID != b.Node.UID || gone(n.DeletionTimestamp)) {
			return nil, errors.New("the node it is bound to has been deleted")
		}
		info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
	}
	return info, nil
}

func gone(deleted *metav1.Time) bool {
	return deleted != nil && time.Since(deleted.Time) > deletedFor
}

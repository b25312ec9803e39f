// Package authn knows who sends a request: by certificates, service account
// tokens and bootstrap tokens.
//
// Its invariant: a bound token is good only while everything it is bound to
// exists in the replica, and nothing is asked of another machine to find out.
package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
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

// Reader finds what tokens are bound to. A nil result means that it does not exist.
type Reader interface {
	ServiceAccount(namespace, name string) *corev1.ServiceAccount
	Pod(namespace, name string) *corev1.Pod
	Secret(namespace, name string) *corev1.Secret
	Node(name string) *corev1.Node
}

// Tokens issues and checks service account tokens.
type Tokens struct {
	key       *ecdsa.PrivateKey
	keyID     string
	issuer    string
	audiences []string
	signer    jose.Signer
	reader    Reader
}

var _ authenticator.Token = (*Tokens)(nil)

// NewTokens returns an issuer that signs with key, and accepts its own tokens
// for any of the audiences.
func NewTokens(key *ecdsa.PrivateKey, issuer string, audiences []string, reader Reader) (*Tokens, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	return &Tokens{key: key, keyID: id, issuer: issuer, audiences: audiences, signer: signer, reader: reader}, nil
}

// Audiences are those of the API itself.
func (t *Tokens) Audiences() []string { return slices.Clone(t.audiences) }

// Issuer is the issuer that tokens name.
func (t *Tokens) Issuer() string { return t.issuer }

// Keys is the public key set by which others check tokens.
func (t *Tokens) Keys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &t.key.PublicKey, KeyID: t.keyID, Algorithm: string(jose.ES256), Use: "sig"},
	}}
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
		Issuer: t.issuer, Subject: serviceaccount.MakeUsername(b.Account.Namespace, b.Account.Name),
		Audience: b.Audiences, Expiry: jwt.NewNumericDate(expires), NotBefore: jwt.NewNumericDate(now),
		IssuedAt: jwt.NewNumericDate(now), ID: uuid.NewString(),
	}
	token, err := jwt.Signed(t.signer).Claims(public).Claims(private{k}).Serialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("sign token: %w", err)
	}
	return token, expires, nil
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
	if err := parsed.UnsafeClaimsWithoutVerification(&public); err != nil || public.Issuer != t.issuer {
		return nil, false, nil //nolint:nilerr // not ours
	}
	var own private
	if err := parsed.Claims(&t.key.PublicKey, &public, &own); err != nil {
		return nil, false, errors.New("service account token: the signature is not this cluster's")
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: t.issuer, Time: time.Now()}, 0); err != nil {
		return nil, false, fmt.Errorf("service account token: %w", err)
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		wanted = t.audiences
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

// check finds everything that a token is bound to.
func (t *Tokens) check(b *binding, id string) (*serviceaccount.ServiceAccountInfo, error) {
	sa := t.reader.ServiceAccount(b.Namespace, b.ServiceAccount.Name)
	if sa == nil || sa.UID != b.ServiceAccount.UID {
		return nil, errors.New("the service account has been deleted")
	}
	info := &serviceaccount.ServiceAccountInfo{
		Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: string(b.ServiceAccount.UID),
	}
	if id != "" {
		info.CredentialID = "JTI=" + id
	}
	if b.Pod != nil {
		p := t.reader.Pod(b.Namespace, b.Pod.Name)
		if p == nil || p.UID != b.Pod.UID || gone(p.DeletionTimestamp) {
			return nil, errors.New("the pod it is bound to has been deleted")
		}
		info.PodName, info.PodUID = b.Pod.Name, string(b.Pod.UID)
	}
	if b.Secret != nil {
		s := t.reader.Secret(b.Namespace, b.Secret.Name)
		if s == nil || s.UID != b.Secret.UID || gone(s.DeletionTimestamp) {
			return nil, errors.New("the secret it is bound to has been deleted")
		}
	}
	if b.Node != nil {
		// Beside a pod the node is only told; alone it must exist.
		n := t.reader.Node(b.Node.Name)
		if b.Pod == nil && (n == nil || n.UID != b.Node.UID) {
			return nil, errors.New("the node it is bound to has been deleted")
		}
		info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
	}
	return info, nil
}

func gone(deleted *metav1.Time) bool {
	return deleted != nil && time.Since(deleted.Time) > deletedFor
}

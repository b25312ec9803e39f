package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

const (
	legacyIssuer = "kubernetes/serviceaccount"
	// labelInvalid marks Secrets whose tokens are good no longer.
	labelInvalid = "kubernetes.io/legacy-token-invalid-since"
)

// legacy are the claims of tokens that live in Secrets and never expire.
type legacy struct {
	Account   string    `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID       types.UID `json:"kubernetes.io/serviceaccount/service-account.uid"`
	Secret    string    `json:"kubernetes.io/serviceaccount/secret.name"`
	Namespace string    `json:"kubernetes.io/serviceaccount/namespace"`
}

// IssueLegacy makes the token of a Secret of type
// kubernetes.io/service-account-token.
func (t *Tokens) IssueLegacy(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	public := jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(account.Namespace, account.Name)}
	own := legacy{Account: account.Name, UID: account.UID, Secret: secret.Name, Namespace: secret.Namespace}
	return t.sign(public, own)
}

// authenticateLegacy accepts a token while its Secret holds it. Such tokens
// are for the API alone.
func (t *Tokens) authenticateLegacy(ctx context.Context, token string, parsed *jwt.JSONWebToken) (*authenticator.Response, bool, error) {
	var public jwt.Claims
	var own legacy
	if err := t.verify(ctx, parsed, &public, &own); err != nil {
		return nil, false, err
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, 0); err != nil {
		return nil, false, fmt.Errorf("service account token: %w", err)
	}
	audiences := authenticator.Audiences(t.cfg.Audiences)
	if wanted, ok := authenticator.AudiencesFrom(ctx); ok {
		if audiences = audiences.Intersect(wanted); len(audiences) == 0 {
			return nil, false, fmt.Errorf("service account token: it is for the audiences %q", t.cfg.Audiences)
		}
	}
	if err := t.checkLegacy(token, public.Subject, &own); err != nil {
		return nil, false, fmt.Errorf("service account token: %w", err)
	}
	info := serviceaccount.ServiceAccountInfo{Namespace: own.Namespace, Name: own.Account, UID: string(own.UID)}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

func (t *Tokens) checkLegacy(token, subject string, own *legacy) error {
	if own.Secret == "" || own.UID == "" || subject != serviceaccount.MakeUsername(own.Namespace, own.Account) {
		return errors.New("its claims do not agree")
	}
	s := t.cfg.Reader.Secret(own.Namespace, own.Secret)
	switch {
	case s == nil || s.DeletionTimestamp != nil:
		return errors.New("its secret has been deleted")
	case subtle.ConstantTimeCompare(s.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1:
		return errors.New("its secret holds another")
	case s.Labels[labelInvalid] != "":
		return fmt.Errorf("secret %s/%s has been marked invalid by the label %s", s.Namespace, s.Name, labelInvalid)
	}
	sa := t.cfg.Reader.ServiceAccount(own.Namespace, own.Account)
	if sa == nil || sa.UID != own.UID || sa.DeletionTimestamp != nil {
		return errors.New("the service account has been deleted")
	}
	return nil
}

// Package accounttoken cares for the old kind of service account token, the
// one in a Secret.
//
// Its invariant: such a Secret lives no longer than its account; a token is
// put only into a Secret that names an account that exists.
package accounttoken

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

const byAccount = "account"

// Mint makes the token of a Secret for its account.
type Mint func(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error)

// Controller reconciles Secrets of type kubernetes.io/service-account-token.
type Controller struct {
	kit      component.Kit
	secrets  corelisters.SecretLister
	accounts corelisters.ServiceAccountLister
	index    cache.SharedIndexInformer
	mint     Mint
	root     []byte
}

// New takes its informers from kit. mint fills Secrets that lack their token;
// nil: nobody does. rootCA is put beside the token.
func New(kit component.Kit, mint Mint, rootCA []byte) (run.Controller, error) {
	core := kit.Informers.Core().V1()
	c := &Controller{kit: kit, secrets: core.Secrets().Lister(), accounts: core.ServiceAccounts().Lister(), index: core.Secrets().Informer(), mint: mint, root: rootCA}
	if err := run.IndexBy(c.index, byAccount, accountOf); err != nil {
		return run.Controller{}, err
	}
	return run.Controller{
		Name: "serviceaccount-token-controller",
		Reads: []run.Source{
			{Informer: c.index, Keys: tokens},
			{Informer: core.ServiceAccounts().Informer(), Keys: c.ofAccount},
		},
		Writes: []string{"secrets"}, Reconcile: c.reconcile,
	}, nil
}

// accountOf is the account that a token Secret names, as namespace/name.
func accountOf(obj any) []string {
	s, ok := obj.(*corev1.Secret)
	if !ok || s.Type != corev1.SecretTypeServiceAccountToken {
		return nil
	}
	return []string{s.Namespace + "/" + s.Annotations[corev1.ServiceAccountNameKey]}
}

func tokens(obj any) []run.Key {
	s, ok := obj.(*corev1.Secret)
	if !ok || s.Type != corev1.SecretTypeServiceAccountToken {
		return nil
	}
	return []run.Key{{Namespace: s.Namespace, Name: s.Name}}
}

func (c *Controller) ofAccount(obj any) []run.Key {
	k, ok := run.KeyOf(obj)
	if !ok {
		return nil
	}
	var keys []run.Key
	for _, o := range run.By(c.index, byAccount, k.String()) {
		keys = append(keys, tokens(o)...)
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	s, err := c.secrets.Secrets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read secret: %w", err)
	}
	account, err := c.account(ctx, s)
	if err != nil {
		return 0, err
	}
	if account == nil {
		err := c.kit.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("delete token without account: %w", err)
		}
		return 0, nil
	}
	return 0, c.fill(ctx, s, account)
}

// account is the one that the Secret names, nil if the API has none of the
// name and UID.
func (c *Controller) account(ctx context.Context, s *corev1.Secret) (*corev1.ServiceAccount, error) {
	name, uid := s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey]
	got, err := c.accounts.ServiceAccounts(s.Namespace).Get(name)
	if err == nil && (uid == "" || string(got.UID) == uid) {
		return got, nil
	}
	got, err = c.kit.Client.CoreV1().ServiceAccounts(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && uid != "" && string(got.UID) != uid) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, fmt.Errorf("read account %s: %w", name, err)
	}
	return got, nil
}

// fill writes what the Secret lacks.
func (c *Controller) fill(ctx context.Context, s *corev1.Secret, account *corev1.ServiceAccount) error {
	if c.mint == nil || len(s.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return nil
	}
	token, err := c.mint(account, s)
	if err != nil {
		return fmt.Errorf("make token: %w", err)
	}
	up := s.DeepCopy()
	if up.Data == nil {
		up.Data = map[string][]byte{}
	}
	metav1.SetMetaDataAnnotation(&up.ObjectMeta, corev1.ServiceAccountUIDKey, string(account.UID))
	up.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	up.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	if len(c.root) > 0 {
		up.Data[corev1.ServiceAccountRootCAKey] = c.root
	}
	if _, err := c.kit.Client.CoreV1().Secrets(s.Namespace).Update(ctx, up, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write token: %w", err)
	}
	return nil
}

package apiserver_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/store"
	"skein.dev/skein/api/tokenkey"
	"skein.dev/skein/apiserver"
)

// token asks for one of the account default/bot.
func token(t *testing.T, c kubernetes.Interface, audiences ...string) string {
	t.Helper()
	r, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bot", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

func review(t *testing.T, c kubernetes.Interface, token string, audiences ...string) authenticationv1.TokenReviewStatus {
	t.Helper()
	r, err := c.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

// never waits until a token is refused: what was found good is kept for a while.
func never(t *testing.T, c kubernetes.Interface, token string) {
	t.Helper()
	for range 600 {
		if !review(t, c, token).Authenticated {
			return
		}
		select {
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("the token is still good")
}

func tokenKeys(t *testing.T, c *kubernetes.Clientset, verb, id string) (list tokenkey.List, err error) {
	t.Helper()
	r := c.RESTClient().Verb(verb).AbsPath(tokenkey.Path)
	if id != "" {
		r = r.Param("id", id)
	}
	raw, err := r.DoRaw(t.Context())
	if err != nil {
		return list, err
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list, nil
}

func TestTokensOutliveTheKeyThatSignedThemUntilItIsDropped(t *testing.T) {
	f := start(t)
	// The other peer has the same store and keyring.
	other := start(t, func(c *apiserver.Config) { c.Store, c.ServiceAccountKey = f.store, f.key })
	c, far := f.client(t, f.admin(t)), other.client(t, other.admin(t))
	account(t, c, "bot")
	old := token(t, c)
	list, err := tokenKeys(t, c, "GET", "")
	if err != nil || len(list.Keys) != 1 || !list.Keys[0].Signs || list.Keys[0].Created != nil {
		t.Fatalf("at first: %+v, %v; want the keyring's key alone", list, err)
	}
	first := list.Keys[0].ID
	if list, err = tokenKeys(t, c, "POST", ""); err != nil || len(list.Keys) != 2 || list.Keys[1].ID != first || list.Keys[0].Created == nil {
		t.Fatalf("after a rotation: %+v, %v; want a new key before the old one", list, err)
	}
	fresh := token(t, far)
	for name, peer := range map[string]kubernetes.Interface{"this peer": c, "another peer": far} {
		for what, token := range map[string]string{"old": old, "new": fresh} {
			if st := review(t, peer, token); !st.Authenticated || st.User.Username != "system:serviceaccount:default:bot" {
				t.Errorf("%s token on %s: %+v", what, name, st)
			}
		}
	}
	raw, err := far.RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(raw), list.Keys[0].ID) || !strings.Contains(string(raw), first) {
		t.Errorf("published keys: %s, %v; want both", raw, err)
	}
	if entry := f.store.Local().Get("/skein/token-keys"); entry == nil || !strings.HasPrefix(string(entry.Value), "skein:seal:v1:") {
		t.Error("the keys are not sealed in the store")
	}
	if _, err := tokenKeys(t, c, "DELETE", list.Keys[0].ID); !apierrors.IsConflict(err) {
		t.Errorf("dropping the key that signs: got %v, want a conflict", err)
	}
	if _, err := tokenKeys(t, c, "DELETE", "nonsense"); !apierrors.IsNotFound(err) {
		t.Errorf("dropping a key that is not there: got %v, want not found", err)
	}
	if list, err = tokenKeys(t, far, "DELETE", first); err != nil || len(list.Keys) != 1 {
		t.Fatalf("dropping the old key: %+v, %v", list, err)
	}
	never(t, c, old)
	if st := review(t, c, fresh); !st.Authenticated {
		t.Errorf("new token after the old key went: %+v", st)
	}
	nobody := f.client(t, f.user(t, "ann"))
	if _, err := tokenKeys(t, nobody, "POST", ""); !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights rotates keys: %v", err)
	}
}

// What a key signed that was dropped stays bad when the keys cannot be read.
func TestUnreadableKeysBringNoDroppedKeyBack(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	account(t, c, "bot")
	list, err := tokenKeys(t, c, "GET", "")
	if err != nil {
		t.Fatal(err)
	}
	stolen := token(t, c)
	if _, err := tokenKeys(t, c, "POST", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := tokenKeys(t, c, "DELETE", list.Keys[0].ID); err != nil {
		t.Fatal(err)
	}
	e := f.store.Local().Get("/skein/token-keys")
	res, err := f.store.Propose(t.Context(), store.Txn{
		Guards: []store.Guard{{Key: e.Key, Mod: e.Mod}}, Ops: []store.Op{{Key: e.Key, Value: []byte("damaged")}},
	})
	if err != nil || !res.Held {
		t.Fatal(res, err)
	}
	if st := review(t, c, stolen); st.Authenticated {
		t.Error("a token by the key that was dropped is good again")
	}
	if _, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{}); err == nil {
		t.Error("a token is made with a key that was dropped")
	}
}

func TestATokenInASecretIsGoodWhileTheSecretHoldsIt(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	sa := account(t, c, "bot")
	secret, err := c.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{corev1.ServiceAccountNameKey: "bot", corev1.ServiceAccountUIDKey: string(sa.UID)}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	minted, err := f.MintToken(sa, secret)
	if err != nil {
		t.Fatal(err)
	}
	if st := review(t, c, minted); st.Authenticated {
		t.Fatal("a token that no secret holds is good")
	}
	secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(minted)}
	if _, err := c.CoreV1().Secrets("default").Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	client := f.client(t, bearer(f, minted))
	for range 600 { // the refusal above is kept for a while
		who, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err == nil {
			if u := who.Status.UserInfo; u.Username != "system:serviceaccount:default:bot" || u.UID != string(sa.UID) || !slices.Contains(u.Groups, "system:serviceaccounts:default") {
				t.Errorf("as a bearer: %+v", u)
			}
			break
		}
		if !apierrors.IsUnauthorized(err) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if st := review(t, c, minted, "somebody else"); st.Authenticated {
		t.Error("it is good for an audience that is not the API")
	}
	if err := c.CoreV1().Secrets("default").Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	never(t, c, minted)
}

func TestTokenRequestsAreCheckedAgainstTheirPath(t *testing.T) {
	f := start(t)
	c := f.client(t, f.admin(t))
	sa := account(t, c, "bot")
	short := int64(599)
	for name, row := range map[string]struct {
		request authenticationv1.TokenRequest
		refused func(error) bool
	}{
		"another name":      {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, apierrors.IsInvalid},
		"another UID":       {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: "x"}}, apierrors.IsConflict},
		"its own UID":       {authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: sa.UID}}, nil},
		"too short":         {authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}}, apierrors.IsInvalid},
		"a pod that is not": {bound("v1", "Pod", "none"), apierrors.IsNotFound},
		"another group":     {bound("apps/v1", "Pod", "none"), apierrors.IsBadRequest},
		"another kind":      {bound("v1", "ConfigMap", "none"), apierrors.IsBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "bot", &row.request, metav1.CreateOptions{})
			if row.refused == nil && err != nil || row.refused != nil && !row.refused(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func bound(version, kind, name string) authenticationv1.TokenRequest {
	return authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: version, Kind: kind, Name: name},
	}}
}

package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Bootstrap authenticates the tokens of Secrets kube-system/bootstrap-token-*
// that are marked for authentication, as Kubernetes defines them.
type Bootstrap struct{ Reader Reader }

var _ authenticator.Token = Bootstrap{}

// The keys of a bootstrap token's Secret.
const (
	keyTokenID     = "token-id"
	keyTokenSecret = "token-secret"
	keyExpiration  = "expiration"
	keyUsage       = "usage-bootstrap-authentication"
	keyGroups      = "auth-extra-groups"

	bootstrapGroup = "system:bootstrappers"
)

// AuthenticateToken implements authenticator.Token.
func (b Bootstrap) AuthenticateToken(_ context.Context, token string) (*authenticator.Response, bool, error) {
	form := regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	m := form.FindStringSubmatch(token)
	if m == nil {
		return nil, false, nil
	}
	id, secret := m[1], m[2]
	s := b.Reader.Secret(metav1.NamespaceSystem, "bootstrap-token-"+id)
	if s == nil || s.DeletionTimestamp != nil || s.Type != corev1.SecretTypeBootstrapToken {
		return nil, false, nil
	}
	same := subtle.ConstantTimeCompare(s.Data[keyTokenID], []byte(id)) & subtle.ConstantTimeCompare(s.Data[keyTokenSecret], []byte(secret))
	if same != 1 || string(s.Data[keyUsage]) != "true" {
		return nil, false, nil
	}
	if at, ok := s.Data[keyExpiration]; ok {
		t, err := time.Parse(time.RFC3339, string(at))
		if err != nil || !time.Now().Before(t) {
			return nil, false, errors.New("bootstrap token: it has expired")
		}
	}
	groups := []string{bootstrapGroup}
	for g := range strings.SplitSeq(string(s.Data[keyGroups]), ",") {
		if strings.HasPrefix(g, bootstrapGroup+":") {
			groups = append(groups, g)
		}
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: "system:bootstrap:" + id, Groups: groups}}, true, nil
}

package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/api/peerid"
)

// Token is what one string gives a joiner: who it may say it is, the proof,
// and the hash of the key of the authority it must find at the other end.
type Token struct {
	ID     string // six of a-z and 0-9: public
	Secret string // sixteen of a-z and 0-9
	CAHash string // hex SHA-256, see Keyring.CAHash
}

const (
	tokenPrefix = "skein1"
	tokenChars  = "abcdefghijklmnopqrstuvwxyz0123456789"
	idLen       = 6
	secretLen   = 16
	tokenForm   = "skein1.<id>.<secret>.<hash>"
)

// The reasons for which a token is refused.
var (
	ErrTokenMalformed    = errors.New("token is malformed")
	ErrTokenWrong        = errors.New("token is not known here")
	ErrTokenExpired      = errors.New("token has expired")
	ErrTokenOtherCluster = errors.New("token belongs to another cluster")
)

// NewToken makes a token for joining the mesh of k.
func (k *Keyring) NewToken() (Token, error) { return NewToken(k.CAs[Serving].Cert) }

// NewToken makes a token for joining the mesh whose serving authority is ca.
func NewToken(ca *x509.Certificate) (Token, error) {
	id, err := randomString(idLen)
	if err != nil {
		return Token{}, err
	}
	secret, err := randomString(secretLen)
	if err != nil {
		return Token{}, err
	}
	return Token{ID: id, Secret: secret, CAHash: peerid.Fingerprint(ca)}, nil
}

// String is the token as users pass it on. It holds the secret.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, t.ID, t.Secret, t.CAHash}, ".")
}

// ParseToken reads what [Token.String] wrote. Its errors are one line, wrap
// ErrTokenMalformed, say which part is wrong, and never repeat the secret.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	parts := strings.Split(s, ".")
	bad := func(what string) (Token, error) {
		return Token{}, fmt.Errorf("%w: %s (want %s; `skein token create` prints one)", ErrTokenMalformed, what, tokenForm)
	}
	switch {
	case s == "":
		return bad("it is empty")
	case parts[0] != tokenPrefix:
		return bad("it does not begin with " + tokenPrefix)
	case len(parts) != 4:
		return bad(fmt.Sprintf("it has %d parts, not 4", len(parts)))
	case !tokenPart(parts[1], idLen):
		return bad(fmt.Sprintf("its id is not %d of a-z and 0-9", idLen))
	case !tokenPart(parts[2], secretLen):
		return bad(fmt.Sprintf("its secret is not %d of a-z and 0-9", secretLen))
	}
	if sum, err := hex.DecodeString(parts[3]); err != nil || len(sum) != 32 {
		return bad("its hash is not 64 hex digits; was it cut off?")
	}
	return Token{ID: parts[1], Secret: parts[2], CAHash: strings.ToLower(parts[3])}, nil
}

// The keys of a token's Secret: Kubernetes' own for bootstrap tokens, and two of ours.
const (
	keyID         = "token-id"
	keySecret     = "token-secret"
	keyExpiration = "expiration"
	keyAuth       = "usage-bootstrap-authentication"
	keySigning    = "usage-bootstrap-signing"
	keyJoin       = "usage-skein-join" // the class a joiner gets: "full"
	keyHash       = "skein-ca-hash"

	// TokenNamespace is where the Secrets of tokens are.
	TokenNamespace = metav1.NamespaceSystem
)

// TokenSecretName is the name of the Secret that stands for the token.
func TokenSecretName(id string) string { return "bootstrap-token-" + id }

// TokenSecret is the Secret by which the mesh remembers t until now+ttl; with
// ttl 0 or less it never expires. The token opens joining and nothing else:
// it is no credential for the API.
func TokenSecret(t Token, ttl time.Duration, now time.Time) *corev1.Secret {
	data := map[string][]byte{
		keyID:      []byte(t.ID),
		keySecret:  []byte(t.Secret),
		keyAuth:    []byte("false"),
		keySigning: []byte("false"),
		keyJoin:    []byte("full"),
		keyHash:    []byte(t.CAHash),
	}
	if ttl > 0 {
		data[keyExpiration] = []byte(now.Add(ttl).UTC().Format(time.RFC3339))
	}
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: TokenNamespace, Name: TokenSecretName(t.ID)},
		Type:       corev1.SecretTypeBootstrapToken,
		Data:       data,
	}
}

// CheckCluster fails with ErrTokenOtherCluster if t was made for another mesh.
func (k *Keyring) CheckCluster(t Token) error {
	if subtle.ConstantTimeCompare([]byte(t.CAHash), []byte(k.CAHash())) != 1 {
		return ErrTokenOtherCluster
	}
	return nil
}

// VerifyTokenSecret decides whether presented is the token that s stands for
// and still good. A nil s means that no such Secret exists. The secrets are
// compared in constant time, and before anything else is told.
func VerifyTokenSecret(s *corev1.Secret, presented Token, now time.Time) error {
	if s == nil || s.Type != corev1.SecretTypeBootstrapToken {
		return ErrTokenWrong
	}
	if h := s.Data[keyHash]; len(h) > 0 && subtle.ConstantTimeCompare(h, []byte(presented.CAHash)) != 1 {
		return ErrTokenOtherCluster
	}
	same := subtle.ConstantTimeCompare(s.Data[keyID], []byte(presented.ID)) &
		subtle.ConstantTimeCompare(s.Data[keySecret], []byte(presented.Secret))
	if same != 1 || presented.Secret == "" {
		return ErrTokenWrong
	}
	if string(s.Data[keyJoin]) != "full" {
		return fmt.Errorf("%w: it is not for joining as a full peer", ErrTokenWrong)
	}
	exp, ok, err := TokenExpiration(s)
	if err != nil {
		return err
	}
	if ok && !now.Before(exp) {
		return fmt.Errorf("%w at %s", ErrTokenExpired, exp.Format(time.RFC3339))
	}
	return nil
}

// TokenExpiration returns when the token of s expires; ok is false if never.
func TokenExpiration(s *corev1.Secret) (at time.Time, ok bool, err error) {
	v, ok := s.Data[keyExpiration]
	if !ok {
		return time.Time{}, false, nil
	}
	at, err = time.Parse(time.RFC3339, string(v))
	if err != nil {
		return time.Time{}, false, fmt.Errorf("%w: expiration of %s is unreadable", ErrTokenExpired, s.Name)
	}
	return at, true, nil
}

func tokenPart(s string, n int) bool {
	return len(s) == n && strings.Trim(s, tokenChars) == ""
}

func randomString(n int) (string, error) {
	b := make([]byte, n)
	for i := range b {
		c, err := rand.Int(rand.Reader, big.NewInt(int64(len(tokenChars))))
		if err != nil {
			return "", fmt.Errorf("make token: %w", err)
		}
		b[i] = tokenChars[c.Int64()]
	}
	return string(b), nil
}

package apiserver

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"k8s.io/apiserver/pkg/server/options"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/registry"
)

// Config is what a server is made of. Fields without a default are mandatory.
type Config struct {
	Peer  member.Name
	Store store.Store
	Kinds []registry.Kind

	// Listener yields the connections of API clients before their TLS
	// handshake. Nil: only in-process clients are served.
	Listener net.Listener
	// TLS has the serving certificate (Certificates or GetCertificate); the
	// server adds protocols and client authentication.
	TLS *tls.Config
	// ClientCAs signs the certificates of users and components; nil: nobody
	// is authenticated by a certificate.
	ClientCAs *x509.CertPool
	// ClientCAPEM and ServingCAPEM are published in the ConfigMap
	// kube-system/extension-apiserver-authentication and to token requesters.
	ClientCAPEM, ServingCAPEM []byte
	// FrontProxy is who this server is towards aggregated API servers. The API
	// servers of its authority may speak for others here, too.
	FrontProxy FrontProxy

	// ServiceAccountKey signs and verifies service account tokens (ES256)
	// until it is replaced at tokenkey.Path; nil: none are issued nor accepted.
	ServiceAccountKey *ecdsa.PrivateKey
	// Issuer is the tokens' issuer; empty means https://kubernetes.default.svc.
	Issuer string

	// AuthenticationFile is an AuthenticationConfiguration
	// (apiserver.config.k8s.io): other issuers of tokens, and who may be
	// anonymous. AuthorizationFile is an AuthorizationConfiguration: who
	// decides, in which order; it must have Node and RBAC in it. Both are
	// read again when they change; empty: only what the cluster itself
	// knows counts.
	AuthenticationFile, AuthorizationFile string
	// TokenWebhook is asked about tokens that nobody else knows.
	TokenWebhook TokenWebhook

	// Sealing keys open what they sealed; the first one seals. Empty: secrets
	// are stored in plain, which only tests want.
	Sealing []SealingKey

	// EncryptionFile holds an EncryptionConfiguration, which is followed. It
	// must say the same on all peers before its first providers encrypt.
	// Empty: only secrets are sealed, by the keys above.
	EncryptionFile string

	// ServiceCIDRs are the ranges of cluster addresses, at most one an IP
	// family, the primary family first. Empty means 10.96.0.0/16.
	ServiceCIDRs []netip.Prefix
	// NodePorts is the range of node ports; zero means 30000-32767.
	NodePorts PortRange

	// Handlers are further paths that the server serves.
	Handlers []Handler

	// AdmissionFile holds an AdmissionConfiguration for plugins that can be
	// configured; empty: none is.
	AdmissionFile string

	// Audit says what is audited, and where events go; nil: nothing is.
	Audit *options.AuditOptions

	// MaxReads and MaxWrites are how many requests are worked on at the same
	// time; together they are what priority and fairness shares out. Zero
	// means upstream's 400 and 200.
	MaxReads, MaxWrites int

	// RequestTimeout bounds requests that are not watches or streams; zero
	// means a minute.
	RequestTimeout time.Duration
	// ShutdownDelay is how long the server goes on, no longer ready, before
	// it stops.
	ShutdownDelay time.Duration
	// GoawayChance is the share of HTTP/2 requests whose client is told to
	// connect anew, so that clients spread over the peers; zero: none.
	GoawayChance float64
	// HSTS are the directives of Strict-Transport-Security; empty: no header.
	HSTS []string

	// Kubelet says how node APIs are reached.
	Kubelet Kubelet

	// Endpoints returns where the API servers of all live peers are reached,
	// for the Service default/kubernetes; nil: it gets no endpoints.
	Endpoints func() []netip.AddrPort
	// EndpointsChanged returns a channel that is closed at the next change
	// of Endpoints; nil: they are looked at once a minute.
	EndpointsChanged func() <-chan struct{}

	// Log may be nil.
	Log *slog.Logger
}

// FrontProxy is the identity under which requests are passed on to other API
// servers, with the user's name in headers. They know it by CAPEM, which is
// published in the same ConfigMap.
type FrontProxy struct {
	CertFile, KeyFile string // may be one file; read again when it changes
	CAPEM             []byte
}

// SealingKey is one AES-256 key; ID is short and never reused.
type SealingKey struct {
	ID  string
	Key []byte
}

// PortRange is first to last, both included.
type PortRange struct{ First, Last int32 }

// TokenWebhook is a server that knows users by tokens.
type TokenWebhook struct {
	// File is a kubeconfig that says how it is reached; empty: nobody is asked.
	File string
	// Version is that of the TokenReview it takes, v1 or v1beta1.
	Version string
}

// Handler serves what begins with Path.
type Handler struct {
	Path    string
	Handler http.Handler
	// Open handlers get requests before authentication. The others are
	// authorized as non-resource URLs.
	Open bool
}

// Kubelet is the way to the node API.
type Kubelet struct {
	// TLS has the client certificate and the CA of kubelets; nil: logs, exec
	// and the like answer 503.
	TLS *tls.Config
	// Port is the node API's port; 0 means the node's own word, else 10250.
	Port int32
}

const defaultIssuer = "https://kubernetes.default.svc"

func (c *Config) complete() error {
	switch {
	case c.Store == nil:
		return errors.New("apiserver: Store is missing")
	case len(c.Kinds) == 0:
		return errors.New("apiserver: Kinds are missing")
	case c.Listener != nil && c.TLS == nil:
		return errors.New("apiserver: a Listener needs TLS")
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = time.Minute
	}
	if c.MaxReads == 0 {
		c.MaxReads = defaultReads
	}
	if c.MaxWrites == 0 {
		c.MaxWrites = defaultWrites
	}
	if c.Issuer == "" {
		c.Issuer = defaultIssuer
	}
	if len(c.ServiceCIDRs) == 0 {
		c.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
	}
	if c.NodePorts == (PortRange{}) {
		c.NodePorts = PortRange{First: 30000, Last: 32767}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

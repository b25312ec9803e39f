package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/peerid"
)

// Use is what one certificate of a peer is for.
type Use string

// The certificates every full peer has.
const (
	UsePeer          Use = "peer"           // both ends of peer links
	UseAPIServer     Use = "apiserver"      // the API's server
	UseKubelet       Use = "kubelet"        // the node API's server
	UseNode          Use = "node"           // client: system:node:<name>
	UseKubeletClient Use = "kubelet-client" // client: the API server towards kubelets
	UseFrontProxy    Use = "front-proxy"    // client: the API server towards aggregated ones
	UseAdmin         Use = "admin"          // client: system:masters
	UseScheduler     Use = "scheduler"      // client: system:kube-scheduler
	UseControllers   Use = "controllers"    // client: system:kube-controller-manager
	UseProxy         Use = "proxy"          // client: system:kube-proxy
)

// KubeletClientUser is who API servers are towards the node API. It is in no
// group: it may ask kubelets and nothing else.
const KubeletClientUser = "kube-apiserver-kubelet-client"

// Uses returns all uses in a fixed order.
func Uses() []Use {
	return []Use{
		UsePeer, UseAPIServer, UseKubelet, UseNode, UseKubeletClient,
		UseFrontProxy, UseAdmin, UseScheduler, UseControllers, UseProxy,
	}
}

// JoinUses returns the uses for which a joiner sends requests; it issues the
// others itself once it holds the keyring.
func JoinUses() []Use { return []Use{UsePeer, UseAPIServer, UseKubelet, UseNode} }

// Machine is what the certificates of one peer say about it.
type Machine struct {
	Name      member.Name
	ServerID  member.ServerID
	Addresses []netip.Addr // the node's own; loopback is added where it belongs
	// ServiceIPs are the addresses of the Service kubernetes, such as 10.96.0.1.
	ServiceIPs []netip.Addr
	// Domain is the cluster's DNS domain; empty means cluster.local.
	Domain string
	// Names are further DNS names the API is reached by; may be empty.
	Names []string
}

func (m Machine) check() error {
	if errs := validation.IsDNS1123Label(string(m.Name)); len(errs) > 0 {
		return fmt.Errorf("peer name %q: %s", m.Name, errs[0])
	}
	if m.ServerID == "" {
		return fmt.Errorf("peer %s: server id is missing", m.Name)
	}
	if len(m.Addresses) == 0 {
		return fmt.Errorf("peer %s: no address", m.Name)
	}
	return nil
}

// IssueClient makes a certificate for a user in groups, with a new key.
func (k *Keyring) IssueClient(user string, groups []string, now time.Time) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	t := clientTemplate(user, groups...)
	return k.pair(Clients, t, key, now)
}

// Issue makes m's certificate for use, with a new key.
func (k *Keyring) Issue(use Use, m Machine, now time.Time) (Pair, error) {
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	return k.issueFor(use, m, key, now)
}

func (k *Keyring) issueFor(use Use, m Machine, key *ecdsa.PrivateKey, now time.Time) (Pair, error) {
	a, t, err := template(use, m)
	if err != nil {
		return Pair{}, err
	}
	return k.pair(a, t, key, now)
}

func (k *Keyring) pair(a Authority, t *x509.Certificate, key *ecdsa.PrivateKey, now time.Time) (Pair, error) {
	chain, err := k.sign(a, t, &key.PublicKey, now)
	if err != nil {
		return Pair{}, err
	}
	kp, err := keyPEM(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Chain: chain, Key: kp}, nil
}

// sign returns the leaf and, behind it, the authority's certificate: a joiner
// that knows only the authority's hash must find it in what a server presents.
func (k *Keyring) sign(a Authority, t *x509.Certificate, pub any, now time.Time) ([]byte, error) {
	ca, ok := k.CAs[a]
	if !ok {
		return nil, fmt.Errorf("sign certificate for %s: authority %s is missing", t.Subject.CommonName, a)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t.SerialNumber = serial
	t.NotBefore = now.Add(-backdate)
	t.NotAfter = now.Add(certLife)
	if t.NotAfter.After(ca.Cert.NotAfter) {
		t.NotAfter = ca.Cert.NotAfter
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, ca.Cert, pub, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %s: %w", t.Subject.CommonName, err)
	}
	return append(certPEM(der), certPEM(ca.Cert.Raw)...), nil
}

// template is the table of what each use's certificate says.
func template(use Use, m Machine) (Authority, *x509.Certificate, error) {
	if err := m.check(); err != nil {
		return "", nil, err
	}
	switch use {
	case UsePeer:
		t := serverTemplate(string(m.Name), nil, nil)
		t.URIs = []*url.URL{peerid.URI(m.ServerID)}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		return Peers, t, nil
	case UseAPIServer:
		return Serving, serverTemplate("kube-apiserver", apiNames(m), apiAddresses(m)), nil
	case UseKubelet:
		t := serverTemplate("system:node:"+string(m.Name), []string{string(m.Name)}, m.Addresses)
		t.Subject.Organization = []string{"system:nodes"}
		return Serving, t, nil
	case UseNode:
		return Clients, clientTemplate("system:node:"+string(m.Name), "system:nodes"), nil
	case UseKubeletClient:
		return Clients, clientTemplate(KubeletClientUser), nil
	case UseFrontProxy:
		return FrontProxy, clientTemplate("front-proxy-client"), nil
	case UseAdmin:
		return Clients, clientTemplate("kubernetes-admin", "system:masters"), nil
	case UseScheduler:
		return Clients, clientTemplate("system:kube-scheduler"), nil
	case UseControllers:
		return Clients, clientTemplate("system:kube-controller-manager"), nil
	case UseProxy:
		return Clients, clientTemplate("system:kube-proxy"), nil
	default:
		return "", nil, fmt.Errorf("issue certificate: unknown use %q", use)
	}
}

func clientTemplate(user string, groups ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func serverTemplate(name string, dns []string, ips []netip.Addr) *x509.Certificate {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    dns,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range ips {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	return t
}

func apiNames(m Machine) []string {
	domain := m.Domain
	if domain == "" {
		domain = "cluster.local"
	}
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + domain, "localhost", string(m.Name),
	}
	for _, n := range m.Names {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

func apiAddresses(m Machine) []netip.Addr {
	all := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, ip := range slices.Concat(m.Addresses, m.ServiceIPs) {
		if !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return all
}

func newCA(a Authority, cluster string, now time.Time) (CA, error) {
	key, err := newKey()
	if err != nil {
		return CA{}, err
	}
	serial, err := newSerial()
	if err != nil {
		return CA{}, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "skein " + string(a) + " " + cluster[:8]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return CA{}, fmt.Errorf("make authority %s: %w", a, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return CA{}, fmt.Errorf("parse authority %s: %w", a, err)
	}
	return CA{Cert: cert, Key: key}, nil
}

func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

// TLS returns p for use in a tls.Config.
func (p Pair) TLS() (tls.Certificate, error) {
	c, err := tls.X509KeyPair(p.Chain, p.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	return c, nil
}

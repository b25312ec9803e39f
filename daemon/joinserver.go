package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/mesh/v1alpha1"
	"skein.dev/skein/api/peerid"
	"skein.dev/skein/api/store"
	"skein.dev/skein/identity"
)

// maxJoinRequest bounds what a stranger may send: four small certificate requests.
const maxJoinRequest = 64 << 10

// joinServer admits new peers: it checks the token, gives the peer its ranges
// and its record, and only then signs.
type joinServer struct {
	keyring  *identity.Keyring
	settings settings
	store    store.Store
	client   kubernetes.Interface
	peers    peerClient
	members  member.View
	log      *slog.Logger
}

// refusal is a reason for which a joiner is turned away.
type refusal struct {
	code    int
	message string
	hint    string
}

func (r *refusal) Error() string { return r.message }

func (s *joinServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply, err := s.serve(w, r)
	w.Header().Set("Content-Type", "application/json")
	if err == nil {
		if err := json.NewEncoder(w).Encode(reply); err != nil {
			s.log.WarnContext(r.Context(), "join reply was not delivered", "err", err)
		}
		return
	}
	no := &refusal{code: http.StatusServiceUnavailable, message: err.Error(), hint: "try again, or ask another peer"}
	errors.As(err, &no)
	s.log.InfoContext(r.Context(), "refused a joiner", "from", r.RemoteAddr, "reason", no.message)
	w.WriteHeader(no.code)
	if err := json.NewEncoder(w).Encode(identity.JoinError{Message: no.message, Hint: no.hint}); err != nil {
		s.log.DebugContext(r.Context(), "refusal was not delivered", "err", err)
	}
}

func (s *joinServer) serve(w http.ResponseWriter, r *http.Request) (*identity.JoinReply, error) {
	if r.Method != http.MethodPost {
		return nil, &refusal{code: http.StatusMethodNotAllowed, message: "join takes POST"}
	}
	var req identity.JoinRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinRequest)).Decode(&req); err != nil {
		return nil, &refusal{code: http.StatusBadRequest, message: "join request is malformed: " + err.Error()}
	}
	if err := s.checkToken(r.Context(), req.Token); err != nil {
		return nil, err
	}
	if err := checkJoinRequest(req); err != nil {
		return nil, &refusal{code: http.StatusBadRequest, message: err.Error()}
	}
	return s.admit(r.Context(), req)
}

func (s *joinServer) checkToken(ctx context.Context, text string) error {
	t, err := identity.ParseToken(text)
	if err != nil {
		return &refusal{code: http.StatusUnauthorized, message: err.Error()}
	}
	if err := s.keyring.CheckCluster(t); err != nil {
		return &refusal{code: http.StatusUnauthorized, message: err.Error()}
	}
	secret, err := s.client.CoreV1().Secrets(identity.TokenNamespace).Get(ctx, identity.TokenSecretName(t.ID), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		secret = nil
	} else if err != nil {
		return fmt.Errorf("look up token: %w", err)
	}
	if err := identity.VerifyTokenSecret(secret, t, time.Now()); err != nil {
		return &refusal{
			code: http.StatusUnauthorized, message: err.Error(),
			hint: "make a new one on a peer of the mesh with `skein token create`",
		}
	}
	return nil
}

func checkJoinRequest(req identity.JoinRequest) error {
	if errs := validation.IsDNS1123Subdomain(string(req.Name)); len(errs) > 0 {
		return fmt.Errorf("peer name %q: %s", req.Name, errs[0])
	}
	if req.ServerID == "" || len(req.Addresses) == 0 {
		return errors.New("join request lacks the server id or the addresses")
	}
	if req.Port < 1 || req.Port > 65535 {
		return fmt.Errorf("port %d: must be between 1 and 65535", req.Port)
	}
	if err := checkDeclines(req.Declines); err != nil {
		return err
	}
	for _, a := range req.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("address %s: cannot be a peer's", a)
		}
	}
	return nil
}

func (s *joinServer) admit(ctx context.Context, req identity.JoinRequest) (*identity.JoinReply, error) {
	known, err := s.peers.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list peers: %w", err)
	}
	if err := s.checkName(req, known.Items); err != nil {
		return nil, err
	}
	m := identity.Machine{
		Name: req.Name, ServerID: req.ServerID, Addresses: req.Addresses,
		ServiceIPs: s.settings.apiAddresses(), Domain: s.settings.ClusterDomain,
	}
	chains, err := s.keyring.SignJoin(m, req.Requests, time.Now())
	if err != nil {
		return nil, &refusal{code: http.StatusBadRequest, message: err.Error()}
	}
	fingerprint, err := identity.Pair{Chain: chains[identity.UsePeer]}.Fingerprint()
	if err != nil {
		return nil, err
	}
	var ranges []netip.Prefix
	if !req.APIOnly {
		if ranges, err = claimPodCIDRs(ctx, s.store, s.settings.ClusterCIDRs, req.Name); err != nil {
			return nil, err
		}
	}
	peer := newPeer(req.Name, v1alpha1.PeerSpec{
		ServerID: string(req.ServerID), Class: v1alpha1.Full, Addresses: texts(req.Addresses), Port: req.Port,
		Fingerprint: fingerprint, Zone: req.Zone, PodCIDRs: texts(ranges), APIOnly: req.APIOnly, Declines: plain(req.Declines),
	})
	if err := s.writePeer(ctx, peer); err != nil {
		return nil, err
	}
	bundle, err := s.keyring.Bundle()
	if err != nil {
		return nil, err
	}
	bundle.Certificates = chains
	bundle.Settings = s.settings.encode()
	bundle.Settings[podCIDRSetting] = strings.Join(texts(ranges), ",")
	for _, p := range known.Items {
		if p.Name != string(req.Name) {
			bundle.Peers = append(bundle.Peers, address(p))
		}
	}
	s.log.InfoContext(ctx, "admitted a peer", "peer", req.Name, "serverId", req.ServerID, "addresses", req.Addresses)
	return &identity.JoinReply{Bundle: bundle}, nil
}

// checkName lets a name be taken again only from a peer that is dead or gone.
func (s *joinServer) checkName(req identity.JoinRequest, known []v1alpha1.Peer) error {
	i := slices.IndexFunc(known, func(p v1alpha1.Peer) bool { return p.Name == string(req.Name) })
	if i < 0 || known[i].Spec.ServerID == string(req.ServerID) || known[i].Spec.Leaving {
		return nil
	}
	for _, m := range s.members.Peers() {
		if m.Name == req.Name && (m.State == member.Dead || m.State == member.Left) {
			return nil
		}
	}
	return &refusal{
		code: http.StatusConflict, message: fmt.Sprintf("peer %s: the mesh has a peer of that name", req.Name),
		hint: "choose another with --name, or wait until the old one is seen to be dead",
	}
}

func (s *joinServer) writePeer(ctx context.Context, p *v1alpha1.Peer) error {
	_, err := s.peers.Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		var old *v1alpha1.Peer
		if old, err = s.peers.Get(ctx, p.Name, metav1.GetOptions{}); err == nil {
			p.ResourceVersion = old.ResourceVersion
			_, err = s.peers.Update(ctx, p, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("record peer %s: %w", p.Name, err)
	}
	return nil
}

func newPeer(name member.Name, spec v1alpha1.PeerSpec) *v1alpha1.Peer {
	return &v1alpha1.Peer{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Peer"},
		ObjectMeta: metav1.ObjectMeta{Name: string(name), Labels: map[string]string{corev1.LabelHostname: string(name)}},
		Spec:       spec,
	}
}

// address is where p is, as joiners are told.
func address(p v1alpha1.Peer) identity.PeerAddress {
	return identity.PeerAddress{
		Name: member.Name(p.Name), ServerID: member.ServerID(p.Spec.ServerID),
		Address: hostPort(p), Fingerprint: p.Spec.Fingerprint,
	}
}

func hostPort(p v1alpha1.Peer) string {
	return net.JoinHostPort(p.Spec.Addresses[0], strconv.Itoa(int(p.Spec.Port)))
}

func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// recordSelf makes the first peer known to the mesh: everyone else is
// recorded by who admits them.
func recordSelf(ctx context.Context, c Config, r *record, own identity.Pair, peers peerClient) error {
	leaf, err := own.Leaf()
	if err != nil {
		return err
	}
	p := newPeer(r.Name, v1alpha1.PeerSpec{
		ServerID: string(r.ServerID), Class: v1alpha1.Full, Addresses: texts(c.Addresses), Port: int32(c.Port),
		Fingerprint: peerid.Fingerprint(leaf), Zone: c.Zone, PodCIDRs: texts(r.PodCIDRs), APIOnly: c.APIOnly(), Declines: plain(c.declines()),
	})
	_, err = peers.Create(ctx, p, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record peer %s: %w", r.Name, err)
	}
	return nil
}

// parseAddrs reads the addresses of a Peer, leaving out what is malformed.
func parseAddrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

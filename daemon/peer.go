package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/apiserver"
	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/controllers"
	"skein.dev/skein/controllers/csr"
	"skein.dev/skein/dnsaddon"
	"skein.dev/skein/engine"
	"skein.dev/skein/gossip"
	"skein.dev/skein/identity"
	"skein.dev/skein/kubelet"
	"skein.dev/skein/link"
	"skein.dev/skein/network"
	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/nft"
	"skein.dev/skein/proxy"
	"skein.dev/skein/raftstore"
	"skein.dev/skein/sched"
)

// selfUser is the identity of the API server and of what the daemon does for
// the mesh itself.
const selfUser = "system:apiserver"

// peer is one peer with all its parts.
type peer struct {
	Config
	record  *record
	keyring *identity.Keyring
	certs   map[identity.Use]identity.Pair
	version string
	log     *slog.Logger

	port       *link.Port
	packets    net.PacketConn
	store      *raftstore.Store
	pool       *gossip.Pool
	feed       *network.Feed
	membership *membership
	api        *apiserver.Server
	client     kubernetes.Interface // as selfUser
	peers      peerClient
	informers  informers.SharedInformerFactory
	engine     *engine.Engine
	network    *network.Network
	proxy      *proxy.Proxy
	dns        *dnsaddon.DNS
	kubelet    *kubelet.Kubelet
	hostPorts  lb.Feed // from kubelet to proxy
	sched      *sched.Scheduler
	control    *controllers.Controllers
}

// wire makes all parts; nothing of them runs yet. What it opened is closed
// when it fails.
func (p *peer) wire(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		p.openPort, p.openStore, p.makeGossip, p.makeAPI, p.makeMembership, p.makeNode, p.makeRoles,
	} {
		if err := step(ctx); err != nil {
			p.close(ctx)
			return err
		}
	}
	return nil
}

// close releases what wire opened.
func (p *peer) close(ctx context.Context) {
	var errs []error
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.packets != nil {
		errs = append(errs, p.packets.Close())
	}
	if p.port != nil {
		errs = append(errs, p.port.Close())
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, net.ErrClosed) {
		p.log.WarnContext(ctx, "peer did not close in order", "err", err)
	}
}

func (p *peer) credentials() link.Credentials {
	return link.Credentials{
		Self:        p.record.ServerID,
		Certificate: p.certificate(identity.UsePeer),
		Roots:       func() *x509.CertPool { return p.keyring.Pool(identity.Peers) },
		Mesh: func() link.Mesh {
			return link.Mesh{Cluster: p.keyring.Cluster.ID, Incarnation: p.keyring.Cluster.Incarnation}
		},
		Authorize: func(r link.Remote) error { return p.membership.authorize(r) },
	}
}

func (p *peer) certificate(use identity.Use) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) {
		c, err := p.own(use).TLS()
		return &c, err
	}
}

func (p *peer) openPort(ctx context.Context) error {
	// Links may come as soon as the port runs; membership decides about them.
	p.feed = &network.Feed{}
	p.membership = &membership{feed: p.feed, log: p.log.With("component", "membership")}
	address := net.JoinHostPort("", strconv.Itoa(p.Port))
	port, err := link.Open(ctx, link.Config{Address: address, Credentials: p.credentials(), Log: p.log.With("component", "link")})
	if errors.Is(err, link.ErrPortInUse) {
		return &configError{hinted{err, "stop what uses it"}}
	}
	if err != nil {
		return err
	}
	p.port = port
	p.packets, err = link.ListenPacket(ctx, address)
	return err
}

func (p *peer) links() (*links, error) {
	dialer, err := link.NewDialer(p.credentials())
	if err != nil {
		return nil, err
	}
	own, err := p.own(identity.UsePeer).TLS()
	if err != nil {
		return nil, err
	}
	return &links{dialer: dialer, keyring: p.keyring, own: own, guardPort: p.GuardPort}, nil
}

func (p *peer) openStore(context.Context) error {
	l, err := p.links()
	if err != nil {
		return err
	}
	p.store, err = raftstore.Open(raftstore.Config{
		Dir: filepath.Join(p.DataDir, raftDir), ServerID: p.record.ServerID, Name: p.record.Name,
		Address: p.at(), Bootstrap: p.record.First, Declines: p.declines(),
		Raft: l.network(p.port, link.Raft), Link: l.network(p.port, link.Peer),
		Log: p.log.With("component", "store"),
	})
	p.membership.store = p.store
	return err
}

// at is where other peers dial this one.
func (p *peer) at() string { return net.JoinHostPort(p.Addresses[0].String(), strconv.Itoa(p.Port)) }

func (p *peer) makeGossip(context.Context) error {
	l, err := p.links()
	if err != nil {
		return err
	}
	p.pool, err = gossip.New(gossip.Config{
		Self: gossip.Member{
			Name: p.record.Name, ServerID: p.record.ServerID, Addresses: p.Addresses,
			Port: uint16(p.Port), Zone: p.Zone, Version: p.version,
		},
		Keys: p.keyring.Gossip, Mesh: p.keyring.Cluster.ID + "/" + p.keyring.Cluster.Incarnation,
		Packets: p.packets, Streams: p.port.Listener(link.Gossip), Dialer: l, Prober: l,
		Records: seedMembers(p.record.Seeds), Log: p.log.With("component", "gossip"),
	})
	p.membership.pool = p.pool
	return err
}

func (p *peer) makeAPI(context.Context) error {
	kubeletClient, err := p.own(identity.UseKubeletClient).TLS()
	if err != nil {
		return err
	}
	log := p.log.With("component", "apiserver")
	join := &joinServer{keyring: p.keyring, settings: p.record.Settings, store: p.store, members: p.pool, log: p.log.With("component", "join")}
	st := &statusServer{
		self: p.record.Name, cluster: p.keyring.Cluster.ID, store: p.store, pool: p.pool,
		records: p.membership.addresses, apiOnly: p.membership.apiOnly, log: log,
	}
	var sealing []apiserver.SealingKey
	for _, k := range p.keyring.Sealing {
		sealing = append(sealing, apiserver.SealingKey{ID: k.ID, Key: k.Key})
	}
	p.api, err = apiserver.New(apiserver.Config{
		Peer: p.record.Name, Store: p.store, Kinds: kinds.All(),
		Listener:  p.port.API(),
		TLS:       &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: p.serving(identity.UseAPIServer)},
		ClientCAs: p.keyring.Pool(identity.Clients), ClientCAPEM: p.keyring.CAPEM(identity.Clients),
		ServingCAPEM: p.keyring.CAPEM(identity.Serving), ServiceAccountKey: p.keyring.ServiceAccount,
		FrontProxy: apiserver.FrontProxy{
			CertFile: p.keys().Path(identity.UseFrontProxy), KeyFile: p.keys().Path(identity.UseFrontProxy),
			CAPEM: p.keyring.CAPEM(identity.FrontProxy),
		},
		AuthenticationFile: p.AuthenticationConfig, AuthorizationFile: p.AuthorizationConfig,
		TokenWebhook: apiserver.TokenWebhook{File: p.TokenWebhookConfig, Version: p.TokenWebhookVersion},
		Sealing:      sealing, ServiceCIDRs: p.ServiceCIDRs,
		Kubelet: apiserver.Kubelet{
			TLS: &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{kubeletClient},
				RootCAs: p.keyring.Pool(identity.Serving),
			},
			Port: int32(p.NodePort),
		},
		Handlers: []apiserver.Handler{
			{Path: identity.JoinPath, Handler: join, Open: true},
			{Path: statusPath, Handler: st},
		},
		AdmissionFile: p.API.AdmissionFile, EncryptionFile: p.API.EncryptionFile, Audit: p.API.Audit,
		MaxReads: p.API.MaxReads, MaxWrites: p.API.MaxWrites, RequestTimeout: p.API.RequestTimeout,
		ShutdownDelay: p.API.ShutdownDelay, GoawayChance: p.API.GoawayChance, HSTS: p.API.HSTS,
		Endpoints: p.membership.endpoints, EndpointsChanged: p.pool.Changed, Log: log,
	})
	if err != nil {
		return err
	}
	if p.client, err = kubernetes.NewForConfig(p.api.ClientConfig(selfUser)); err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	if p.peers, err = newPeerClient(p.api.ClientConfig(selfUser)); err != nil {
		return err
	}
	join.client, join.peers = p.client, p.peers
	p.informers = p.api.Informers(p.client)
	st.nodes = p.informers.Core().V1().Nodes().Lister()
	return nil
}

func (p *peer) serving(use identity.Use) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	get := p.certificate(use)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return get() }
}

func (p *peer) makeMembership(context.Context) error {
	p.membership.records = newPeerInformer(p.peers)
	return nil
}

// kits makes components' access; their events are sent until the peer ends.
func (p *peer) kits() *kits {
	return &kits{
		peer: p.record.Name, config: p.api.ClientConfig, informers: p.informers,
		settled: p.store.Verified, log: p.log,
	}
}

func (p *peer) makeNode(ctx context.Context) error {
	if p.APIOnly() {
		return nil
	}
	var err error
	if p.engine, err = newEngine(p.Config, "", p.log.With("component", "engine")); err != nil {
		return err
	}
	dnsAddrs := p.record.Settings.dnsAddresses()
	if p.network, err = network.New(network.Config{
		Peer: p.record.Name, Peers: p.feed, ClusterCIDRs: p.ClusterCIDRs, Local: dnsAddrs,
		Settled: p.store.Verified, Log: p.log.With("component", "network"),
	}); err != nil {
		return err
	}
	kit, err := p.kits().make(ctx, "proxy", "system:kube-proxy")
	if err != nil {
		return err
	}
	table, err := nft.New(nft.Config{})
	if err != nil {
		return err
	}
	if p.proxy, err = proxy.New(proxy.Config{Kit: kit, Backend: table, View: p.pool, Own: dnsAddrs, Ports: &p.hostPorts}); err != nil {
		return err
	}
	if kit, err = p.kits().make(ctx, "dns", "system:skein-dns"); err != nil {
		return err
	}
	if p.dns, err = dnsaddon.New(dnsaddon.Config{Kit: kit, Domain: p.ClusterDomain, Addresses: dnsAddrs, View: p.pool}); err != nil {
		return err
	}
	return p.makeKubelet(ctx)
}

func (p *peer) makeKubelet(ctx context.Context) error {
	kit, err := p.kits().make(ctx, "kubelet", "system:node:"+string(p.record.Name))
	if err != nil {
		return err
	}
	serving, err := p.own(identity.UseKubelet).TLS()
	if err != nil {
		return err
	}
	evict, err := p.evictionHard()
	if err != nil {
		return err
	}
	p.kubelet, err = kubelet.New(kubelet.Config{
		EvictionHard: evict, ImageHigh: p.ImageHigh,
		Kit: kit, NodeIPs: p.Addresses, CRIEndpoint: p.engine.Endpoint(),
		RootDir: filepath.Join(p.DataDir, kubeletDir), LogDir: filepath.Join(p.DataDir, "pods"),
		CgroupRoot: p.CgroupParent, ClusterDNS: p.record.Settings.dnsAddresses(), ClusterDomain: p.ClusterDomain,
		PodCIDRs: p.record.PodCIDRs, Listen: net.JoinHostPort("", strconv.Itoa(p.NodePort)),
		TLS: &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{serving},
			ClientAuth: tls.RequestClientCert, ClientCAs: p.keyring.Pool(identity.Clients),
		},
		Authorize: p.authorizeNodeAPI, Version: p.version, HostPorts: &p.hostPorts,
	})
	return err
}

func (p *peer) makeRoles(ctx context.Context) error {
	declines := p.declines()
	if !slices.Contains(declines, role.Scheduler) {
		if err := p.makeScheduler(ctx); err != nil {
			return err
		}
	}
	if slices.Contains(declines, role.Controllers) {
		return nil
	}
	return p.makeControllers(ctx)
}

func (p *peer) makeScheduler(ctx context.Context) error {
	kit, err := p.kits().make(ctx, "default-scheduler", "system:kube-scheduler")
	if err != nil {
		return err
	}
	p.sched, err = sched.New(sched.Config{Kit: kit, MinRevision: p.assignedAt, Volumes: true})
	return err
}

func (p *peer) makeControllers(ctx context.Context) error {
	as, err := p.kits().controllers(ctx)
	if err != nil {
		return err
	}
	selection, err := controllers.Select(p.Controllers)
	if err != nil {
		return err
	}
	p.control, err = controllers.New(controllers.Config{
		Selection: selection, ClientCA: p.authority(identity.Clients), ServingCA: p.authority(identity.Serving),
		As: as, Log: p.log.With("component", "controllers"), Members: p.pool, Monitor: p.api.MetadataInformer, RootCA: p.keyring.CAPEM(identity.Serving),
		Serves: p.api.Serves, MinRevision: p.assignedAt, MintToken: p.api.MintToken,
	})
	return err
}

// authority signs certificate requests that were approved.
func (p *peer) authority(a identity.Authority) *csr.Authority {
	ca := p.keyring.CAs[a]
	return &csr.Authority{Cert: ca.Cert, Key: ca.Key}
}

// assignedAt is the revision that a holder's informers must have reached
// before it decides anything under f.
func (p *peer) assignedAt(f role.Fence) uint64 { return uint64(p.store.AssignedAt(f.Role)) }

// runner follows one role.
func (p *peer) runner(name role.Name, work func(context.Context, role.Fence, func()) error) *roleRunner {
	return &roleRunner{role: name, self: p.record.Name, store: p.store, work: work, log: p.log.With("component", "roles")}
}

// addresses are those of the peers on record, by name.
func (m *membership) addresses() map[member.Name]string {
	out := map[member.Name]string{}
	if m.records == nil {
		return out
	}
	for _, p := range m.peers() {
		out[member.Name(p.Name)] = p.Spec.Addresses[0]
	}
	return out
}

// synced waits for the informers that the daemon itself reads.
func (p *peer) synced(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), p.informers.Core().V1().Nodes().Informer().HasSynced) {
		return ctx.Err()
	}
	return nil
}

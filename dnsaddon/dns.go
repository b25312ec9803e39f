// Package dnsaddon is the cluster's DNS as each peer answers it by itself, out
// of its own replica: the Kubernetes DNS specification 1.1 for the cluster's
// domain, and upstream resolvers with a cache for everything else.
//
// Its invariant: an answer comes from one consistent entry of the index, which
// readers use without locks; before the index is filled for the first time,
// the cluster's names are "try again", never "no such name".
package dnsaddon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/member"
)

// Config is what the DNS add-on works with. Kit is needed, and Addresses or
// open sockets.
type Config struct {
	Kit component.Kit
	// Domain is the cluster's domain; default cluster.local.
	Domain string
	// Addresses are the cluster DNS addresses. They need not be on an
	// interface yet when Run begins (network.Config.Local puts them there).
	Addresses []netip.Addr
	// Port is 53 by default.
	Port uint16
	// Sockets is how many UDP sockets share an address; default 8.
	Sockets int
	// UDP and TCP are sockets that are open already, handed over by who
	// outlives this process. With any, none are opened. Run closes them.
	UDP []*net.UDPConn
	TCP []net.Listener
	// Upstream are the resolvers for names outside. By default they are
	// read from ResolvConf (default /etc/resolv.conf), again when it changes.
	Upstream   []netip.AddrPort
	ResolvConf string
	// View tells who lives; nil means everybody.
	View member.View
	// TTL is how many seconds clients may remember the cluster's names;
	// default 5.
	TTL uint32
	// CacheEntries bounds how many upstream answers are remembered; default
	// 16384.
	CacheEntries int
}

// DNS answers for the cluster.
type DNS struct {
	cfg      Config
	log      *slog.Logger
	resolver *resolver
	feeder   *feeder
}

// New takes its informers from the Kit; it opens nothing.
func New(c Config) (*DNS, error) {
	if c.Kit.Informers == nil {
		return nil, errors.New("dns: Kit.Informers is needed")
	}
	if len(c.Addresses) == 0 && len(c.UDP)+len(c.TCP) == 0 {
		return nil, errors.New("dns: no address to listen on")
	}
	c.setDefaults()
	d := &DNS{cfg: c, log: c.Kit.Log}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	x := newIndex()
	d.resolver = &resolver{
		zone:    &zone{domain: c.Domain, ttl: c.TTL, servers: c.Addresses, index: x},
		forward: newForwarder(c.CacheEntries),
	}
	if len(c.Upstream) > 0 {
		d.resolver.forward.setServers(c.Upstream)
	} else {
		d.resolver.path, d.resolver.own = c.ResolvConf, c.Addresses
	}
	var err error
	if d.feeder, err = newFeeder(c, x); err != nil {
		return nil, err
	}
	return d, nil
}

func (c *Config) setDefaults() {
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	c.Domain = strings.ToLower(dns.Fqdn(c.Domain))
	if c.Port == 0 {
		c.Port = 53
	}
	if c.Sockets == 0 {
		c.Sockets = 8
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.TTL == 0 {
		c.TTL = 5
	}
	if c.CacheEntries == 0 {
		c.CacheEntries = 16384
	}
}

// Run answers until ctx ends. It returns an error when it cannot listen.
func (d *DNS) Run(ctx context.Context) error {
	s := sockets{udp: d.cfg.UDP, tcp: d.cfg.TCP}
	if len(s.udp)+len(s.tcp) == 0 {
		var err error
		if s, err = listen(ctx, d.cfg.Addresses, d.cfg.Port, d.cfg.Sockets); err != nil {
			return fmt.Errorf("dns: %w", err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.serve(ctx, s) })
	g.Go(func() error {
		if !cache.WaitForCacheSync(ctx.Done(), d.feeder.synced...) {
			return nil
		}
		return d.feeder.run(ctx, func() {
			if !d.resolver.ready.Swap(true) {
				d.log.InfoContext(ctx, "cluster dns answers", "domain", d.cfg.Domain, "addresses", d.cfg.Addresses)
			}
		})
	})
	return g.Wait()
}

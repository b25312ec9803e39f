package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"k8s.io/client-go/tools/cache"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/mesh/v1alpha1"
	"skein.dev/skein/gossip"
	"skein.dev/skein/identity"
	"skein.dev/skein/link"
	"skein.dev/skein/network"
	"skein.dev/skein/raftstore"
)

// membership carries what is on record of peers, and what gossip knows of
// their health, to those who act on it: the store, gossip, the pod network
// and the peer links.
type membership struct {
	records cache.SharedIndexInformer // of Peers
	pool    *gossip.Pool
	store   *raftstore.Store
	feed    *network.Feed
	log     *slog.Logger

	known atomic.Pointer[map[member.ServerID]string] // fingerprints on record
}

// Run follows records and gossip until ctx ends.
func (m *membership) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	wake := func(any) {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	reg, err := m.records.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) },
		DeleteFunc: func(o any) {
			m.release(ctx, o)
			wake(o)
		},
	})
	if err != nil {
		return fmt.Errorf("follow peers: %w", err)
	}
	go m.records.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), reg.HasSynced) {
		return nil
	}
	for {
		health := m.pool.Changed()
		m.tell()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-health:
		}
	}
}

// release gives back the pod ranges of a peer whose record is gone. The
// store's leader does it; should it die over it, the ranges stay the name's
// until a peer of that name joins again.
func (m *membership) release(ctx context.Context, gone any) {
	if last, ok := gone.(cache.DeletedFinalStateUnknown); ok {
		gone = last.Obj
	}
	p, ok := gone.(*v1alpha1.Peer)
	if !ok || m.store.Status().Leader != m.store.ServerID() {
		return
	}
	if err := releasePodCIDRs(ctx, m.store, member.Name(p.Name)); err != nil {
		m.log.WarnContext(ctx, "pod ranges of a peer that left were not released", "peer", p.Name, "err", err)
	}
}

// tell brings everyone up to date; they notice by themselves what is new.
func (m *membership) tell() {
	peers := m.peers()
	if len(peers) == 0 {
		return // a joiner's replica is still empty: what it was told at joining holds
	}
	health := map[member.Name]member.State{}
	for _, p := range m.pool.Peers() {
		health[p.Name] = p.State
	}
	fingerprints := map[member.ServerID]string{}
	var voters []raftstore.Member
	var talkers []gossip.Member
	var hosts []network.Peer
	for _, p := range peers {
		id, name := member.ServerID(p.Spec.ServerID), member.Name(p.Name)
		state := health[name]
		fingerprints[id] = p.Spec.Fingerprint
		voters = append(voters, raftstore.Member{
			ServerID: id, Name: name, Address: hostPort(*p), Zone: p.Spec.Zone,
			Dead: state == member.Dead, Leaving: p.Spec.Leaving, Declines: declined(p),
		})
		talkers = append(talkers, gossip.Member{
			Name: name, ServerID: id, Addresses: parseAddrs(p.Spec.Addresses),
			Port: uint16(p.Spec.Port), Zone: p.Spec.Zone,
		})
		if p.Spec.APIOnly {
			continue // it has no part in the pod network
		}
		hosts = append(hosts, network.Peer{
			Name: name, Addresses: parseAddrs(p.Spec.Addresses), PodCIDRs: prefixes(p.Spec.PodCIDRs),
		})
	}
	m.known.Store(&fingerprints)
	m.store.SetMembers(append(voters, m.replaced(fingerprints)...))
	m.pool.SetRecords(talkers)
	m.feed.Set(hosts)
}

// replaced are servers of the store that no peer has any more: a machine was
// emptied and has joined again under its name.
func (m *membership) replaced(known map[member.ServerID]string) []raftstore.Member {
	if !m.store.Verified() {
		return nil
	}
	var gone []raftstore.Member
	st := m.store.Status()
	for _, id := range slices.Concat(st.Voters, st.Nonvoters) {
		if _, ok := known[id]; !ok {
			gone = append(gone, raftstore.Member{ServerID: id, Dead: true, Leaving: true})
		}
	}
	return gone
}

func (m *membership) peers() []*v1alpha1.Peer {
	var out []*v1alpha1.Peer
	for _, o := range m.records.GetStore().List() {
		if p, ok := o.(*v1alpha1.Peer); ok && len(p.Spec.Addresses) > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.Peer) int { return compare(a.Name, b.Name) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// errUnknownPeer refuses a link of a server id or a key that is not on record.
var errUnknownPeer = errors.New("this peer is not on record, or its key is another")

// authorize decides about a peer link. Until this peer has records of its
// own, it lets in whom the authority of peers has signed for: a joiner knows
// the others only by that.
func (m *membership) authorize(r link.Remote) error {
	known := m.known.Load()
	if known == nil {
		if r.Expired {
			return errUnknownPeer
		}
		return nil
	}
	fingerprint, ok := (*known)[r.ServerID]
	switch {
	case ok && fingerprint == r.Fingerprint:
		return nil
	case !ok && !r.Expired:
		// Admitted a moment ago, or while this peer was cut off: its record
		// may not have reached this replica. The store decides what it may do.
		return nil
	}
	return errUnknownPeer
}

// seedMembers are the peers a joiner was told of, for gossip to begin with.
func seedMembers(seeds []identity.PeerAddress) []gossip.Member {
	var out []gossip.Member
	for _, s := range seeds {
		at, err := netip.ParseAddrPort(s.Address)
		if err != nil {
			continue
		}
		out = append(out, gossip.Member{Name: s.Name, ServerID: s.ServerID, Addresses: []netip.Addr{at.Addr()}, Port: at.Port()})
	}
	return out
}

func prefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// endpoints are the API addresses of the peers that live, for the Service
// default/kubernetes.
func (m *membership) endpoints() []netip.AddrPort {
	dead := map[member.Name]bool{}
	for _, p := range m.pool.Peers() {
		dead[p.Name] = p.State == member.Dead || p.State == member.Left
	}
	at := map[netip.AddrPort]bool{}
	for _, p := range m.peers() {
		if addrs := parseAddrs(p.Spec.Addresses); !dead[member.Name(p.Name)] && len(addrs) > 0 {
			at[netip.AddrPortFrom(addrs[0], uint16(p.Spec.Port))] = true
		}
	}
	return slices.SortedFunc(maps.Keys(at), netip.AddrPort.Compare)
}

// apiOnly says of a peer on record that it registers no Node.
func (m *membership) apiOnly(name string) bool {
	if m.records == nil {
		return false
	}
	p := m.find(name)
	return p != nil && p.Spec.APIOnly
}

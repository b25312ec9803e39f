package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip/view"
)

// The announcements of a daemon that is about to stop.
const (
	Leaving    = view.Leaving    // for good: others show it as Left at once
	Restarting = view.Restarting // to come back: others show it as Restarting at once
)

// notice is what travels to the others. It is sent to each of them over a
// stream of its own: by gossip it could be overtaken by the death it explains.
type notice struct {
	Name member.Name       `json:"name"`
	Boot string            `json:"boot"`
	What view.Announcement `json:"what"`
}

// Announce tells all live peers why this daemon is about to stop and returns
// when they know, or are out of reach, or ctx ends. Run must be running and
// must end soon after.
func (p *Pool) Announce(ctx context.Context, what view.Announcement) error {
	list := p.current()
	if list == nil {
		return nil
	}
	msg, err := json.Marshal(notice{Name: p.cfg.Self.Name, Boot: p.cfg.Self.Boot, What: what})
	if err != nil {
		return fmt.Errorf("encode notice: %w", err)
	}
	var sends sync.WaitGroup
	for _, to := range p.audience(list) {
		sends.Go(func() {
			if err := list.SendReliable(&to, msg); err != nil {
				p.cfg.Log.DebugContext(ctx, "announce", "peer", to.Name, "error", err)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		sends.Wait() // each send is bounded by the stream time-out
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("announce %s: %w", what, ctx.Err())
	}
	if what == Leaving {
		if err := list.Leave(time.Second); err != nil {
			return fmt.Errorf("announce %s: %w", what, err)
		}
	}
	return nil
}

// audience is who gets a notice: all that gossip knows and all that answered
// a probe, which gossip may not have met yet.
func (p *Pool) audience(list *memberlist.Memberlist) []memberlist.Node {
	known := map[string]bool{string(p.cfg.Self.Name): true}
	var out []memberlist.Node
	for _, node := range list.Members() {
		if !known[node.Name] {
			known[node.Name] = true
			out = append(out, *node)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.near {
		if !known[string(m.Name)] {
			out = append(out, memberlist.Node{Name: string(m.Name), Addr: m.Addresses[0].AsSlice(), Port: m.Port})
		}
	}
	return out
}

// delegate is memberlist's way to this pool. Its methods are called with
// memberlist's locks held and only queue.
type delegate struct{ p *Pool }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	data, err := encodeMeta(d.p.cfg.Self)
	if err != nil || len(data) > limit {
		return nil // New has checked it
	}
	return data
}

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(data []byte) {
	var n notice
	if json.Unmarshal(data, &n) != nil {
		return
	}
	switch n.What {
	case view.Leaving, view.Restarting:
		d.p.post(view.Announced{Name: n.Name, Boot: n.Boot, What: n.What})
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate: who does not describe
// itself as a peer is none.
func (delegate) NotifyAlive(n *memberlist.Node) error {
	_, err := decodeMeta(n)
	return err
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	if m, err := decodeMeta(n); err == nil {
		d.p.post(view.Joined{Member: m})
	}
}

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.p.post(view.Lost{Name: member.Name(n.Name)})
}

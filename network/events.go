package network

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"skein.dev/skein/network/cni"
	"skein.dev/skein/network/ns"
)

// events wakes Run when the kernel's links, addresses or routes change in a
// way that may concern us. Pods coming and going do not.
type events struct {
	wake chan struct{} // holds at most one
	done sync.WaitGroup
}

func (e *events) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) drain() {
	select {
	case <-e.wake:
	default:
	}
}

// wait returns when the subscriptions have ended, after their context.
func (e *events) wait() { e.done.Wait() }

func (n *Network) subscribe(ctx context.Context) (*events, error) {
	h, err := ns.Open(n.cfg.NetNS)
	if err != nil {
		return nil, err
	}
	defer closeHandle(h) //nolint:errcheck // the sockets are open by now
	where := &h
	if !h.IsOpen() {
		none := netns.None()
		where = &none
	}
	e := &events{wake: make(chan struct{}, 1)}
	// A lost event (the socket's buffer overflowed) means: look at all.
	lost := func(error) { e.signal() }
	links, addrs, routes := make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate)
	stop := make(chan struct{})
	context.AfterFunc(ctx, func() { close(stop) })
	if err := netlink.LinkSubscribeWithOptions(links, stop, netlink.LinkSubscribeOptions{Namespace: where, ErrorCallback: lost}); err != nil {
		return nil, fmt.Errorf("subscribe to links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, stop, netlink.AddrSubscribeOptions{Namespace: where, ErrorCallback: lost}); err != nil {
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, stop, netlink.RouteSubscribeOptions{Namespace: where, ErrorCallback: lost}); err != nil {
		return nil, fmt.Errorf("subscribe to routes: %w", err)
	}
	e.done.Go(func() {
		for u := range links {
			if !strings.HasPrefix(u.Attrs().Name, cni.LinkPrefix) {
				e.signal()
			}
		}
	})
	e.done.Go(func() {
		for range addrs {
			e.signal()
		}
	})
	e.done.Go(func() {
		for u := range routes {
			if u.Protocol == RouteProtocol {
				e.signal()
			}
		}
	})
	return e, nil
}

package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/cni"
	"skein.dev/skein/network/nft"
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

// wait returns when the subscription has ended, after its context.
func (e *events) wait() { e.done.Wait() }

// subscribe opens one socket for all kinds of events. netlink's own
// subscriptions block in the kernel, where closing does not wake them.
func (n *Network) subscribe(ctx context.Context) (*events, error) {
	h, err := ns.Open(n.cfg.NetNS)
	if err != nil {
		return nil, err
	}
	cfg := &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE}
	if h.IsOpen() {
		defer h.Close()
		cfg.NetNS = int(h)
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, cfg)
	if err != nil {
		return nil, fmt.Errorf("subscribe to network changes: %w", err)
	}
	e := &events{wake: make(chan struct{}, 1)}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	e.done.Go(func() {
		defer func() { stop(); _ = c.Close() }() // which of the two sees the end of ctx first is not known
		for ctx.Err() == nil {
			msgs, err := c.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				if ctx.Err() == nil {
					n.log.WarnContext(ctx, "cannot hear of network changes", "err", err)
				}
				return
			}
			// With ENOBUFS events were lost: look at everything.
			if err != nil || concerns(msgs) {
				e.signal()
			}
		}
	})
	e.done.Go(func() {
		if err := nft.WatchTable(ctx, n.cfg.NetNS, masqueradeTable, e.signal); err != nil && ctx.Err() == nil {
			n.log.WarnContext(ctx, "cannot hear of nftables changes", "err", err)
		}
	})
	return e, nil
}

// concerns reports whether one of the messages is about more than a pod.
func concerns(msgs []netlink.Message) bool {
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			return true
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			// The name is an attribute; no other one holds our prefix
			// after the attribute's header.
			if !bytes.Contains(m.Data, append([]byte{unix.IFLA_IFNAME, 0}, cni.LinkPrefix...)) {
				return true
			}
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			const protocol = 5 // offset in struct rtmsg
			if len(m.Data) > protocol && m.Data[protocol] == RouteProtocol {
				return true
			}
		default:
		}
	}
	return false
}

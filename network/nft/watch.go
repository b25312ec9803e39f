package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/ns"
)

// settle is how long a storm of changes may last before it is looked at.
const settle = 300 * time.Millisecond

// Watch calls lost whenever somebody has removed the tables, as a firewall
// does that loads its rules with "flush ruleset". It blocks until ctx ends.
func (t *Table) Watch(ctx context.Context, lost func()) error {
	return WatchTable(ctx, t.cfg.NetNS, tableName, func() {
		t.mu.Lock()
		written := t.ready
		t.mu.Unlock()
		if written { // else there was nothing to lose yet
			lost()
		}
	})
}

// WatchTable calls lost when nftables has changed in the network namespace at
// the path and the IPv4 table of that name is not there, until ctx ends. It
// sleeps while nothing in nftables changes.
func WatchTable(ctx context.Context, netns, name string, lost func()) error {
	h, err := ns.Open(netns)
	if err != nil {
		return err
	}
	cfg := &netlink.Config{}
	if h.IsOpen() {
		defer h.Close()
		cfg.NetNS = int(h)
	}
	events, err := netlink.Dial(unix.NETLINK_NETFILTER, cfg)
	if err != nil {
		return fmt.Errorf("subscribe to nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer func() { stop(); _ = events.Close() }() // which of the two sees the end of ctx first is not known
	if err := events.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("subscribe to nftables: %w", err)
	}
	for {
		// What changed does not matter, nor whether events were lost: the
		// table is there or it is not.
		_, err := events.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("hear of nftables: %w", err)
		}
		drain(ctx, events)
		// A look that fails, as it does while others write, finds nothing.
		if has, err := hasTable(cfg.NetNS, name); err != nil || !has {
			lost()
		}
	}
}

// drain swallows what else changes within a moment.
func drain(ctx context.Context, events *netlink.Conn) {
	until := time.Now().Add(settle)
	for ctx.Err() == nil {
		if events.SetReadDeadline(until) != nil {
			return
		}
		if _, err := events.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
			break
		}
	}
	_ = events.SetReadDeadline(time.Time{}) // closed: the next read says so
}

func hasTable(netns int, name string) (bool, error) {
	var opts []nftables.ConnOption
	if netns != 0 {
		opts = append(opts, nftables.WithNetNSFd(netns))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	ts, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range ts {
		if t.Name == name {
			return true, nil
		}
	}
	return false, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const mebibyte = 1 << 20

// sizes reports the program and what is embedded in it.
func (b *bench) sizes() error {
	info, err := os.Stat(b.skein)
	if err != nil {
		return fmt.Errorf("size of the program: %w", err)
	}
	b.report.add("size", "bin/skein, with the programs below", float64(info.Size())/mebibyte, "MiB", "")
	entries, err := os.ReadDir(filepath.Join("engine", "programs", "bin"))
	if err != nil {
		return fmt.Errorf("sizes of the embedded programs: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("size of %s: %w", e.Name(), err)
		}
		if info.Mode().IsRegular() && info.Size() > 0 {
			b.report.add("size", "embedded "+e.Name(), float64(info.Size())/mebibyte, "MiB", "")
		}
	}
	return nil
}

// pods reports how long a pod takes to its first running container.
func (b *bench) pods(ctx context.Context, l *lab) error {
	const rounds = 9
	res, err := l.load(ctx, "p1", "-kind", "pod", "-count", strconv.Itoa(rounds), "-limit", "2m")
	if err != nil {
		return err
	}
	b.report.add("pod", "create to first container running, image present, median", res.P50/1000, "s", "1")
	b.report.note("of %d, slowest %.2f s%s", res.Count, res.P99/1000, failures(res))
	return nil
}

// requests reports creates and gets against one peer.
func (b *bench) requests(ctx context.Context, l *lab, peer, role string) error {
	var errs []error
	for _, workers := range []int{1, 16, 64} {
		if !b.wants("create") || ctx.Err() != nil {
			break
		}
		goal := ""
		if workers == 64 && len(l.peers) == 1 {
			goal = "5970" // 3 times upstream's
		}
		errs = append(errs, b.load(ctx, l, peer, "create", fmt.Sprintf("ConfigMap creates, %s, c=%d", role, workers), workers, goal))
	}
	if b.wants("get") && ctx.Err() == nil {
		errs = append(errs, b.load(ctx, l, peer, "get", "ConfigMap GET, "+role+", c=32", 32, ""))
	}
	return errors.Join(errs...)
}

func (b *bench) load(ctx context.Context, l *lab, peer, kind, what string, workers int, goal string, more ...string) error {
	args := append([]string{"-kind", kind, "-workers", strconv.Itoa(workers), "-limit", b.each.String()}, more...)
	before, err := l.daemon(ctx, peer)
	if err != nil {
		return err
	}
	res, err := l.load(ctx, peer, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	after, err := l.daemon(ctx, peer)
	if err != nil {
		return err
	}
	b.report.add(kind, what, res.rate(), "/s", goal)
	b.report.note("p50 %.2f ms, p99 %.2f ms, %d in %.1f s%s", res.P50, res.P99, res.Count, res.Seconds, failures(res))
	if res.Count > 0 {
		b.report.add(kind, what+": CPU of the daemon each", (after.cpu-before.cpu)*1e6/float64(res.Count), "µs", "")
	}
	return nil
}

func failures(res loadResult) string {
	if res.Errors == 0 {
		return ""
	}
	return fmt.Sprintf(", %d failed: %s", res.Errors, res.Error)
}

// dns reports queries against the cluster's DNS, asked on the first peer.
func (b *bench) dns(ctx context.Context, l *lab) error {
	raw, err := l.kubectl(ctx, "p1", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return err
	}
	server, err := dnsAddress(strings.TrimSpace(string(raw)))
	if err != nil {
		return err
	}
	return b.load(ctx, l, "p1", "dns", "DNS queries, 8 sockets", 8, "",
		"-server", net.JoinHostPort(server.String(), "53"), "-name", "kubernetes.default.svc.cluster.local")
}

// dnsAddress is the tenth address of the range whose first is the API's.
func dnsAddress(api string) (netip.Addr, error) {
	a, err := netip.ParseAddr(api)
	if err != nil {
		return a, fmt.Errorf("address of the API's service: %w", err)
	}
	for range 9 {
		a = a.Next()
	}
	return a, nil
}

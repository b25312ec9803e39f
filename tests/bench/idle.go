package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"skein.dev/skein/api/status"
)

// settle bounds the wait for the compaction entry, which the store writes when
// its last change is five minutes old.
const settle = 12 * time.Minute

// quiet is how long counters stand still, after that entry, before the window.
const quiet = 20 * time.Second

// parts are the cgroups of a peer's own programs and their goals.
func parts() []part {
	return []part{{"daemon", "150", "60", "1"}, {"guard", "", "", ""}, {"engine", "", "", ""}}
}

type part struct{ name, rss, anon, cpu string }

// snapshot is what one peer has used and written so far.
type snapshot struct {
	store status.Store
	used  map[string]usage
}

// idlePeers reports what peers that have nothing to do hold, use and write.
func (b *bench) idlePeers(ctx context.Context, l *lab) error {
	still, err := b.standStill(ctx, l)
	if err != nil {
		return err
	}
	watch := l.command(ctx, "p1", l.program, "kubectl", "get", "pods", "-A", "-w")
	if err := watch.Start(); err != nil {
		return fmt.Errorf("start kubectl get -w: %w", err)
	}
	defer func() {
		_ = watch.Process.Kill() // it may have ended already
		_ = watch.Wait()         // says only that it was killed
	}()
	if err := wait(ctx, 5*time.Second); err != nil { // for kubectl to start
		return err
	}
	before, err := snapshots(ctx, l)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := wait(ctx, b.idle); err != nil {
		return err
	}
	after, err := snapshots(ctx, l)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	for _, p := range l.peers {
		b.reportIdle(p, before[p], after[p], took)
		if !still {
			b.report.note("no compaction entry and %v of silence within %v", quiet, settle)
		}
	}
	return nil
}

func (b *bench) reportIdle(peer string, before, after snapshot, took time.Duration) {
	for _, p := range parts() {
		u := after.used[p.name]
		cpu := (u.cpu - before.used[p.name].cpu) / took.Seconds() * 100
		what := "idle " + p.name + " of " + peer + ": "
		b.report.add("idle", what+"RSS", float64(u.rss)/1024, "MiB", p.rss)
		b.report.add("idle", what+"anonymous", float64(u.anon)/1024, "MiB", p.anon)
		b.report.add("idle", what+"CPU", cpu, "% of a core", p.cpu)
	}
	window := took.Round(time.Second).String()
	b.report.add("idle", "log of "+peer+": bytes in "+window, float64(after.store.Bytes-before.store.Bytes), "bytes", "0")
	b.report.add("idle", "log of "+peer+": writes in "+window, float64(after.store.Appends-before.store.Appends), "writes", "0")
}

// standStill waits until history is compacted and no peer has written for a
// while, and reports whether that came to be in time.
func (b *bench) standStill(ctx context.Context, l *lab) (bool, error) {
	deadline := time.Now().Add(settle)
	since, last := time.Now(), map[string]uint64{}
	for time.Now().Before(deadline) {
		gone := true
		for _, p := range l.peers {
			m, err := l.status(ctx, p)
			if err != nil {
				return false, err
			}
			if m.Store.Appends != last[p] {
				last[p], since = m.Store.Appends, time.Now()
			}
			if gone, err = l.compacted(ctx, p, m.Revision, gone); err != nil {
				return false, err
			}
		}
		if gone && time.Since(since) >= quiet {
			return true, nil
		}
		if err := wait(ctx, quiet/2); err != nil {
			return false, err
		}
	}
	return false, nil
}

// compacted asks a peer for the state just before revision: with the newest
// revision a compaction entry, there is no history and the answer is 410. It
// asks only if the peers before were compacted too.
func (l *lab) compacted(ctx context.Context, peer string, revision int64, others bool) (bool, error) {
	if !others {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err := l.kubectl(ctx, peer, "get", "--raw",
		fmt.Sprintf("/api/v1/namespaces?limit=1&resourceVersionMatch=Exact&resourceVersion=%d", revision-1))
	if err != nil && strings.Contains(err.Error(), "(Expired)") {
		return true, nil
	}
	return false, err
}

func snapshots(ctx context.Context, l *lab) (map[string]snapshot, error) {
	all := map[string]snapshot{}
	for _, p := range l.peers {
		m, err := l.status(ctx, p)
		if err != nil {
			return nil, err
		}
		group, err := l.cgroup(ctx, p)
		if err != nil {
			return nil, err
		}
		s := snapshot{store: m.Store, used: map[string]usage{}}
		for _, part := range parts() {
			if s.used[part.name], err = groupUsage(group, part.name); err != nil {
				return nil, err
			}
		}
		all[p] = s
	}
	return all, nil
}

// cgroup finds a peer's cgroup by asking a process that the lab starts in it.
func (l *lab) cgroup(ctx context.Context, peer string) (string, error) {
	raw, err := l.on(ctx, peer, "cat", "/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return peerGroup(string(raw), peer)
}

// peerGroup finds the peer's cgroup in the text of /proc/PID/cgroup, whose
// lines are ID:CONTROLLERS:PATH.
func peerGroup(text, peer string) (string, error) {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for dir := fields[2]; len(dir) > 1; dir = filepath.Dir(dir) {
			if filepath.Base(dir) == peer && strings.HasPrefix(filepath.Base(filepath.Dir(dir)), "skein-lab-") {
				return dir, nil
			}
		}
	}
	return "", errors.New("peer " + peer + " has no cgroup of a lab")
}

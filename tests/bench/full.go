package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	listed     = 10_000 // objects of a list
	watchers   = 1_000
	eventsEach = 50 // events of each watcher
	held       = 20_000
	defined    = 50 // kinds of their own
	fillers    = 16
	fillWithin = "5m"
	// atRest is how long after its last work a peer is at rest: the runtime
	// collects an idle heap every two minutes.
	atRest = 150 * time.Second
)

// daemon is what the daemon of a peer holds and has used.
func (l *lab) daemon(ctx context.Context, peer string) (usage, error) {
	group, err := l.cgroup(ctx, peer)
	if err != nil {
		return usage{}, err
	}
	return groupUsage(group, "daemon")
}

// memory reports what the daemon holds when it has come to rest.
func (b *bench) memory(ctx context.Context, l *lab, when string) error {
	if err := wait(ctx, atRest); err != nil {
		return err
	}
	u, err := l.daemon(ctx, "p1")
	if err != nil {
		return err
	}
	b.report.add("memory", "RSS "+when, float64(u.rss)/1024, "MiB", "")
	b.report.add("memory", "anonymous "+when, float64(u.anon)/1024, "MiB", "")
	return nil
}

// fullMemory reports what objects and kinds of users cost.
func (b *bench) fullMemory(ctx context.Context, l *lab) error {
	res, err := l.load(ctx, "p1", "-kind", "fill", "-namespace", "held", "-count", strconv.Itoa(held), "-workers", strconv.Itoa(fillers), "-limit", fillWithin)
	if err = complete(res, err, held); err != nil {
		return fmt.Errorf("make objects: %w", err)
	}
	more := 0
	if b.wants("list", "watch") {
		more = listed
	}
	if err := b.memory(ctx, l, fmt.Sprintf("with %d ConfigMaps of 1 KiB", held+more)); err != nil {
		return err
	}
	res, err = l.load(ctx, "p1", "-kind", "define", "-count", strconv.Itoa(defined), "-workers", "4", "-limit", fillWithin)
	if err = complete(res, err, defined); err != nil {
		return fmt.Errorf("make kinds: %w", err)
	}
	return b.memory(ctx, l, fmt.Sprintf("with %d small CRDs besides", defined))
}

func complete(res loadResult, err error, want int) error {
	switch {
	case err != nil:
		return err
	case res.Count != want:
		return fmt.Errorf("%d of %d%s", res.Count, want, failures(res))
	}
	return nil
}

// lists reports whole lists in each form, and then events to many watchers.
func (b *bench) lists(ctx context.Context, l *lab) error {
	res, err := l.load(ctx, "p1", "-kind", "fill", "-count", strconv.Itoa(listed), "-workers", strconv.Itoa(fillers), "-limit", fillWithin)
	if err = complete(res, err, listed); err != nil {
		return fmt.Errorf("make objects: %w", err)
	}
	var errs []error
	for _, media := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		for _, packed := range []bool{false, true} {
			if b.wants("list") && ctx.Err() == nil {
				errs = append(errs, b.list(ctx, l, media, packed))
			}
		}
	}
	if b.wants("watch") && ctx.Err() == nil {
		errs = append(errs, b.watch(ctx, l))
	}
	return errors.Join(errs...)
}

func (b *bench) list(ctx context.Context, l *lab, media string, packed bool) error {
	_, name, _ := strings.Cut(media, "application/")
	if packed {
		name += ", gzip"
	}
	before, err := l.daemon(ctx, "p1")
	if err != nil {
		return err
	}
	res, err := l.load(ctx, "p1", "-kind", "list", "-accept", media, "-gzip="+strconv.FormatBool(packed), "-limit", b.each.String())
	if err != nil {
		return err
	}
	after, err := l.daemon(ctx, "p1")
	if err != nil {
		return err
	}
	b.report.add("list", fmt.Sprintf("LIST of %d ConfigMaps of 1 KiB, %s, median", listed, name), res.P50, "ms", "")
	b.report.note("p99 %.0f ms, %.1f MiB, %.0f ms CPU of the daemon each%s", res.P99, float64(res.Bytes)/mebibyte,
		(after.cpu-before.cpu)*1e3/max(float64(res.Count), 1), failures(res))
	return nil
}

func (b *bench) watch(ctx context.Context, l *lab) error {
	res, err := l.load(ctx, "p1", "-kind", "watch", "-workers", strconv.Itoa(watchers), "-count", strconv.Itoa(eventsEach), "-limit", "2m")
	if err != nil {
		return err
	}
	what := fmt.Sprintf("create to event at each of %d watchers, ", watchers)
	b.report.add("watch", what+"p50", res.P50, "ms", "")
	b.report.note("%d of %d events%s", res.Count, watchers*eventsEach, failures(res))
	b.report.add("watch", what+"p99", res.P99, "ms", "")
	return nil
}

// ready reports how long a daemon takes from its exec until its API is ready.
func (b *bench) ready(ctx context.Context, l *lab, peer string) error {
	group, err := l.cgroup(ctx, peer)
	if err != nil {
		return err
	}
	old, err := groupPIDs(filepath.Join(group, "daemon"))
	if err != nil {
		return err
	}
	if _, err := l.skein(ctx, "lab", "kill", "--lab-dir", l.dir, "--daemon-only", peer); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := l.kubectl(limit, peer, "get", "--raw", "/readyz")
		at := time.Now()
		if pids, perr := groupPIDs(filepath.Join(group, "daemon")); err == nil && perr == nil && pids[0] != old[0] {
			began, err := processStart(pids[0])
			if err != nil {
				return err
			}
			b.report.add("ready", "exec of the daemon to /readyz, an existing peer", at.Sub(began).Seconds(), "s", "")
			b.report.note("with the client that asks, about 0.1 s")
			return nil
		}
		if err := wait(limit, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the daemon to be ready: %w", err)
		}
	}
}

// processStart is when a process was started, to a hundredth of a second.
func processStart(pid int) (time.Time, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return time.Time{}, fmt.Errorf("read process: %w", err)
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}, fmt.Errorf("read uptime: %w", err)
	}
	now := time.Now()
	age, err := processAge(string(stat), string(up))
	return now.Add(-age), err
}

// processAge reads the texts of /proc/PID/stat and /proc/uptime.
func processAge(stat, up string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, errors.New("parse process: too few fields")
	}
	since, err := strconv.ParseFloat(fields[19], 64) // ticks after boot
	if err != nil {
		return 0, fmt.Errorf("parse start of process: %w", err)
	}
	first, _, _ := strings.Cut(up, " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("parse uptime: %w", err)
	}
	return time.Duration((seconds - since/ticks) * float64(time.Second)), nil
}

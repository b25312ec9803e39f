package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// usage is what processes hold and have used.
type usage struct {
	rss, anon int64   // KiB
	cpu       float64 // seconds since they started
}

// ticks is the unit of CPU times in /proc on every Linux that Go runs on.
const ticks = 100

// processUsage reads one process.
func processUsage(pid int) (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return usage{}, fmt.Errorf("read process: %w", err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, fmt.Errorf("read process: %w", err)
	}
	var u usage
	if u.rss, err = statusField(string(raw), "VmRSS"); err != nil {
		return u, err
	}
	if u.anon, err = statusField(string(raw), "RssAnon"); err != nil {
		return u, err
	}
	u.cpu, err = cpuSeconds(string(stat))
	return u, err
}

// statusField finds a size in KiB in the text of /proc/PID/status.
func statusField(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || key != name {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s: %w", name, err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("process status has no %s", name)
}

// cpuSeconds adds user and system time in the text of /proc/PID/stat. The
// name in parentheses may contain anything, also spaces and parentheses.
func cpuSeconds(text string) (float64, error) {
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0, errors.New("parse process times: too few fields")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse process times: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse process times: %w", err)
	}
	return float64(user+system) / ticks, nil
}

// groupUsage adds up the processes directly in one cgroup of a peer, such as
// "daemon"; peerGroup is the peer's cgroup below a hierarchy's root.
func groupUsage(peerGroup, part string) (usage, error) {
	var sum usage
	pids, err := groupPIDs(filepath.Join(peerGroup, part))
	if err != nil {
		return sum, err
	}
	for _, pid := range pids {
		u, err := processUsage(pid)
		if err != nil {
			return sum, err
		}
		sum.rss, sum.anon, sum.cpu = sum.rss+u.rss, sum.anon+u.anon, sum.cpu+u.cpu
	}
	return sum, nil
}

// groupPIDs looks in the memory hierarchy of cgroup version 1 or in version 2.
func groupPIDs(group string) ([]int, error) {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		raw, err := os.ReadFile(filepath.Join(root, group, "cgroup.procs"))
		if err != nil {
			continue
		}
		var pids []int
		for f := range strings.FieldsSeq(string(raw)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("parse cgroup.procs: %w", err)
			}
			pids = append(pids, pid)
		}
		if len(pids) > 0 {
			slices.Sort(pids)
			return pids, nil
		}
	}
	return nil, fmt.Errorf("cgroup %s: no process in it", group)
}

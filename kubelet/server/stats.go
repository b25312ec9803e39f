package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skein.dev/skein/kubelet/cri"
)

func (s *Server) sandboxStats(ctx context.Context) ([]*runtimeapi.PodSandboxStats, error) {
	r, err := s.cfg.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{
		Filter: &runtimeapi.PodSandboxStatsFilter{LabelSelector: map[string]string{cri.LabelNode: s.cfg.NodeName}},
	})
	if err != nil {
		return nil, fmt.Errorf("list pod statistics: %w", err)
	}
	return r.Stats, nil
}

// summary is /stats/summary: CPU, memory, network, processes and file systems.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	list, err := s.sandboxStats(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	now := metav1.Now()
	cpu, mem := nodeUsage()
	available, _ := nodeMemory()
	out := stats.Summary{Node: stats.NodeStats{
		NodeName: s.cfg.NodeName, StartTime: metav1.NewTime(s.started),
		CPU:    &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &cpu},
		Memory: &stats.MemoryStats{Time: now, WorkingSetBytes: &mem, UsageBytes: &mem, AvailableBytes: &available},
		Fs:     diskOf(s.cfg.RootDir), Runtime: s.imageDisk(r.Context()),
	}}
	for _, p := range list {
		out.Pods = append(out.Pods, podStats(p))
	}
	writeJSON(w, out)
}

func podStats(p *runtimeapi.PodSandboxStats) stats.PodStats {
	m := p.Attributes.GetMetadata()
	out := stats.PodStats{PodRef: stats.PodReference{Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUid()}, Containers: []stats.ContainerStats{}}
	l := p.Linux
	if l == nil {
		return out
	}
	out.CPU, out.Memory = cpuStats(l.Cpu), memoryStats(l.Memory)
	for _, c := range l.Containers {
		out.Containers = append(out.Containers, stats.ContainerStats{
			Name: c.Attributes.GetMetadata().GetName(), CPU: cpuStats(c.Cpu), Memory: memoryStats(c.Memory), Rootfs: layer(c.WritableLayer),
		})
	}
	if n := l.Network; n != nil {
		out.Network = &stats.NetworkStats{Time: at(n.Timestamp)}
		if d := n.DefaultInterface; d != nil {
			out.Network.InterfaceStats = stats.InterfaceStats{
				Name: d.Name, RxBytes: value(d.RxBytes), RxErrors: value(d.RxErrors), TxBytes: value(d.TxBytes), TxErrors: value(d.TxErrors),
			}
		}
	}
	if l.Process != nil {
		out.ProcessStats = &stats.ProcessStats{ProcessCount: value(l.Process.ProcessCount)}
	}
	return out
}

func at(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func cpuStats(c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	return &stats.CPUStats{Time: at(c.Timestamp), UsageNanoCores: value(c.UsageNanoCores), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memoryStats(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{
		Time: at(m.Timestamp), AvailableBytes: value(m.AvailableBytes), UsageBytes: value(m.UsageBytes), WorkingSetBytes: value(m.WorkingSetBytes),
		RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults),
	}
}

// nodeUsage is the machine's CPU time in nanoseconds and its memory in use.
func nodeUsage() (cpu, memory uint64) {
	const tick = uint64(time.Second / 100) // the kernel's unit in /proc/stat
	if b, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := strings.Cut(string(b), "\n")
		for i, f := range strings.Fields(line) {
			if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, and guests, which user includes
				continue
			}
			n, err := strconv.ParseUint(f, 10, 64)
			if err == nil {
				cpu += n * tick
			}
		}
	}
	available, total := nodeMemory()
	return cpu, total - min(total, available)
}

// nodeMemory is the machine's memory in bytes: what programs can still have,
// and all of it.
func nodeMemory() (available, total uint64) {
	kib := map[string]uint64{}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
			if f := strings.Fields(sc.Text()); len(f) >= 2 {
				if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
					kib[f[0]] = n
				}
			}
		}
	}
	return kib["MemAvailable:"] << 10, kib["MemTotal:"] << 10
}

// resource is /metrics/resource, which metrics-server reads.
func (s *Server) resource(w http.ResponseWriter, r *http.Request) {
	list, err := s.sandboxStats(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var cpuLines, memLines, podCPU, podMem strings.Builder
	line := func(b *strings.Builder, name, labels string, v float64, nanos int64) {
		fmt.Fprintf(b, "%s{%s} %g %d\n", name, labels, v, nanos/int64(time.Millisecond))
	}
	for _, p := range list {
		m := p.Attributes.GetMetadata()
		pod := fmt.Sprintf("namespace=%q,pod=%q", m.GetNamespace(), m.GetName())
		for _, c := range p.Linux.GetContainers() {
			labels := fmt.Sprintf("container=%q,%s", c.Attributes.GetMetadata().GetName(), pod)
			if v := value(c.Cpu.GetUsageCoreNanoSeconds()); v != nil {
				line(&cpuLines, "container_cpu_usage_seconds_total", labels, float64(*v)/1e9, c.Cpu.Timestamp)
			}
			if v := value(c.Memory.GetWorkingSetBytes()); v != nil {
				line(&memLines, "container_memory_working_set_bytes", labels, float64(*v), c.Memory.Timestamp)
			}
		}
		if v := value(p.Linux.GetCpu().GetUsageCoreNanoSeconds()); v != nil {
			line(&podCPU, "pod_cpu_usage_seconds_total", pod, float64(*v)/1e9, p.Linux.Cpu.Timestamp)
		}
		if v := value(p.Linux.GetMemory().GetWorkingSetBytes()); v != nil {
			line(&podMem, "pod_memory_working_set_bytes", pod, float64(*v), p.Linux.Memory.Timestamp)
		}
	}
	cpu, mem := nodeUsage()
	now := time.Now().UnixMilli()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, f := range []struct{ name, kind, lines string }{
		{"container_cpu_usage_seconds_total", "counter", cpuLines.String()},
		{"container_memory_working_set_bytes", "gauge", memLines.String()},
		{"node_cpu_usage_seconds_total", "counter", fmt.Sprintf("node_cpu_usage_seconds_total %g %d\n", float64(cpu)/1e9, now)},
		{"node_memory_working_set_bytes", "gauge", fmt.Sprintf("node_memory_working_set_bytes %d %d\n", mem, now)},
		{"pod_cpu_usage_seconds_total", "counter", podCPU.String()},
		{"pod_memory_working_set_bytes", "gauge", podMem.String()},
		{"resource_scrape_error", "gauge", "resource_scrape_error 0\n"},
	} {
		fmt.Fprintf(w, "# TYPE %s %s\n%s", f.name, f.kind, f.lines)
	}
}

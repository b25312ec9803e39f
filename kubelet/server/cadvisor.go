package server

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// family is one metric with its lines.
type family struct {
	name, kind, help string
	lines            []string
}

// cadvisor is /metrics/cadvisor: what dashboards know by cAdvisor's names, of
// the figures that a runtime tells over CRI.
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	list, err := s.sandboxStats(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	m := newCadvisor()
	for _, p := range list {
		m.pod(p)
	}
	_, total := nodeMemory()
	m.add("machine_cpu_cores", "", float64(runtime.NumCPU()), 0)
	m.add("machine_memory_bytes", "", float64(total), 0)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, f := range m.families {
		if len(f.lines) > 0 {
			slices.Sort(f.lines)
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s", f.name, f.help, f.name, f.kind, strings.Join(f.lines, ""))
		}
	}
}

type cadvisorMetrics struct {
	families []*family
	byName   map[string]*family
}

func newCadvisor() *cadvisorMetrics {
	m := &cadvisorMetrics{byName: map[string]*family{}}
	for _, f := range []family{
		{name: "container_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed in seconds."},
		{name: "container_fs_usage_bytes", kind: "gauge", help: "Number of bytes that are consumed by the container on this filesystem."},
		{name: "container_memory_failures_total", kind: "counter", help: "Cumulative count of memory allocation failures."},
		{name: "container_memory_rss", kind: "gauge", help: "Size of RSS in bytes."},
		{name: "container_memory_usage_bytes", kind: "gauge", help: "Current memory usage in bytes, including all memory regardless of when it was accessed."},
		{name: "container_memory_working_set_bytes", kind: "gauge", help: "Current working set in bytes."},
		{name: "container_network_receive_bytes_total", kind: "counter", help: "Cumulative count of bytes received."},
		{name: "container_network_receive_errors_total", kind: "counter", help: "Cumulative count of errors encountered while receiving."},
		{name: "container_network_transmit_bytes_total", kind: "counter", help: "Cumulative count of bytes transmitted."},
		{name: "container_network_transmit_errors_total", kind: "counter", help: "Cumulative count of errors encountered while transmitting."},
		{name: "container_processes", kind: "gauge", help: "Number of processes running inside the container."},
		{name: "machine_cpu_cores", kind: "gauge", help: "Number of logical CPU cores."},
		{name: "machine_memory_bytes", kind: "gauge", help: "Amount of memory installed on the machine."},
	} {
		m.families = append(m.families, &f)
		m.byName[f.name] = &f
	}
	return m
}

// add writes one line; without a time it is of now.
func (m *cadvisorMetrics) add(name, labels string, v float64, nanos int64) {
	f := m.byName[name]
	if labels != "" {
		labels = "{" + labels + "}"
	}
	at := ""
	if nanos > 0 {
		at = fmt.Sprintf(" %d", nanos/int64(time.Millisecond))
	}
	f.lines = append(f.lines, fmt.Sprintf("%s%s %g%s\n", name, labels, v, at))
}

func (m *cadvisorMetrics) pod(p *runtimeapi.PodSandboxStats) {
	meta, l := p.GetAttributes().GetMetadata(), p.GetLinux()
	of := func(container, image, name string) string {
		return fmt.Sprintf("container=%q,id=%q,image=%q,name=%q,namespace=%q,pod=%q", container, "", image, name, meta.GetNamespace(), meta.GetName())
	}
	whole := of("", "", "")
	m.usage(whole, l.GetCpu(), l.GetMemory())
	if n := l.GetProcess().GetProcessCount(); n != nil {
		m.add("container_processes", whole, float64(n.Value), l.GetProcess().GetTimestamp())
	}
	for _, c := range l.GetContainers() {
		a := c.GetAttributes()
		labels := of(a.GetMetadata().GetName(), a.GetAnnotations()["io.kubernetes.container.image"], a.GetId())
		m.usage(labels, c.GetCpu(), c.GetMemory())
		if fs := c.GetWritableLayer(); fs != nil {
			m.add("container_fs_usage_bytes", labels, float64(fs.GetUsedBytes().GetValue()), fs.GetTimestamp())
		}
	}
	for _, n := range append(l.GetNetwork().GetInterfaces(), l.GetNetwork().GetDefaultInterface()) {
		if n == nil {
			continue
		}
		labels := fmt.Sprintf("id=%q,image=%q,interface=%q,name=%q,namespace=%q,pod=%q", "", "", n.GetName(), p.GetAttributes().GetId(), meta.GetNamespace(), meta.GetName())
		at := l.GetNetwork().GetTimestamp()
		m.add("container_network_receive_bytes_total", labels, float64(n.GetRxBytes().GetValue()), at)
		m.add("container_network_receive_errors_total", labels, float64(n.GetRxErrors().GetValue()), at)
		m.add("container_network_transmit_bytes_total", labels, float64(n.GetTxBytes().GetValue()), at)
		m.add("container_network_transmit_errors_total", labels, float64(n.GetTxErrors().GetValue()), at)
	}
}

func (m *cadvisorMetrics) usage(labels string, cpu *runtimeapi.CpuUsage, mem *runtimeapi.MemoryUsage) {
	if v := cpu.GetUsageCoreNanoSeconds(); v != nil {
		m.add("container_cpu_usage_seconds_total", labels+`,cpu="total"`, float64(v.Value)/1e9, cpu.GetTimestamp())
	}
	for name, v := range map[string]*runtimeapi.UInt64Value{
		"container_memory_usage_bytes": mem.GetUsageBytes(), "container_memory_working_set_bytes": mem.GetWorkingSetBytes(), "container_memory_rss": mem.GetRssBytes(),
	} {
		if v != nil {
			m.add(name, labels, float64(v.Value), mem.GetTimestamp())
		}
	}
	for kind, v := range map[string]*runtimeapi.UInt64Value{"pgfault": mem.GetPageFaults(), "pgmajfault": mem.GetMajorPageFaults()} {
		if v != nil {
			m.add("container_memory_failures_total", fmt.Sprintf("%s,failure_type=%q,scope=%q", labels, kind, "container"), float64(v.Value), mem.GetTimestamp())
		}
	}
}

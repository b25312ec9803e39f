package engine

import (
	"fmt"
	"strings"
)

// settings is what differs between the configurations of two peers.
type settings struct {
	Root, State      string
	Socket           string
	ShimSockets      string
	RuncRoot, Runc   string
	Temp             string
	PauseImage       string
	RegistryHosts    string
	CNIBinDirs       []string
	CNIConfDir       string
	RestrictOOMScore bool
}

// render returns containerd's configuration, TOML of version 4. It is pure.
//
// Nothing may fall back to a default under /run or /var: the NRI socket, the
// network namespaces' mounts and the debug socket are shared by default, and
// several peers run on one machine.
func render(s settings) string {
	var b strings.Builder
	line := func(indent int, format string, args ...any) {
		fmt.Fprintf(&b, strings.Repeat("  ", indent)+format+"\n", args...)
	}
	line(0, "version = 4")
	line(0, "root = %s", quote(s.Root))
	line(0, "state = %s", quote(s.State))
	line(0, "temp = %s", quote(s.Temp))
	line(0, "imports = []")
	line(0, "disabled_plugins = []")
	line(0, "[plugins]")
	line(1, "[plugins.'io.containerd.server.v1.grpc']")
	line(2, "address = %s", quote(s.Socket))
	line(1, "[plugins.'io.containerd.server.v1.ttrpc']")
	line(2, "address = %s", quote(s.Socket+".ttrpc"))
	line(1, "[plugins.'io.containerd.server.v1.debug']")
	line(2, "address = %s", quote(s.State+"/debug.sock"))
	line(1, "[plugins.'io.containerd.shim.v1.manager']")
	line(2, "env = []")
	line(2, "socket_dir = %s", quote(s.ShimSockets))
	line(1, "[plugins.'io.containerd.nri.v1.nri']")
	line(2, "disable = true")
	renderImages(line, s)
	renderRuntime(line, s)
	return b.String()
}

type liner func(indent int, format string, args ...any)

func renderImages(line liner, s settings) {
	line(1, "[plugins.'io.containerd.cri.v1.images']")
	line(2, "snapshotter = %s", quote(snapshotter))
	line(2, "stats_collect_period = 60 # walks the snapshots, and no one evicts by image disk use yet")
	line(2, "[plugins.'io.containerd.cri.v1.images'.pinned_images]")
	line(3, "sandbox = %s", quote(s.PauseImage))
	line(2, "[plugins.'io.containerd.cri.v1.images'.registry]")
	line(3, "config_path = %s", quote(s.RegistryHosts))
}

func renderRuntime(line liner, s settings) {
	line(1, "[plugins.'io.containerd.cri.v1.runtime']")
	line(2, "restrict_oom_score_adj = %t", s.RestrictOOMScore)
	line(2, "netns_mounts_under_state_dir = true")
	line(2, "enable_unprivileged_ports = true")
	line(2, "enable_unprivileged_icmp = true")
	line(2, "stats_collect_period = '10s' # containerd's 1s is a third of its idle CPU")
	line(2, "[plugins.'io.containerd.cri.v1.runtime'.cni]")
	line(3, "bin_dirs = [%s]", quoteAll(s.CNIBinDirs))
	line(3, "conf_dir = %s", quote(s.CNIConfDir))
	line(3, "use_internal_loopback = true")
	line(2, "[plugins.'io.containerd.cri.v1.runtime'.containerd]")
	line(3, "default_runtime_name = 'runc'")
	line(3, "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]")
	line(4, "runtime_type = 'io.containerd.runc.v2'")
	line(4, "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]")
	line(5, "BinaryName = %s", quote(s.Runc))
	line(5, "Root = %s", quote(s.RuncRoot))
}

// quote returns a TOML basic string. Paths come from flags, so quotes,
// backslashes and control characters must survive.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteAll(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = quote(s)
	}
	return strings.Join(quoted, ", ")
}

package spec

import (
	"bufio"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resolver is what the node knows of name resolution.
type Resolver struct {
	// Cluster are the addresses of the cluster's DNS, Domain its domain.
	Cluster []string
	Domain  string
	// Host is the node's own resolv.conf.
	Host *runtimeapi.DNSConfig
}

// ParseResolvConf reads a resolv.conf. The last search line wins, as in
// resolv.conf(5).
func ParseResolvConf(r io.Reader) (*runtimeapi.DNSConfig, error) {
	out := &runtimeapi.DNSConfig{}
	for sc := bufio.NewScanner(r); ; {
		if !sc.Scan() {
			return out, sc.Err()
		}
		f := strings.Fields(sc.Text())
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			out.Servers = append(out.Servers, f[1])
		case "search", "domain":
			out.Searches = f[1:]
		case "options":
			out.Options = append(out.Options, f[1:]...)
		}
	}
}

// Limits of a pod's resolv.conf, by the DNS documentation.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// DNS computes a pod's resolv.conf by its dnsPolicy and dnsConfig.
func DNS(pod *corev1.Pod, r Resolver) *runtimeapi.DNSConfig {
	host := r.Host
	if host == nil {
		host = &runtimeapi.DNSConfig{}
	}
	out := &runtimeapi.DNSConfig{}
	policy := pod.Spec.DNSPolicy
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault,
		policy != corev1.DNSClusterFirstWithHostNet && pod.Spec.HostNetwork,
		len(r.Cluster) == 0:
		out.Servers, out.Searches, out.Options = slices.Clone(host.Servers), slices.Clone(host.Searches), slices.Clone(host.Options)
	default:
		out.Servers = slices.Clone(r.Cluster)
		if r.Domain != "" {
			out.Searches = []string{pod.Namespace + ".svc." + r.Domain, "svc." + r.Domain, r.Domain}
		}
		for _, s := range host.Searches {
			if s != "." && !slices.Contains(out.Searches, s) {
				out.Searches = append(out.Searches, s)
			}
		}
		out.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = union(out.Servers, c.Nameservers)
		out.Searches = union(out.Searches, c.Searches)
		out.Options = mergeOptions(out.Options, c.Options)
	}
	out.Servers = out.Servers[:min(len(out.Servers), maxServers)]
	out.Searches = out.Searches[:min(len(out.Searches), maxSearches)]
	for len(strings.Join(out.Searches, " ")) > maxSearchChars {
		out.Searches = out.Searches[:len(out.Searches)-1]
	}
	return out
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// mergeOptions lets the pod's options replace those of the same name.
func mergeOptions(have []string, want []corev1.PodDNSConfigOption) []string {
	for _, o := range want {
		have = slices.DeleteFunc(have, func(s string) bool {
			name, _, _ := strings.Cut(s, ":")
			return name == o.Name
		})
		s := o.Name
		if o.Value != nil && *o.Value != "" {
			s += ":" + *o.Value
		}
		have = append(have, s)
	}
	return have
}

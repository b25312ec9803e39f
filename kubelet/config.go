// Package kubelet runs the pods that are bound to this node, on any runtime
// that speaks CRI v1, and tells the API how they are.
//
// Its invariant: a kubelet that starts adopts what runs. It deletes only what
// it made itself, and what the API no longer has only once the replica is
// verified.
package kubelet

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/kubelet/pressure"
	"skein.dev/skein/network/lb"
)

// Config of a [Kubelet]. Fields without a default are required.
type Config struct {
	// Kit's client acts as system:node:<NodeName>; its informers give pods,
	// services, nodes, config maps and secrets.
	Kit component.Kit
	// Apart is for a kubelet whose informers come from [Informers] and not
	// from a replica: it follows only the config maps and secrets that its
	// pods refer to, one watch each.
	Apart bool
	// NodeName defaults to Kit.Peer.
	NodeName string
	// NodeIPs are the node's addresses, the main family first.
	NodeIPs []netip.Addr
	// CRIEndpoint is the path of the runtime's unix socket.
	CRIEndpoint string
	// RootDir holds the pods' directories; /var/lib/skein/kubelet.
	RootDir string
	// LogDir holds the containers' logs; /var/log/pods.
	LogDir string
	// CgroupRoot is the cgroup below which pods are; "/". Peers that share a
	// machine have one each.
	CgroupRoot string
	// ClusterDNS are the addresses that pods ask; without one they get the
	// node's own resolv.conf.
	ClusterDNS []netip.Addr
	// ClusterDomain is cluster.local by default.
	ClusterDomain string
	// ResolvConf is the node's own file; /etc/resolv.conf.
	ResolvConf string
	// PodCIDRs go into the Node's spec when it is registered.
	PodCIDRs []netip.Prefix
	// Listen is the node API's address, ":10250" by default. "-" for none.
	Listen string
	// TLS serves the node API. Required unless Listen is "-".
	TLS *tls.Config
	// Authorize decides about each request to the node API but /healthz; nil
	// refuses all.
	Authorize func(r *http.Request) error
	// MaxPods is 110 by default.
	MaxPods int
	// Version is the kubeletVersion that the Node shows.
	Version string
	// Labels and Taints are set when the Node is registered; labels also
	// when they have gone missing.
	Labels map[string]string
	Taints []corev1.Taint
	// Reserved is subtracted from the capacity.
	Reserved corev1.ResourceList
	// HostPorts is told which ports of the machine lead to its pods; nil where
	// the network's own plugin opens them.
	HostPorts *lb.Feed
	// EvictionHard are the thresholds below which pods are evicted, as in
	// KubeletConfiguration; nil means upstream's defaults.
	EvictionHard map[string]string
	// ImageHigh is the percentage of the images' disk in use from which on
	// unused images go; 85 by default, 100 keeps all.
	ImageHigh int
	// Relist is the period of full comparisons with the runtime; 30 s.
	Relist time.Duration
}

// DefaultClusterDomain is the domain of cluster DNS unless told otherwise.
const DefaultClusterDomain = "cluster.local"

func (c *Config) complete() error {
	if c.NodeName == "" {
		c.NodeName = string(c.Kit.Peer)
	}
	switch {
	case c.Kit.Client == nil || c.Kit.Informers == nil || c.Kit.Recorder == nil:
		return errors.New("kubelet: kit needs client, informers and recorder")
	case c.NodeName == "":
		return errors.New("kubelet: node name is required")
	case len(c.NodeIPs) == 0:
		return errors.New("kubelet: at least one node address is required")
	case c.CRIEndpoint == "":
		return errors.New("kubelet: runtime endpoint is required")
	}
	orDefault(&c.RootDir, "/var/lib/skein/kubelet")
	orDefault(&c.LogDir, "/var/log/pods")
	orDefault(&c.CgroupRoot, "/")
	orDefault(&c.ClusterDomain, DefaultClusterDomain)
	orDefault(&c.ResolvConf, "/etc/resolv.conf")
	orDefault(&c.Listen, ":10250")
	if c.Listen != "-" && c.TLS == nil {
		return errors.New("kubelet: the node API needs a TLS configuration")
	}
	if c.ImageHigh == 0 {
		c.ImageHigh = pressure.High
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.Relist == 0 {
		c.Relist = 30 * time.Second
	}
	if c.Kit.Log == nil {
		c.Kit.Log = slog.New(slog.DiscardHandler)
	}
	if c.Kit.Settled == nil {
		c.Kit.Settled = func() bool { return true }
	}
	return nil
}

func orDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func (c *Config) podsDir() string { return filepath.Join(c.RootDir, "pods") }

func (c *Config) hostIPs() []string {
	out := make([]string, len(c.NodeIPs))
	for i, ip := range c.NodeIPs {
		out[i] = ip.String()
	}
	return out
}

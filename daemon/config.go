package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/kubelet/pressure"
)

// Config is what an operator may set for one peer. Every field is a flag and,
// under the flag's name, a key of the YAML configuration file.
type Config struct {
	Name            string       // the peer's and its Node's name; the host name if empty
	DataDir         string       // what must survive: log, keys, images
	StateDir        string       // sockets and what need not survive a reboot
	Kubeconfig      string       // where the administrator's kubeconfig is written
	Addresses       []netip.Addr // the addresses peers dial; found if empty
	foundAddresses  bool         // they were
	Port            int          // the one port
	NodePort        int          // the node API's port
	GuardPort       int          // where the guard answers
	ClusterCIDRs    []netip.Prefix
	ServiceCIDRs    []netip.Prefix
	ClusterDomain   string
	Zone            string
	Engine          Engine   // what runs pods here
	RuntimeEndpoint string   // an external CRI socket; the embedded containerd if empty
	CgroupParent    string   // all cgroups of this peer are made below it
	Scheduler       bool     // whether this peer may schedule
	Controllers     []string // which controllers run while this peer has their role, as kube-controller-manager reads it
	EvictionHard    []string // as upstream's flag has them: "signal<amount"; upstream's own if empty
	ImageHigh       int      // percentage of the images' disk from which on unused ones go
	LogLevel        string
	// AuthenticationConfig and AuthorizationConfig are upstream's files of the
	// API server, TokenWebhookConfig a kubeconfig; each peer has its own.
	AuthenticationConfig, AuthorizationConfig string
	TokenWebhookConfig, TokenWebhookVersion   string
	API                                       APIConfig
}

// DefaultConfig is what holds where the operator says nothing.
func DefaultConfig() Config {
	return Config{
		DataDir:       "/var/lib/skein",
		StateDir:      "/run/skein",
		Kubeconfig:    "/etc/skein/kubeconfig.yaml",
		Port:          6443,
		NodePort:      10250,
		GuardPort:     6444,
		ClusterCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		ServiceCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		ClusterDomain: "cluster.local",
		Engine:        Containerd,
		CgroupParent:  "/skein",
		Scheduler:     true,
		Controllers:   []string{"*"},
		ImageHigh:     85,
		LogLevel:      "info",
		API:           defaultAPIConfig(),

		TokenWebhookVersion: "v1beta1",
	}
}

// AddFlags binds c's fields to flags, its present values being the defaults.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Name, "name", c.Name, "name of this peer and its Node (default: the host name)")
	fs.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory for the log, keys and images")
	fs.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory for sockets and other state that a reboot may clear")
	fs.StringVar(&c.Kubeconfig, "kubeconfig-out", c.Kubeconfig, "where the administrator's kubeconfig is written")
	fs.Var(textSlice[netip.Addr]{&c.Addresses, netip.ParseAddr, "ip"}, "address", "IP addresses by which peers reach this one, the preferred first (default: found)")
	fs.IntVar(&c.Port, "port", c.Port, "the one port for API, peers and gossip (TCP and UDP)")
	fs.IntVar(&c.NodePort, "node-port", c.NodePort, "port of the node API")
	fs.IntVar(&c.GuardPort, "guard-port", c.GuardPort, "port on which the guard answers that this machine lives")
	fs.Var(textSlice[netip.Prefix]{&c.ClusterCIDRs, netip.ParsePrefix, "cidr"}, "cluster-cidr", "ranges pods get their addresses from (first peer only)")
	fs.Var(textSlice[netip.Prefix]{&c.ServiceCIDRs, netip.ParsePrefix, "cidr"}, "service-cidr", "ranges services get their addresses from (first peer only)")
	fs.StringVar(&c.ClusterDomain, "cluster-domain", c.ClusterDomain, "domain of the cluster DNS (first peer only)")
	fs.StringVar(&c.Zone, "zone", c.Zone, "failure domain of this machine")
	fs.StringVar((*string)(&c.Engine), "engine", string(c.Engine), "what runs pods on this peer: containerd, or none for an API server without a Node")
	fs.StringVar(&c.RuntimeEndpoint, "runtime-endpoint", c.RuntimeEndpoint, "CRI socket of an engine of your own (default: the embedded containerd)")
	fs.StringVar(&c.CgroupParent, "cgroup-parent", c.CgroupParent, "cgroup below which this peer makes its own")
	fs.BoolVar(&c.Scheduler, "scheduler", c.Scheduler, "whether this peer may be the one that schedules")
	fs.StringSliceVar(&c.Controllers, "controllers", c.Controllers, `controllers to run: "*" all that are on by default, "name" this one, "-name" not this one`)
	fs.StringVar(&c.AuthenticationConfig, "authentication-config", c.AuthenticationConfig, "AuthenticationConfiguration file: token issuers (OIDC) and anonymous access; read again when it changes (give it to every peer)")
	fs.StringVar(&c.AuthorizationConfig, "authorization-config", c.AuthorizationConfig, "AuthorizationConfiguration file: who decides, Node and RBAC among them; read again when it changes (give it to every peer)")
	fs.StringVar(&c.TokenWebhookConfig, "authentication-token-webhook-config-file", c.TokenWebhookConfig, "kubeconfig of a server that is asked about unknown tokens (give it to every peer)")
	fs.StringVar(&c.TokenWebhookVersion, "authentication-token-webhook-version", c.TokenWebhookVersion, "API version of the TokenReview that server takes")
	fs.StringSliceVar(&c.EvictionHard, "eviction-hard", c.EvictionHard, `thresholds below which pods are evicted, such as "imagefs.available<15%" (default: the kubelet's)`)
	fs.IntVar(&c.ImageHigh, "image-gc-high-threshold", c.ImageHigh, "percentage of the images' disk in use from which on unused images are removed; 100 keeps them all")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	c.API.addFlags(fs)
}

// Complete fills what was left empty from the machine and checks the rest.
func (c *Config) Complete() error {
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host name: %w", err)
		}
		c.Name = host
	}
	if errs := validation.IsDNS1123Subdomain(c.Name); len(errs) > 0 {
		return fmt.Errorf("name %q: %s", c.Name, errs[0])
	}
	for _, dir := range []*string{&c.DataDir, &c.StateDir, &c.Kubeconfig, &c.AuthenticationConfig, &c.AuthorizationConfig, &c.TokenWebhookConfig} {
		if *dir == "" {
			continue // filepath.Abs would make it the working directory
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("resolve %s: %w", *dir, err)
		}
		*dir = abs
	}
	if len(c.Addresses) == 0 {
		addrs, err := findAddresses()
		if err != nil {
			return err
		}
		c.Addresses, c.foundAddresses = addrs, true
	}
	for flag, port := range map[string]int{"port": c.Port, "node-port": c.NodePort, "guard-port": c.GuardPort} {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%s %d: must be between 1 and 65535", flag, port)
		}
	}
	if _, err := c.evictionHard(); err != nil {
		return err
	}
	if c.ImageHigh < 1 || c.ImageHigh > 100 {
		return fmt.Errorf("image-gc-high-threshold %d: must be between 1 and 100", c.ImageHigh)
	}
	if err := c.API.complete(); err != nil {
		return err
	}
	if err := c.checkParts(); err != nil {
		return err
	}
	if len(c.ClusterCIDRs) == 0 || len(c.ServiceCIDRs) == 0 {
		return errors.New("cluster-cidr and service-cidr must each name a range")
	}
	for _, cluster := range c.ClusterCIDRs {
		for _, service := range c.ServiceCIDRs {
			if cluster.Overlaps(service) {
				return fmt.Errorf("cluster-cidr %s overlaps service-cidr %s", cluster, service)
			}
		}
	}
	return nil
}

// evictionHard are the thresholds as the kubelet takes them, nil for its own.
func (c *Config) evictionHard() (map[string]string, error) {
	var out map[string]string
	for _, text := range c.EvictionHard {
		signal, amount, ok := strings.Cut(text, "<")
		if !ok {
			return nil, fmt.Errorf("eviction-hard %q: want signal<amount", text)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[signal] = amount
	}
	if _, err := pressure.Parse(out); err != nil {
		return nil, fmt.Errorf("eviction-hard: %w", err)
	}
	return out, nil
}

// findAddresses returns the machine's own global addresses, IPv4 first.
func findAddresses() ([]netip.Addr, error) {
	all, err := machineAddresses()
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		switch {
		case !a.IsGlobalUnicast():
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}
	if len(v4)+len(v6) == 0 {
		return nil, errors.New("this machine has no address but loopback: name one with --address")
	}
	// One of each family: the machine's first is the one its default route uses as a rule.
	return append(v4[:min(1, len(v4))], v6[:min(1, len(v6))]...), nil
}

// LoadFile sets the flags that file names and the command line did not.
func LoadFile(path string, fs *pflag.FlagSet) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var keys map[string]any
	if err := yaml.UnmarshalStrict(raw, &keys); err != nil {
		return fmt.Errorf("parse %s: %w", path, err)
	}
	for key, value := range keys {
		f := fs.Lookup(key)
		if f == nil {
			return fmt.Errorf("%s: no setting is called %q", path, key)
		}
		if f.Changed {
			continue
		}
		text := fmt.Sprint(value)
		if values, ok := value.([]any); ok {
			text = strings.Trim(strings.Join(strings.Fields(fmt.Sprint(values)), ","), "[]")
		}
		if err := fs.Set(key, text); err != nil {
			return fmt.Errorf("%s: %s: %w", path, key, err)
		}
	}
	return nil
}

// SaveFile writes the flags' present values so that LoadFile reads them back.
func SaveFile(path string, fs *pflag.FlagSet) error {
	keys := map[string]any{}
	fs.VisitAll(func(f *pflag.Flag) {
		if s, ok := f.Value.(pflag.SliceValue); ok {
			if values := s.GetSlice(); len(values) > 0 {
				keys[f.Name] = values
			}
			return
		}
		keys[f.Name] = f.Value.String()
	})
	raw, err := yaml.Marshal(keys)
	if err != nil {
		return fmt.Errorf("encode configuration: %w", err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"skein.dev/skein/api/member"
	"skein.dev/skein/identity"
)

// The layout of the data directory. Each file or folder belongs to the part
// that is named like it.
const (
	recordFile = "peer.json"   // who this peer is
	configFile = "config.yaml" // the flags it was made with
	keysDir    = "keys"        // package identity
	raftDir    = "raft"        // package raftstore
	kubeletDir = "kubelet"     // package kubelet
	networkDir = "network"     // package network
	// GuardFile is the guard's configuration, GuardLog what it says.
	GuardFile = "guard.json"
	GuardLog  = "guard.log"
	// LogFile is the daemon's log.
	LogFile = "skein.log"
)

// settings are what every peer of one cluster must agree on. They travel to
// joiners with the bundle.
type settings struct {
	ClusterCIDRs  []netip.Prefix `json:"clusterCIDRs"`
	ServiceCIDRs  []netip.Prefix `json:"serviceCIDRs"`
	ClusterDomain string         `json:"clusterDomain"`
}

// dnsAddresses are the cluster DNS's: the tenth of each service range.
func (s settings) dnsAddresses() []netip.Addr { return nthOfEach(s.ServiceCIDRs, 10) }

// apiAddresses are those of the Service default/kubernetes: the first of each range.
func (s settings) apiAddresses() []netip.Addr { return nthOfEach(s.ServiceCIDRs, 1) }

func nthOfEach(ranges []netip.Prefix, n int) []netip.Addr {
	var addrs []netip.Addr
	for _, r := range ranges {
		a := r.Masked().Addr()
		for range n {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// record is what a peer knows of itself and keeps for life.
type record struct {
	Name     member.Name     `json:"name"`
	ServerID member.ServerID `json:"serverID"`
	// First says that this peer made the cluster and bootstraps its log.
	First bool `json:"first,omitempty"`
	// Addresses are those that the peer last went by, if it found them itself.
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	Settings  settings       `json:"settings"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs"`
	// Seeds are peers known when this one joined.
	Seeds []identity.PeerAddress `json:"seeds,omitempty"`
}

// hinted is an error that knows its remedy.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint says what the user can do about the error.
func (h hinted) Hint() string { return h.hint }

// checkUnused fails if the data directory already holds a peer.
func checkUnused(dataDir string) error {
	old, err := loadRecord(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return hinted{
		fmt.Errorf("data directory %s: it already holds the peer %s", dataDir, old.Name),
		"`skein start` starts that peer again; `skein reset` removes it and all its data",
	}
}

func loadRecord(dataDir string) (*record, error) {
	path := filepath.Join(dataDir, recordFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read peer: %w", err)
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("read peer: decode %s: %w", path, err)
	}
	return &r, nil
}

// save writes the record and the configuration; the record comes last,
// because it is what makes the directory a peer's.
func (r *record) save(c Config) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode peer: %w", err)
	}
	if c.foundAddresses {
		c.Addresses = nil // they are found again at each start
	}
	fs := pflag.NewFlagSet("config", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := SaveFile(ConfigPath(c.DataDir), fs); err != nil {
		return err
	}
	return writeRecord(c.DataDir, raw)
}

// settle decides which addresses a peer goes by that finds them itself: those
// of its last run for as long as the machine has them, whatever others there
// are now.
func (r *record) settle(c *Config) error {
	if !c.foundAddresses || slices.Equal(r.Addresses, c.Addresses) {
		return nil
	}
	machine, err := machineAddresses()
	if err != nil {
		return err
	}
	if len(r.Addresses) > 0 && !moved(r.Addresses, c.Addresses, machine) {
		c.Addresses = r.Addresses
		return nil
	}
	r.Addresses = c.Addresses
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode peer: %w", err)
	}
	return writeRecord(c.DataDir, raw)
}

func writeRecord(dataDir string, raw []byte) error {
	path := filepath.Join(dataDir, recordFile)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("write peer: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write peer: %w", err)
	}
	return nil
}

// ConfigPath is where a peer keeps the settings it was made with.
func ConfigPath(dataDir string) string { return filepath.Join(dataDir, configFile) }

// keys is where the peer's keyring is.
func (c Config) keys() identity.Dir { return identity.Dir(filepath.Join(c.DataDir, keysDir)) }

func (s settings) encode() map[string]string {
	return map[string]string{
		"cluster-cidr":   textSlice[netip.Prefix]{values: &s.ClusterCIDRs}.String(),
		"service-cidr":   textSlice[netip.Prefix]{values: &s.ServiceCIDRs}.String(),
		"cluster-domain": s.ClusterDomain,
	}
}

func decodeSettings(m map[string]string) (s settings, err error) {
	for key, into := range map[string]*[]netip.Prefix{"cluster-cidr": &s.ClusterCIDRs, "service-cidr": &s.ServiceCIDRs} {
		for text := range strings.SplitSeq(m[key], ",") {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return settings{}, fmt.Errorf("setting %s: %w", key, err)
			}
			*into = append(*into, p)
		}
	}
	s.ClusterDomain = m["cluster-domain"]
	return s, nil
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"

	"skein.dev/skein/api/member"
	"skein.dev/skein/identity"
	"skein.dev/skein/link"
)

// Create makes the data directory of a new cluster's first peer: its keyring,
// certificates and administrator's kubeconfig. c must be complete. It starts
// nothing, and leaves nothing behind when it fails.
func Create(ctx context.Context, c Config, now time.Time) (err error) {
	if err := checkUnused(c.DataDir); err != nil {
		return err
	}
	if err := checkMachine(ctx, c); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(string(c.keys())))
		}
	}()
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	keyring, err := identity.NewKeyring(now)
	if err != nil {
		return err
	}
	if err := c.keys().Create(keyring); err != nil {
		return err
	}
	r := &record{
		Name: member.Name(c.Name), ServerID: newServerID(), First: true,
		Settings: settings{c.ClusterCIDRs, c.ServiceCIDRs, c.ClusterDomain},
	}
	if !c.APIOnly() {
		if r.PodCIDRs, err = nthPodCIDRs(r.Settings.ClusterCIDRs, 0); err != nil {
			return err
		}
	}
	certs, _, err := c.keys().Ensure(keyring, r.machine(c), now)
	if err != nil {
		return err
	}
	if err := writeKubeconfig(c, keyring, certs[identity.UseAdmin]); err != nil {
		return err
	}
	return r.save(c)
}

// Join makes the data directory of a peer that joins the mesh at address with
// token. c must be complete; its cluster-wide settings are replaced by the
// mesh's. It starts nothing, and leaves nothing behind when it fails.
func Join(ctx context.Context, c Config, address, token string, now time.Time) (err error) {
	if err := checkUnused(c.DataDir); err != nil {
		return err
	}
	t, err := identity.ParseToken(token)
	if err != nil {
		return err
	}
	if err := checkMachine(ctx, c); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, strconv.Itoa(c.Port))
	}
	r := &record{Name: member.Name(c.Name), ServerID: newServerID()}
	keys, requests, err := identity.Requests(r.Name)
	if err != nil {
		return err
	}
	var reply identity.JoinReply
	if err := link.Post(ctx, address, t.CAHash, identity.JoinPath, identity.JoinRequest{
		Token: token, Name: r.Name, ServerID: r.ServerID, Addresses: c.Addresses,
		Port: int32(c.Port), Zone: c.Zone, Requests: requests,
		APIOnly: c.APIOnly(), Declines: c.declines(),
	}, &reply); err != nil {
		return fmt.Errorf("join %s: %w", address, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(string(c.keys())))
		}
	}()
	return r.admit(c, reply.Bundle, keys, now)
}

// admit stores what the mesh gave to its new peer.
func (r *record) admit(c Config, b identity.Bundle, keys map[identity.Use][]byte, now time.Time) error {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	keyring, err := b.Keyring()
	if err != nil {
		return err
	}
	pairs, err := b.Pairs(keys)
	if err != nil {
		return err
	}
	if err := c.keys().Create(keyring); err != nil {
		return err
	}
	for use, p := range pairs {
		if err := c.keys().Put(use, p); err != nil {
			return err
		}
	}
	if r.Settings, err = decodeSettings(b.Settings); err != nil {
		return err
	}
	if !c.APIOnly() {
		if r.PodCIDRs, err = parsePrefixes(b.Settings[podCIDRSetting]); err != nil {
			return err
		}
	}
	r.Seeds = b.Peers
	c.ClusterCIDRs, c.ServiceCIDRs, c.ClusterDomain = r.Settings.ClusterCIDRs, r.Settings.ServiceCIDRs, r.Settings.ClusterDomain
	certs, _, err := c.keys().Ensure(keyring, r.machine(c), now)
	if err != nil {
		return err
	}
	if err := writeKubeconfig(c, keyring, certs[identity.UseAdmin]); err != nil {
		return err
	}
	return r.save(c)
}

func newServerID() member.ServerID { return member.ServerID(uuid.NewString()) }

// machine is what the peer's certificates say about it.
func (r *record) machine(c Config) identity.Machine {
	return identity.Machine{
		Name: r.Name, ServerID: r.ServerID, Addresses: c.Addresses,
		ServiceIPs: r.Settings.apiAddresses(), Domain: r.Settings.ClusterDomain,
	}
}

func writeKubeconfig(c Config, k *identity.Keyring, admin identity.Pair) error {
	return identity.Kubeconfig{
		CA: k.CAPEM(identity.Serving), User: "admin", Client: admin,
		Endpoints: []identity.Endpoint{{
			Name:   c.Name,
			Server: "https://" + net.JoinHostPort(c.Addresses[0].String(), strconv.Itoa(c.Port)),
		}},
	}.Write(c.Kubeconfig)
}

// checkMachine fails with one clear error if the machine cannot be a peer.
func checkMachine(ctx context.Context, c Config) error {
	if os.Geteuid() != 0 && !c.APIOnly() {
		return hinted{errors.New("a peer needs root: it makes namespaces, cgroups and packet filter rules"), "run it with sudo"}
	}
	for _, addr := range c.Addresses {
		at := net.JoinHostPort(addr.String(), strconv.Itoa(c.Port))
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
		if err != nil {
			return hinted{fmt.Errorf("port %d: %w", c.Port, err), "stop what uses it, or choose another with --port"}
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("port %d: %w", c.Port, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(c.Kubeconfig), 0o755); err != nil {
		return fmt.Errorf("make directory of the kubeconfig: %w", err)
	}
	if c.APIOnly() {
		return nil
	}
	return checkKernel()
}

// podPrefix is how large a range a peer takes out of the cluster's: 256
// addresses of IPv4, 2^64 of IPv6.
func podPrefix(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

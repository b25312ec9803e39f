// Package cni is Skein's CNI plugin: what cmd/cni runs for each pod.
//
// A pod gets one veth pair and no bridge: the host has a route to the pod's
// address alone, the pod a default route through a link-local gateway that
// nobody owns, and both ends know the other's MAC, so no ARP is ever sent.
// Without a bridge every packet passes the host's IP layer, and Services work
// between two pods of one peer without the br_netfilter module.
//
// Its invariant: an address is in the data directory before a packet can use
// it, and stays there until DEL or GC has removed the pod's link.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Type is the plugin's name in a network configuration and therefore the name
// of the program in the CNI binary directory, where package engine/programs
// unpacks it.
const Type = "cni"

// Conf is the plugin's part of the network configuration.
type Conf struct {
	types.PluginConf
	// Ranges are the peer's pod CIDRs, of any family; a pod gets one address
	// of each family that occurs, from the first range with one free.
	Ranges []netip.Prefix `json:"ranges"`
	// DataDir holds the allocations. It may vanish at a reboot.
	DataDir string `json:"dataDir"`
	// MTU of both ends of the veth pair; 0 leaves the kernel's default.
	MTU int `json:"mtu,omitempty"`
}

func parse(stdin []byte) (*Conf, error) {
	var c Conf
	if err := json.Unmarshal(stdin, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "cannot read the network configuration", err.Error())
	}
	if c.DataDir == "" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "dataDir is not set", "")
	}
	return &c, nil
}

// Funcs are the plugin's commands in the form skel calls them.
func Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: Add, Del: Del, Check: Check, GC: GC, Status: Status}
}

// Add gives the container an interface and addresses, and prints the result.
// A second Add for the same container and interface keeps the addresses and
// makes the interface anew.
func Add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	owner := Owner{Container: args.ContainerID, Interface: args.IfName}
	p := pair{host: hostName(owner), pod: args.IfName, netns: args.Netns, mtu: c.MTU}
	p.addrs, err = allocate(c, owner)
	if err != nil {
		return err
	}
	if err := p.create(); err != nil {
		// The runtime calls DEL after a failed ADD, but not every one does.
		return errors.Join(err, remove(p.host), releaseOwner(c.DataDir, owner))
	}
	return types.PrintResult(p.result(), c.CNIVersion)
}

func allocate(c *Conf, owner Owner) ([]netip.Addr, error) {
	s, err := OpenStore(c.DataDir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	addrs, err := s.Allocate(owner, c.Ranges, routed)
	if err != nil {
		return nil, fmt.Errorf("allocate address for %s: %w", owner, err)
	}
	return addrs, nil
}

func releaseOwner(dir string, owner Owner) error {
	s, err := OpenStore(dir)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Release(func(o Owner) bool { return o == owner })
}

// Del removes the container's interface and frees its addresses. What is
// already gone is no error.
func Del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	owner := Owner{Container: args.ContainerID, Interface: args.IfName}
	if err := remove(hostName(owner)); err != nil {
		return err
	}
	return releaseOwner(c.DataDir, owner)
}

// Check fails unless the container has its interface, its addresses and its
// route on the host.
func Check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	s, err := OpenStore(c.DataDir)
	if err != nil {
		return err
	}
	defer s.Close()
	owner := Owner{Container: args.ContainerID, Interface: args.IfName}
	addrs, err := s.Owned(owner)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("check %s: no address is allocated to it", owner)
	}
	return pair{host: hostName(owner), pod: args.IfName, netns: args.Netns, addrs: addrs}.check()
}

// GC frees what belongs to none of the attachments the runtime names.
func GC(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	valid := map[Owner]bool{}
	for _, a := range c.ValidAttachments {
		valid[Owner{Container: a.ContainerID, Interface: a.IfName}] = true
	}
	s, err := OpenStore(c.DataDir)
	if err != nil {
		return err
	}
	defer s.Close()
	var errs []error
	err = s.Release(func(o Owner) bool {
		if valid[o] {
			return false
		}
		err := remove(hostName(o))
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(append(errs, err)...)
}

// Status fails while the plugin could not serve an Add: without ranges.
func Status(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if len(c.Ranges) == 0 {
		// 50 is the specification's "plugin is not available".
		return types.NewError(50, "no pod CIDR has been given to this peer yet", "")
	}
	return nil
}

func (p pair) result() *current.Result {
	res := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: p.host, Mac: p.hostMAC.String(), Mtu: p.mtu},
			{Name: p.pod, Mac: p.podMAC.String(), Mtu: p.mtu, Sandbox: p.netns},
		},
	}
	for _, a := range p.addrs {
		gw := net.IP(gateway(a).AsSlice())
		res.IPs = append(res.IPs, &current.IPConfig{Interface: new(1), Address: *single(a), Gateway: gw})
		res.Routes = append(res.Routes, &types.Route{Dst: *everything(a), GW: gw})
	}
	return res
}

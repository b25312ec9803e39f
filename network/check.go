package network

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"skein.dev/skein/network/ns"
)

// ErrKernel is the error of Check: the kernel cannot do what every peer needs
// of it.
type ErrKernel struct {
	What   string // the feature and what it is for
	Module string // what brings it
	Err    error  // what the kernel said
}

func (e *ErrKernel) Error() string { return fmt.Sprintf("the kernel has no %s: %v", e.What, e.Err) }

func (e *ErrKernel) Unwrap() error { return e.Err }

// Hint says how a user mends it.
func (e *ErrKernel) Hint() string { return fmt.Sprintf("load it with `modprobe %s`", e.Module) }

// Check tries what the pod network needs of the kernel, in a network namespace
// that ends with the call: the machine's own is not touched. It fails with an
// *ErrKernel for each feature that is missing, joined.
func Check() error {
	return ns.Fresh(func() error {
		tries := []struct {
			what, module string
			try          func() error
		}{
			{"nftables, which services need", "nf_tables", tryTables},
			{"veth pairs, which pods need", "veth", func() error {
				return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "try0"}, PeerName: "try1"})
			}},
			{"VXLAN, which pods of different peers need", "vxlan", func() error {
				return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "try2"}, VxlanId: 1, Port: defaultVXLANPort})
			}},
		}
		var missing []error
		for _, t := range tries {
			if err := t.try(); err != nil {
				missing = append(missing, &ErrKernel{What: t.what, Module: t.module, Err: err})
			}
		}
		return errors.Join(missing...)
	})
}

func tryTables() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "try"})
	c.AddChain(&nftables.Chain{
		Name: "nat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	return c.Flush()
}

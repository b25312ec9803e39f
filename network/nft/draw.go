package nft

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/lb"
)

// shape is what a chain that draws is made of: services that differ in
// nothing else share it.
type shape struct {
	backends   int
	node       bool
	masquerade bool
	affinity   time.Duration
}

func shapeOf(s lb.Service) shape {
	return shape{
		backends: len(s.Backends), node: s.Front.Addr.IsUnspecified(), masquerade: s.Masquerade,
		affinity: s.Affinity.Round(time.Second),
	}
}

// name is the chain's name: draw-3-node-masquerade-10800s.
func (s shape) name() string {
	n := chainPrefix + strconv.Itoa(s.backends)
	if s.node {
		n += "-node"
	}
	if s.masquerade {
		n += "-masquerade"
	}
	if s.affinity > 0 {
		n += "-" + strconv.Itoa(int(s.affinity/time.Second)) + "s"
	}
	return n
}

// draws writes the chain of a shape: keep a known client, draw for others.
func (f family) draws(c *nftables.Conn, s shape) {
	ch := c.AddChain(&nftables.Chain{Name: s.name(), Table: f.table})
	c.FlushChain(ch)
	rule := func(exprs ...expr.Any) { c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: exprs}) }
	if s.masquerade {
		rule(&expr.Verdict{Kind: expr.VerdictJump, Chain: markChain})
	}
	number := []expr.Any{
		&expr.Numgen{Register: f.regNext(), Modulus: uint32(s.backends), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: reg0, DestRegister: f.regBackend(), IsDestRegSet: true, SetName: backendsMap, SetID: backendsID},
	}
	if s.affinity > 0 {
		known := &expr.Lookup{SourceRegister: reg0, DestRegister: f.regBackend(), IsDestRegSet: true, SetName: clientsMap, SetID: clientsID}
		rule(append(f.load(s.node), f.client(), known, remember(f, s), f.translate())...)
		rule(append(append(f.load(s.node), number...), f.client(), remember(f, s), f.translate())...)
		// Where no more clients can be remembered, they are drawn for.
	}
	rule(append(append(f.load(s.node), number...), f.translate())...)
}

// client loads the packet's source address behind the front.
func (f family) client() expr.Any {
	return &expr.Payload{DestRegister: f.regNext(), Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset(), Len: f.size}
}

// remember writes the client's backend down, or restarts its time.
func remember(f family, s shape) expr.Any {
	return &expr.Dynset{
		SrcRegKey: reg0, SrcRegData: f.regBackend(), SetName: clientsMap, SetID: clientsID,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.affinity,
	}
}

// translate changes the destination to the backend in the registers.
func (f family) translate() expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(f.table.Family), RegAddrMin: f.regBackend(), RegProtoMin: f.regBackend() + f.words(),
	}
}

// dropUnused removes the chains that no front leads to any more. The kernel
// knows which those are.
func (f family) dropUnused(c *nftables.Conn) error {
	chains, err := c.ListChainsOfTableFamily(f.table.Family)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name != tableName || !strings.HasPrefix(ch.Name, chainPrefix) {
			continue
		}
		c.FlushChain(ch)
		c.DelChain(ch)
		if err := c.Flush(); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("delete chain %s: %w", ch.Name, err)
		}
	}
	return nil
}

// forgetClients ends the affinity of clients to what is no backend of their
// front any more. live has the backends of the fronts to look at.
func (f family) forgetClients(c *nftables.Conn, live map[lb.Front]map[string]bool) error {
	es, err := c.GetSetElements(f.clients())
	if err != nil {
		return fmt.Errorf("list clients: %w", err)
	}
	for _, e := range es {
		if len(e.Key) < f.frontLen() {
			continue
		}
		fr, ok := f.front(e.Key[:f.frontLen()], false)
		if backends, look := live[fr]; !ok || !look || backends[string(e.Val)] {
			continue
		}
		// One at a time: it may have gone by itself.
		if err := c.SetDeleteElements(f.clients(), []nftables.SetElement{{Key: e.Key}}); err != nil {
			return fmt.Errorf("forget client of %s: %w", fr, err)
		}
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget client of %s: %w", fr, err)
		}
	}
	return nil
}

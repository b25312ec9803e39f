package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/lb"
)

// transaction collects the messages of one change.
type transaction struct {
	c      *nftables.Conn
	nextID uint32
	uses   map[netip.Addr]int // by how much the count of each address changes
}

func (tx *transaction) id() uint32 {
	tx.nextID++
	return tx.nextID
}

func (f family) dispatcher(fr lb.Front) *nftables.Set {
	if fr.Addr.IsUnspecified() {
		return f.nodePorts()
	}
	return f.services()
}

// remove takes a front and all that hangs on it away.
func (tx *transaction) remove(f family, old known) error {
	// Deleting by key alone cannot fail: the front is there.
	_ = tx.c.SetDeleteElements(f.dispatcher(old.Front), []nftables.SetElement{{Key: key(old.Front)}})
	if old.adopted || len(old.Backends) > 0 {
		tx.dropChain(f, old)
	}
	tx.count(old.Backends, -1)
	return tx.numbers(f, old.Front, old.Backends, nil)
}

// dropChain deletes a service's chain, after what refers to it.
func (tx *transaction) dropChain(f family, old known) {
	chain := &nftables.Chain{Name: chainName(old.Front), Table: f.table}
	if old.adopted {
		tx.c.AddChain(chain) // it may be absent, and deleting must not fail
	}
	tx.c.FlushChain(chain)
	tx.c.DelChain(chain)
	if old.Affinity > 0 {
		tx.c.DelSet(&nftables.Set{Table: f.table, Name: affinityName(old.Front)})
	}
}

func (tx *transaction) count(backends []netip.AddrPort, by int) {
	for _, b := range backends {
		tx.uses[b.Addr()] += by
	}
}

// set writes a service over what its front led to before.
func (tx *transaction) set(f family, s lb.Service, old known, existed bool) error {
	tx.count(old.Backends, -1)
	tx.count(s.Backends, 1)
	if err := tx.numbers(f, s.Front, old.Backends, s.Backends); err != nil {
		return err
	}
	before, after := verdict(old.Service), verdict(s)
	redirect := !existed || old.adopted || *before != *after
	if existed && redirect {
		if err := tx.c.SetDeleteElements(f.dispatcher(s.Front), []nftables.SetElement{{Key: key(s.Front)}}); err != nil {
			return fmt.Errorf("redirect %s: %w", s.Front, err)
		}
	}
	hadChain := existed && (old.adopted || len(old.Backends) > 0)
	switch {
	case len(s.Backends) > 0:
		if err := tx.chain(f, s, old); err != nil {
			return fmt.Errorf("write service %s: %w", s.Name, err)
		}
	case hadChain:
		tx.dropChain(f, old)
	}
	if !redirect {
		return nil
	}
	el := nftables.SetElement{Key: key(s.Front), VerdictData: after, Comment: comment(s.Name)}
	if err := tx.c.SetAddElements(f.dispatcher(s.Front), []nftables.SetElement{el}); err != nil {
		return fmt.Errorf("direct %s: %w", s.Front, err)
	}
	return nil
}

// comment is a name as short as the kernel wants it.
func comment(name string) string { return name[:min(len(name), 120)] }

// chain writes the service's chain anew: keep a known client, draw for others.
func (tx *transaction) chain(f family, s lb.Service, old known) error {
	ch := tx.c.AddChain(&nftables.Chain{Name: chainName(s.Front), Table: f.table})
	if old.Front == s.Front { // else it is new and empty
		tx.c.FlushChain(ch)
	}
	affinity, err := tx.affinity(f, s, old)
	if err != nil {
		return err
	}
	if s.Masquerade {
		tx.c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: []expr.Any{
			&expr.Verdict{Kind: expr.VerdictJump, Chain: markChain},
		}})
	}
	if affinity != nil {
		tx.c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: f.keep(affinity)})
	}
	tx.draw(f, ch, s, affinity)
	return nil
}

// draw adds the rule that picks one of n backends.
func (tx *transaction) draw(f family, ch *nftables.Chain, s lb.Service, affinity *nftables.Set) {
	exprs := []expr.Any{
		&expr.Immediate{Register: regDraw, Data: id(s.Front)},
		&expr.Numgen{Register: regDraw + idSize/4, Modulus: uint32(len(s.Backends)), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: regDraw, DestRegister: regAddr, IsDestRegSet: true, SetName: backendsMap, SetID: backendsID},
	}
	if affinity != nil {
		exprs = append(exprs, f.client(), remember(affinity))
	}
	tx.c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: append(exprs, f.translate())})
}

// numbers brings the numbered backends of a front from old to next, touching
// only what differs.
func (tx *transaction) numbers(f family, fr lb.Front, old, next []netip.AddrPort) error {
	var del, add []nftables.SetElement
	for i := range max(len(old), len(next)) {
		if i < len(old) && i < len(next) && old[i] == next[i] {
			continue
		}
		if i < len(old) {
			del = append(del, nftables.SetElement{Key: backendKey(fr, i)})
		}
		if i < len(next) {
			add = append(add, nftables.SetElement{Key: backendKey(fr, i), Val: backend(next[i])})
		}
	}
	for _, part := range chunks(del) {
		if err := tx.c.SetDeleteElements(f.backends(), part); err != nil {
			return fmt.Errorf("delete backends of %s: %w", fr, err)
		}
	}
	for _, part := range chunks(add) {
		if err := tx.c.SetAddElements(f.backends(), part); err != nil {
			return fmt.Errorf("add backends of %s: %w", fr, err)
		}
	}
	return nil
}

// affinity makes the map of the service's clients, or takes it away. It
// returns nil without affinity.
func (tx *transaction) affinity(f family, s lb.Service, old known) (*nftables.Set, error) {
	m := &nftables.Set{Table: f.table, Name: affinityName(s.Front)}
	if old.Affinity > 0 && old.Affinity != s.Affinity {
		tx.c.DelSet(m) // its rules were flushed before; clients are drawn anew
	}
	if s.Affinity == 0 {
		return nil, nil
	}
	m = f.clients(s)
	m.ID = tx.id()
	if err := tx.c.AddSet(m, nil); err != nil {
		return nil, fmt.Errorf("add map of clients: %w", err)
	}
	return m, nil
}

// clients is the map from a client's address to its backend.
func (f family) clients(s lb.Service) *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: affinityName(s.Front), IsMap: true, Dynamic: true, HasTimeout: true,
		Timeout: s.Affinity.Round(time.Second), KeyType: f.addrType(), DataType: f.backendType(), Size: 1 << 16,
	}
}

// forgetClients ends the affinity of clients to backends that are gone.
func (f family) forgetClients(c *nftables.Conn, s lb.Service) error {
	live := map[string]bool{}
	for _, b := range s.Backends {
		live[string(backend(b))] = true
	}
	m := f.clients(s)
	es, err := c.GetSetElements(m)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list clients of %s: %w", s.Name, err)
	}
	for _, e := range es {
		if live[string(e.Val)] {
			continue
		}
		if err := c.SetDeleteElements(m, []nftables.SetElement{{Key: e.Key}}); err != nil {
			return fmt.Errorf("forget client of %s: %w", s.Name, err)
		}
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forget client of %s: %w", s.Name, err)
		}
	}
	return nil
}

func (f family) backendType() nftables.SetDatatype {
	return nftables.MustConcatSetType(f.addrType(), nftables.TypeInetService)
}

func backend(b netip.AddrPort) []byte {
	return append(append(b.Addr().AsSlice(), binaryutil.BigEndian.PutUint16(b.Port())...), 0, 0)
}

// backendOf reads what backend wrote.
func (f family) backendOf(v []byte) (netip.AddrPort, bool) {
	if len(v) < int(f.size)+2 {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice(v[:f.size])
	return netip.AddrPortFrom(a, binaryutil.BigEndian.Uint16(v[f.size:f.size+2])), ok
}

// client loads the packet's source address.
func (f family) client() expr.Any {
	return &expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset(), Len: f.size}
}

// keep sends a known client where it was sent before.
func (f family) keep(m *nftables.Set) []expr.Any {
	return []expr.Any{
		f.client(),
		&expr.Lookup{SourceRegister: reg0, DestRegister: regAddr, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		remember(m),
		f.translate(),
	}
}

// remember writes the client's backend down, or restarts its time.
func remember(m *nftables.Set) expr.Any {
	return &expr.Dynset{
		SrcRegKey: reg0, SrcRegData: regAddr, SetName: m.Name, SetID: m.ID,
		Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: m.Timeout,
	}
}

// translate changes the destination to the backend in the registers.
func (f family) translate() expr.Any {
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(f.table.Family), RegAddrMin: regAddr, RegProtoMin: regAddr + f.words(),
	}
}

// hairpins brings the set of backends' addresses up to date with the counts
// before and the changes of this transaction.
func (tx *transaction) hairpins(before map[netip.Addr]int) error {
	add, del := map[bool][]nftables.SetElement{}, map[bool][]nftables.SetElement{}
	for a, n := range tx.uses {
		e := nftables.SetElement{Key: append(a.AsSlice(), a.AsSlice()...)}
		switch was, is := before[a] > 0, before[a]+n > 0; {
		case is && !was:
			add[a.Is4()] = append(add[a.Is4()], e)
		case was && !is:
			del[a.Is4()] = append(del[a.Is4()], e)
		}
	}
	for _, f := range families() {
		for _, part := range chunks(add[f.is4()]) {
			if err := tx.c.SetAddElements(f.hairpins(), part); err != nil {
				return fmt.Errorf("add backend addresses: %w", err)
			}
		}
		for _, part := range chunks(del[f.is4()]) {
			if err := tx.c.SetDeleteElements(f.hairpins(), part); err != nil {
				return fmt.Errorf("delete backend addresses: %w", err)
			}
		}
	}
	return nil
}

// chunks splits elements so that each part fits one netlink attribute (64 KiB).
func chunks(es []nftables.SetElement) [][]nftables.SetElement {
	var out [][]nftables.SetElement
	for len(es) > 0 {
		n := min(partMax, len(es))
		out = append(out, es[:n])
		es = es[n:]
	}
	return out
}

// dropOrphans removes the chains and maps of services that are not kept.
func (f family) dropOrphans(c *nftables.Conn, keep map[string]bool) error {
	chains, err := c.ListChainsOfTableFamily(f.table.Family)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	var drop []*nftables.Chain
	for _, ch := range chains {
		if ch.Table.Name == tableName && strings.HasPrefix(ch.Name, chainPrefix) && !keep[ch.Name] {
			drop = append(drop, ch)
			c.FlushChain(ch)
		}
	}
	for _, ch := range drop {
		c.DelChain(ch)
	}
	sets, err := c.GetSets(f.table)
	if err != nil {
		return fmt.Errorf("list nftables sets: %w", err)
	}
	for _, s := range sets {
		if strings.HasPrefix(s.Name, affinityPrefix) && !keep[s.Name] {
			c.DelSet(&nftables.Set{Table: f.table, Name: s.Name})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete left-over chains: %w", err)
	}
	return nil
}

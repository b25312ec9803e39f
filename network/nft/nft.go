// Package nft puts services into the kernel with nftables, over netlink and
// without the nft program.
//
// A service costs one element of a verdict map and one element for each
// backend. The verdict leads to a chain that all services with as many
// backends share; it draws a number, looks the backend up by front and number
// and translates: a packet's way does not grow with the number of services or
// backends, and a change costs what changed. It needs nothing newer than
// Linux 5.13 (Debian 12 has 6.1).
//
// Its invariant: each transaction leaves every front either as it was or as
// it shall be; no packet ever finds a service half written.
package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"

	"skein.dev/skein/network/flow"
	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/ns"
)

// servicesMax and backendsMax bound one transaction: the kernel takes it in
// one message, which must fit a socket's buffer. Few large ones are better
// than many: at each the kernel walks all chains of the table once more.
const servicesMax, backendsMax = 1000, 8000

// bufferSize holds such a transaction, and the answers to its parts.
const bufferSize = 16 << 20

// Config says where to work. Its zero value is the process's own namespace.
type Config struct {
	// NetNS is the path of the network namespace.
	NetNS string
}

// Table is Skein's pair of nftables tables, IPv4 and IPv6. Its methods are
// safe for concurrent use.
type Table struct {
	cfg Config

	mu    sync.Mutex // guards the fields below
	ready bool       // the fixed part is written
	// have is what the kernel leads each front to. Of a service found at the
	// start only front and backends are known.
	have map[lb.Front]known
	// uses counts the fronts behind which an address stands.
	uses map[netip.Addr]int
	// chains are those that draw, of IPv4 or not.
	chains map[bool]map[shape]bool
}

type known struct {
	lb.Service
	adopted bool
}

// New prepares a Table; it touches nothing.
func New(c Config) (*Table, error) {
	return &Table{cfg: c}, nil
}

// open returns a connection and the function that closes it.
func (t *Table) open() (*nftables.Conn, func(), error) {
	h, err := ns.Open(t.cfg.NetNS)
	if err != nil {
		return nil, nil, err
	}
	opts := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize))
	})}
	if h.IsOpen() {
		defer h.Close()
		opts = append(opts, nftables.WithNetNSFd(int(h)))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, func() { _ = c.CloseLasting() }, nil
}

// Fronts returns the fronts that are in the kernel, whoever wrote them.
func (t *Table) Fronts(context.Context) ([]lb.Front, error) {
	c, done, err := t.open()
	if err != nil {
		return nil, err
	}
	defer done()
	return fronts(c)
}

func fronts(c *nftables.Conn) ([]lb.Front, error) {
	var out []lb.Front
	for _, f := range families() {
		exists, err := f.exists(c)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		for _, node := range []bool{false, true} {
			set := f.services()
			if node {
				set = f.nodePorts()
			}
			es, err := c.GetSetElements(set)
			if err != nil {
				return nil, fmt.Errorf("list map %s: %w", set.Name, err)
			}
			for _, e := range es {
				if fr, ok := f.front(e.Key, node); ok {
					out = append(out, fr)
				}
			}
		}
	}
	return out, nil
}

func (f family) exists(c *nftables.Conn) (bool, error) {
	ts, err := c.ListTablesOfFamily(f.table.Family)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range ts {
		if t.Name == tableName {
			return true, nil
		}
	}
	return false, nil
}

// Forget makes the next Apply look at the kernel anew: somebody else may have
// changed the tables. It touches nothing itself.
func (t *Table) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = false
}

// Apply writes a change, in transactions of a bounded size. On error what
// was not written is as it was, and the same change may be applied again.
func (t *Table) Apply(ctx context.Context, ch lb.Change) error {
	for _, s := range ch.Set {
		if err := s.Validate(); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, done, err := t.open()
	if err != nil {
		return err
	}
	defer done()
	if err := t.prepareLocked(c); err != nil {
		return err
	}
	for len(ch.Set) > 0 || len(ch.Remove) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write services: %w", err)
		}
		var part lb.Change
		part, ch = cut(ch)
		if err := t.applyLocked(c, part); err != nil {
			t.ready = false // the kernel is not what we thought
			return err
		}
	}
	return nil
}

// cut takes a first part of bounded size off ch.
func cut(ch lb.Change) (part, rest lb.Change) {
	j := min(len(ch.Remove), servicesMax)
	i, backends := 0, 0
	for ; i < len(ch.Set) && i+j < servicesMax; i++ {
		// One service may be larger than the bound, but then it is alone.
		if backends += len(ch.Set[i].Backends); backends > backendsMax && i+j > 0 {
			break
		}
	}
	return lb.Change{Set: ch.Set[:i], Remove: ch.Remove[:j]}, lb.Change{Set: ch.Set[i:], Remove: ch.Remove[j:]}
}

// prepareLocked writes the fixed part and learns what is there.
func (t *Table) prepareLocked(c *nftables.Conn) error {
	if t.ready {
		return nil
	}
	for _, f := range families() {
		if err := f.base(c); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", tableName, err)
	}
	found, err := fronts(c)
	if err != nil {
		return err
	}
	t.have = make(map[lb.Front]known, len(found))
	t.uses = map[netip.Addr]int{}
	for _, fr := range found {
		t.have[fr] = known{Service: lb.Service{Front: fr}, adopted: true}
	}
	for _, f := range families() {
		if err := t.adoptLocked(c, f); err != nil {
			return err
		}
	}
	// All adopted addresses count as new, so that the set surely has them.
	tx := &transaction{c: c, uses: t.uses}
	if err := tx.hairpins(nil); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write backend addresses: %w", err)
	}
	t.chains = map[bool]map[shape]bool{true: {}, false: {}}
	for _, f := range families() {
		if err := f.dropUnused(c); err != nil {
			return err
		}
	}
	t.ready = true
	return nil
}

// adoptLocked reads which backends the kernel has for the fronts it has, and
// removes those of no front.
func (t *Table) adoptLocked(c *nftables.Conn, f family) error {
	es, err := c.GetSetElements(f.backends())
	if err != nil {
		return fmt.Errorf("list map %s: %w", backendsMap, err)
	}
	numbered := map[lb.Front]map[int]netip.AddrPort{}
	var orphans []nftables.SetElement
	for _, e := range es {
		at, ok := f.backendOf(e.Val)
		if len(e.Key) != f.frontLen()+4 || !ok {
			continue
		}
		fr, _ := f.front(e.Key[:f.frontLen()], false)
		if _, ok := t.have[fr]; !ok {
			orphans = append(orphans, nftables.SetElement{Key: e.Key})
			continue
		}
		if numbered[fr] == nil {
			numbered[fr] = map[int]netip.AddrPort{}
		}
		numbered[fr][int(binaryutil.NativeEndian.Uint32(e.Key[f.frontLen():]))] = at
	}
	for fr, all := range numbered {
		k := t.have[fr]
		for i := range len(all) {
			k.Backends = append(k.Backends, all[i])
			t.uses[all[i].Addr()]++
		}
		t.have[fr] = k
	}
	for _, part := range chunks(orphans) {
		if err := c.SetDeleteElements(f.backends(), part); err != nil {
			return fmt.Errorf("delete left-over backends: %w", err)
		}
	}
	return nil
}

// familyFor returns the front's family.
func familyFor(fr lb.Front) family {
	fs := families()
	if fr.Addr.Is4() {
		return fs[0]
	}
	return fs[1]
}

func (t *Table) applyLocked(c *nftables.Conn, ch lb.Change) error {
	tx := &transaction{c: c, chains: t.chains, uses: map[netip.Addr]int{}}
	for _, fr := range ch.Remove {
		if old, ok := t.have[fr]; ok {
			if err := tx.remove(familyFor(fr), old); err != nil {
				return err
			}
		}
	}
	for _, s := range ch.Set {
		old, ok := t.have[s.Front]
		if err := tx.set(familyFor(s.Front), s, old, ok); err != nil {
			return err
		}
	}
	if err := tx.hairpins(t.uses); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write services: %w", err)
	}
	for a, n := range tx.uses {
		if t.uses[a] += n; t.uses[a] <= 0 {
			delete(t.uses, a)
		}
	}
	return t.learnLocked(c, ch)
}

// learnLocked notes that ch is in the kernel, and ends the affinity of
// clients to backends that are none any more.
func (t *Table) learnLocked(c *nftables.Conn, ch lb.Change) error {
	live := map[bool]map[lb.Front]map[string]bool{true: {}, false: {}}
	look := func(fr lb.Front, backends []netip.AddrPort) {
		is4 := fr.Addr.Is4()
		live[is4][fr] = map[string]bool{}
		for _, b := range backends {
			live[is4][fr][string(backend(b))] = true
		}
	}
	for _, fr := range ch.Remove {
		if old := t.have[fr]; old.adopted || old.Affinity > 0 {
			look(fr, nil)
		}
		delete(t.have, fr)
	}
	for _, s := range ch.Set {
		if old := t.have[s.Front]; s.Affinity > 0 || old.Affinity > 0 || old.adopted {
			look(s.Front, s.Backends)
		}
		t.have[s.Front] = known{Service: s}
	}
	var errs []error
	for _, f := range families() {
		if fronts := live[f.is4()]; len(fronts) > 0 {
			errs = append(errs, f.forgetClients(c, fronts))
		}
	}
	return errors.Join(errs...)
}

// Reap makes the kernel forget the connectionless flows to the given services
// that lead to a backend which is none any more.
func (t *Table) Reap(_ context.Context, services []lb.Service) error {
	return flow.Reap(t.cfg.NetNS, services)
}

// Clean removes the tables.
func (t *Table) Clean(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, done, err := t.open()
	if err != nil {
		return err
	}
	defer done()
	for _, f := range families() {
		exists, err := f.exists(c)
		if err != nil {
			return err
		}
		if exists {
			c.DelTable(f.table)
		}
	}
	t.ready = false
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete nftables tables: %w", err)
	}
	return nil
}

// verdict is where the dispatching map sends a front's packets.
func verdict(s lb.Service) *expr.Verdict {
	switch {
	case len(s.Backends) > 0:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: shapeOf(s).name()}
	case s.Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return &expr.Verdict{Kind: expr.VerdictGoto, Chain: refuseChain}
}

package nft

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"skein.dev/skein/network/lb"
)

// transaction collects the messages of one change.
type transaction struct {
	c      *nftables.Conn
	chains map[bool]map[shape]bool // of IPv4 or not: those that are there
	uses   map[netip.Addr]int      // by how much the count of each address changes
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
	tx.count(old.Backends, -1)
	return tx.numbers(f, old.Front, old.Backends, nil)
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
	if sh := shapeOf(s); len(s.Backends) > 0 && !tx.chains[f.is4()][sh] {
		f.draws(tx.c, sh)
		tx.chains[f.is4()][sh] = true
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

package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// masqueradeTable holds the rules for traffic that leaves the cluster, one
// table a family.
const masqueradeTable = "skein-masquerade"

func (k *kernel) nft() (*nftables.Conn, error) {
	var opts []nftables.ConnOption
	if k.handle.IsOpen() {
		opts = append(opts, nftables.WithNetNSFd(int(k.handle)))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// masquerade gives what pods send out of the cluster the machine's address:
// from a pod range, to no pod range, and not multicast. The table's only
// comment-like trace is a chain name with the ranges' fingerprint, by which a
// table that is right already is left alone.
func (k *kernel) masquerade(local []netip.Prefix, settled bool) error {
	var errs []error
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		var own []netip.Prefix
		for _, p := range local {
			if p.Addr().Is4() == (f == nftables.TableFamilyIPv4) {
				own = append(own, p)
			}
		}
		errs = append(errs, k.masqueradeFamily(f, own, settled))
	}
	return errors.Join(errs...)
}

func (k *kernel) masqueradeFamily(f nftables.TableFamily, local []netip.Prefix, settled bool) error {
	c, err := k.nft()
	if err != nil {
		return err
	}
	chains, err := c.ListChainsOfTableFamily(f)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	mark, exists, right := fingerprint(local), false, false
	for _, ch := range chains {
		if ch.Table.Name == masqueradeTable {
			exists = true
			right = right || ch.Name == mark
		}
	}
	if right || (exists && !settled) || (!exists && len(local) == 0) {
		return nil
	}
	t := &nftables.Table{Family: f, Name: masqueradeTable}
	if exists {
		c.DelTable(t)
	}
	if len(local) > 0 {
		addMasquerade(c, t, local, mark)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", masqueradeTable, err)
	}
	return nil
}

// addMasquerade writes: postrouting jumps from pod ranges into the marked
// chain, which returns for destinations that must see the pod's address.
func addMasquerade(c *nftables.Conn, t *nftables.Table, local []netip.Prefix, mark string) {
	t = c.AddTable(t)
	accept := nftables.ChainPolicyAccept
	post := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT, Policy: &accept,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	leave := c.AddChain(&nftables.Chain{Name: mark, Table: t})
	for _, p := range local {
		c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: append(matchPrefix(p, true),
			&expr.Verdict{Kind: expr.VerdictJump, Chain: leave.Name})})
	}
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	if t.Family == nftables.TableFamilyIPv6 {
		multicast = netip.MustParsePrefix("ff00::/8")
	}
	for _, p := range append(slices.Clip(local), multicast) {
		c.AddRule(&nftables.Rule{Table: t, Chain: leave, Exprs: append(matchPrefix(p, false),
			&expr.Verdict{Kind: expr.VerdictReturn})})
	}
	// Random ports, because two clients' ports can collide after
	// translation, and the loser's first packet (often DNS) would be lost.
	c.AddRule(&nftables.Rule{Table: t, Chain: leave, Exprs: []expr.Any{&expr.Masq{FullyRandom: true}}})
}

// matchPrefix matches packets from (source) or to addresses within p.
func matchPrefix(p netip.Prefix, source bool) []expr.Any {
	size := uint32(p.Addr().BitLen() / 8)
	offset := uint32(12) // IPv4 source
	if p.Addr().Is6() {
		offset = 8
	}
	if !source {
		offset += size
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: ipNet(p).Mask, Xor: make([]byte, size)},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: p.Masked().Addr().AsSlice()},
	}
}

func fingerprint(local []netip.Prefix) string {
	h := uint64(14695981039346656037) // FNV-1a
	for _, p := range local {
		for _, b := range []byte(p.String() + ",") {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return fmt.Sprintf("leave-%x", binaryutil.BigEndian.PutUint64(h))
}

func (k *kernel) dropMasquerade() error {
	c, err := k.nft()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == masqueradeTable {
			c.DelTable(t)
		}
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table %s: %w", masqueradeTable, err)
	}
	return nil
}

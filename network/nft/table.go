package nft

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skein.dev/skein/network/lb"
)

// Names within the table.
const (
	tableName  = "skein-services"
	servicesID = 1 // set ids count per transaction; the table's own come first
	nodeID     = 2
	hairpinID  = 3
	backendsID = 4
	clientsID  = 5

	servicesMap = "services"  // address . protocol . port -> verdict
	nodeMap     = "nodeports" // protocol . port -> verdict
	backendsMap = "backends"  // front . number -> address . port
	clientsMap  = "clients"   // front . client's address -> address . port
	hairpinSet  = "hairpin"   // address . the same address, for each backend
	markChain   = "masquerade-later"
	refuseChain = "refuse"

	// masqueradeMark is the bit of the packet mark that asks for
	// masquerading in postrouting; the bit upstream uses for the same.
	masqueradeMark = 0x4000
	// chainPrefix begins the name of a chain that draws.
	chainPrefix = "draw-"
	// clientsMax bounds how many clients are remembered; the others are
	// drawn for each time.
	clientsMax = 1 << 18
	// nowhere is a port of the machine where nobody listens on UDP.
	nowhere = 1
)

// Registers are four bytes wide and numbered from 8 (NFT_REG32_00) to 23; an
// address takes one or four. Number 1 is the first four of them as one.
const (
	reg0    = 8 // keys begin here, most with the front
	partMax = 500
)

// family is one of the two tables.
type family struct {
	table *nftables.Table
	size  uint32 // bytes of an address
}

func families() []family {
	return []family{
		{&nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}, 4},
		{&nftables.Table{Family: nftables.TableFamilyIPv6, Name: tableName}, 16},
	}
}

func (f family) is4() bool { return f.size == 4 }

// words is how many registers an address takes.
func (f family) words() uint32 { return f.size / 4 }

// regNext is the register behind a front: of the number drawn, or of the
// client's address.
func (f family) regNext() uint32 { return reg0 + f.words() + 2 }

// regBackend is where a chosen backend's address is, the port right after.
func (f family) regBackend() uint32 { return f.regNext() + f.words() }

func (f family) addrType() nftables.SetDatatype {
	if f.is4() {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}

func (f family) sourceOffset() uint32 {
	if f.is4() {
		return 12
	}
	return 8
}

func (f family) services() *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: servicesMap, ID: servicesID, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(f.addrType(), nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.TypeVerdict,
	}
}

func (f family) nodePorts() *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: nodeMap, ID: nodeID, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
		DataType: nftables.TypeVerdict,
	}
}

// backends holds all services' backends. One map for all and few rules that
// use it, because the kernel goes through all maps to add another one, through
// all elements to let another rule use it, and through all rules that use it
// to add another element.
func (f family) backends() *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: backendsMap, ID: backendsID, IsMap: true, Concatenation: true,
		KeyType:  nftables.MustConcatSetType(f.addrType(), nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeInteger),
		DataType: f.backendType(),
	}
}

// clients remembers where clients were sent, of services with affinity. Its
// elements go by themselves, each after its service's own time.
func (f family) clients() *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: clientsMap, ID: clientsID, IsMap: true, Concatenation: true, Dynamic: true, HasTimeout: true,
		KeyType:  nftables.MustConcatSetType(f.addrType(), nftables.TypeInetProto, nftables.TypeInetService, f.addrType()),
		DataType: f.backendType(), Size: clientsMax,
	}
}

func (f family) hairpins() *nftables.Set {
	return &nftables.Set{
		Table: f.table, Name: hairpinSet, ID: hairpinID, Concatenation: true,
		KeyType: nftables.MustConcatSetType(f.addrType(), f.addrType()),
	}
}

// key is the front as a key of services or nodePorts: each field padded to
// four bytes.
func key(fr lb.Front) []byte {
	var k []byte
	if !fr.Addr.IsUnspecified() {
		k = fr.Addr.AsSlice()
	}
	k = append(k, byte(fr.Protocol), 0, 0, 0)
	return append(append(k, binaryutil.BigEndian.PutUint16(fr.Port)...), 0, 0)
}

// front reads what key wrote.
func (f family) front(k []byte, node bool) (lb.Front, bool) {
	fr := lb.Front{Addr: netip.IPv4Unspecified()}
	if !f.is4() {
		fr.Addr = netip.IPv6Unspecified()
	}
	if !node {
		if len(k) < int(f.size) {
			return fr, false
		}
		fr.Addr, _ = netip.AddrFromSlice(k[:f.size])
		k = k[f.size:]
	}
	if len(k) != 8 {
		return fr, false
	}
	fr.Protocol = lb.Protocol(k[0])
	fr.Port = binaryutil.BigEndian.Uint16(k[4:6])
	return fr, true
}

// full is the front as the first part of a key of backends or clients: with
// its address also where that is the unspecified one.
func full(fr lb.Front) []byte {
	if fr.Addr.IsUnspecified() {
		return append(fr.Addr.AsSlice(), key(fr)...)
	}
	return key(fr)
}

// frontLen is the length of what full returns.
func (f family) frontLen() int { return int(f.size) + 8 }

// backendKey is the key of a front's i-th backend.
func backendKey(fr lb.Front, i int) []byte {
	return append(full(fr), binaryutil.NativeEndian.PutUint32(uint32(i))...)
}

// base writes the table's fixed part. Writing it again changes nothing but
// the rules of its chains, which are written anew.
func (f family) base(c *nftables.Conn) error {
	t := c.AddTable(f.table)
	if err := c.AddSet(f.services(), nil); err != nil {
		return fmt.Errorf("add map %s: %w", servicesMap, err)
	}
	if err := c.AddSet(f.nodePorts(), nil); err != nil {
		return fmt.Errorf("add map %s: %w", nodeMap, err)
	}
	if err := c.AddSet(f.backends(), nil); err != nil {
		return fmt.Errorf("add map %s: %w", backendsMap, err)
	}
	if err := c.AddSet(f.clients(), nil); err != nil {
		return fmt.Errorf("add map %s: %w", clientsMap, err)
	}
	if err := c.AddSet(f.hairpins(), nil); err != nil {
		return fmt.Errorf("add set %s: %w", hairpinSet, err)
	}
	mark := c.AddChain(&nftables.Chain{Name: markChain, Table: t})
	refuse := c.AddChain(&nftables.Chain{Name: refuseChain, Table: t})
	accept := nftables.ChainPolicyAccept
	hook := func(name string, typ nftables.ChainType, at *nftables.ChainHook, pri nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: typ, Hooknum: at, Priority: &pri, Policy: &accept})
	}
	pre := hook("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	out := hook("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest)
	post := hook("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	for _, ch := range []*nftables.Chain{mark, refuse, pre, out, post} {
		c.FlushChain(ch)
	}
	for _, ch := range []*nftables.Chain{pre, out} {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: f.dispatch()})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: f.dispatchNode()})
	}
	c.AddRule(&nftables.Rule{Table: t, Chain: mark, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^uint32(masqueradeMark)), Xor: binaryutil.NativeEndian.PutUint32(masqueradeMark),
		},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}})
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: f.masquerade()})
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: f.masqueradeHairpin()})
	f.refuseRules(c, refuse)
	return nil
}

// dispatch finds the service of a packet by its destination.
func (f family) dispatch() []expr.Any {
	return append(f.load(false), &expr.Lookup{SourceRegister: reg0, DestRegister: 0, IsDestRegSet: true, SetName: servicesMap, SetID: servicesID})
}

// load puts the front that a packet is for into the registers; a node port's
// has no address.
func (f family) load(node bool) []expr.Any {
	var address expr.Any = &expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset() + f.size, Len: f.size}
	if node {
		address = &expr.Immediate{Register: reg0, Data: make([]byte, f.size)}
	}
	proto := uint32(reg0) + f.words()
	return []expr.Any{
		address,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: proto},
		&expr.Payload{DestRegister: proto + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// dispatchNode does so for packets to any address of the machine itself.
func (f family) dispatchNode() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Payload{DestRegister: reg0 + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg0, DestRegister: 0, IsDestRegSet: true, SetName: nodeMap, SetID: nodeID},
	}
}

// masquerade gives marked packets the machine's address and clears the mark,
// so that it does not follow them into a tunnel.
func (f family) masquerade() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(masqueradeMark)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 2, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Register: 2, Op: expr.CmpOpEq, Data: bit},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(masqueradeMark)), Xor: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		&expr.Masq{FullyRandom: true},
	}
}

// masqueradeHairpin does so where a backend has reached itself through a
// service: it would take the answer for its own packet's echo.
func (f family) masqueradeHairpin() []expr.Any {
	dnat := binaryutil.NativeEndian.PutUint32(1 << 5) // IPS_DST_NAT
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: dnat, Xor: make([]byte, 4)},
		&expr.Cmp{Register: 1, Op: expr.CmpOpNeq, Data: make([]byte, 4)},
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: f.sourceOffset(), Len: 2 * f.size},
		&expr.Lookup{SourceRegister: reg0, SetName: hairpinSet, SetID: hairpinID},
		&expr.Masq{FullyRandom: true},
	}
}

// refuseRules answer a packet for a service without backends: a reset for
// TCP, "port unreachable" else. The machine's own UDP is sent to a port of
// its own where nobody listens: what is rejected on its way out fails with
// "operation not permitted", and programs wait for "connection refused".
func (f family) refuseRules(c *nftables.Conn, ch *nftables.Chain) {
	code, loopback := uint8(3), netip.AddrFrom4([4]byte{127, 0, 0, 1}) // ICMP port unreachable
	if !f.is4() {
		code, loopback = 4, netip.IPv6Loopback() // ICMPv6 port unreachable
	}
	proto := func(p byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{p}},
		}
	}
	rule := func(exprs []expr.Any, more ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: append(exprs, more...)})
	}
	rule(proto(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	rule(proto(unix.IPPROTO_UDP),
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, // 0 is: from nowhere but here
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: make([]byte, 4)},
		&expr.Immediate{Register: reg0, Data: loopback.AsSlice()},
		&expr.Immediate{Register: reg0 + f.words(), Data: binaryutil.BigEndian.PutUint16(nowhere)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.table.Family), RegAddrMin: reg0, RegProtoMin: reg0 + f.words()})
	rule(nil, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code})
}

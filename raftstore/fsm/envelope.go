package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// What this build understands. A peer that meets more freezes: it keeps what
// it has and applies nothing further, instead of going a way of its own.
const (
	Format   = 1 // of the envelope's outermost bytes
	MaxLevel = 1 // of what the entries inside may mean
)

// Limits in bytes that are part of the machine, so that all peers refuse the
// same transactions.
const (
	MaxValue = 3 << 19 // one object: 1.5 MiB
	MaxTxn   = 4 << 20 // one transaction, all its keys and values
	MaxBatch = 1 << 20 // an entry takes no further item beyond this
)

// Errors of entries and items that the machine refuses.
var (
	ErrMalformed = errors.New("malformed log entry")
	ErrTooNew    = errors.New("log entry needs a newer version of this program")
)

// RequestID names one transaction for ever: Boot counts the starts of the
// peer's data directory, Seq the transactions since that start.
type RequestID struct {
	Peer      string
	Boot, Seq uint64
}

// Request is a transaction as it travels to the leader and into the log.
type Request struct {
	ID RequestID
	// Floor promises that the peer will not ask again for any Seq below it.
	Floor uint64
	Txn   store.Txn
}

// Command is a change that only the store leader proposes. Exactly one field
// is set.
type Command struct {
	Assign  *Assign
	Compact *Compact
	Recover *Recover
	Level   uint32 // raise the feature level to this
}

// Assign gives a role to a holder with the next epoch, if the present one
// still is Epoch.
type Assign struct {
	Role   role.Name
	Holder string
	Epoch  uint64
}

// Compact forgets all history before itself, if the revision still is Expect.
type Compact struct{ Expect store.Revision }

// Recover starts a new incarnation. With Jump the revision leaps by 2^30, so
// that no client mistakes the new history for the old; without, it founds a
// cluster and is refused where there already is one.
type Recover struct {
	Incarnation string
	Jump        bool
}

type kind byte

const (
	kindTxn     kind = 1
	kindAssign  kind = 2
	kindCompact kind = 3
	kindRecover kind = 4
	kindLevel   kind = 5
)

const (
	opDelete = 1 << iota
	opTTL
)

// Item is one encoded request or command, ready to share an entry with others.
type Item []byte

// EncodeRequest encodes r.
func EncodeRequest(r Request) Item {
	size := 64 + len(r.ID.Peer)
	for _, o := range r.Txn.Ops {
		size += len(o.Key) + len(o.Value) + 24
	}
	for _, g := range r.Txn.Guards {
		size += len(g.Key) + 16
	}
	b := make([]byte, 0, size)
	b = append(b, byte(kindTxn))
	b = appendString(b, r.ID.Peer)
	b = binary.AppendUvarint(b, r.ID.Boot)
	b = binary.AppendUvarint(b, r.ID.Seq)
	b = binary.AppendUvarint(b, r.Floor)
	if f := r.Txn.Fence; f == nil {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(appendString(append(b, 1), string(f.Role)), f.Epoch)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Txn.Guards)))
	for _, g := range r.Txn.Guards {
		b = binary.AppendUvarint(appendString(b, g.Key), uint64(g.Mod))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Txn.Ops)))
	for _, o := range r.Txn.Ops {
		b = appendOp(b, o)
	}
	return b
}

func appendOp(b []byte, o store.Op) []byte {
	switch {
	case o.Delete:
		return appendString(append(b, opDelete), o.Key)
	case o.TTL > 0:
		b = binary.AppendUvarint(appendString(append(b, opTTL), o.Key), uint64(o.TTL))
	default:
		b = appendString(append(b, 0), o.Key)
	}
	return appendString(b, string(o.Value))
}

// EncodeCommand encodes c.
func EncodeCommand(c Command) Item {
	switch {
	case c.Assign != nil:
		b := appendString([]byte{byte(kindAssign)}, string(c.Assign.Role))
		return binary.AppendUvarint(appendString(b, c.Assign.Holder), c.Assign.Epoch)
	case c.Compact != nil:
		return binary.AppendUvarint([]byte{byte(kindCompact)}, uint64(c.Compact.Expect))
	case c.Recover != nil:
		jump := byte(0)
		if c.Recover.Jump {
			jump = 1
		}
		return appendString([]byte{byte(kindRecover), jump}, c.Recover.Incarnation)
	default:
		return binary.AppendUvarint([]byte{byte(kindLevel)}, uint64(c.Level))
	}
}

// Encode makes one log entry of items. level is the feature level the items
// were made for, clock the mesh's time (see [State]).
func Encode(level uint32, clock int64, items ...Item) []byte {
	size := 32
	for _, it := range items {
		size += len(it) + binary.MaxVarintLen32
	}
	b := make([]byte, 0, size)
	b = append(b, Format)
	b = binary.AppendUvarint(b, uint64(level))
	b = binary.AppendUvarint(b, uint64(max(0, clock)))
	b = binary.AppendUvarint(b, uint64(len(items)))
	for _, it := range items {
		b = appendString(b, string(it))
	}
	return binary.BigEndian.AppendUint32(b, checksum(b))
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

type envelope struct {
	level uint32
	clock int64
	items []Item
}

// decode splits an entry. The items share data's bytes.
func decode(data []byte) (envelope, error) {
	if len(data) < 1 {
		return envelope{}, fmt.Errorf("%w: empty", ErrMalformed)
	}
	if data[0] > Format {
		return envelope{}, fmt.Errorf("%w: format %d, have %d", ErrTooNew, data[0], Format)
	}
	if data[0] != Format || len(data) < 5 {
		return envelope{}, fmt.Errorf("%w: no envelope", ErrMalformed)
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if checksum(body) != sum {
		return envelope{}, fmt.Errorf("%w: checksum", ErrMalformed)
	}
	d := reader{b: body[1:]}
	level, clock, count := d.uvarint(), d.uvarint(), d.count(1)
	if !d.bad && level > MaxLevel {
		return envelope{}, fmt.Errorf("%w: feature level %d, have %d", ErrTooNew, level, MaxLevel)
	}
	env := envelope{level: uint32(level), clock: int64(clock), items: make([]Item, 0, count)}
	for range count {
		env.items = append(env.items, Item(d.bytes()))
	}
	if d.bad || len(d.b) > 0 || env.clock < 0 {
		return envelope{}, fmt.Errorf("%w: envelope", ErrMalformed)
	}
	return env, nil
}

// RequestOf returns the id of an item that is a request.
func RequestOf(it Item) (RequestID, error) {
	d := reader{b: it}
	if k := kind(d.byte()); k != kindTxn {
		return RequestID{}, fmt.Errorf("%w: not a request", ErrMalformed)
	}
	id := d.id()
	if d.bad {
		return RequestID{}, fmt.Errorf("%w: request", ErrMalformed)
	}
	return id, nil
}

// decodeRequest reads the rest of a request after its kind. Keys and values
// are copies: an object must not keep a whole entry alive.
func decodeRequest(d *reader) (Request, error) {
	r := Request{ID: d.id(), Floor: d.uvarint()}
	if d.byte() == 1 {
		r.Txn.Fence = &role.Fence{Role: role.Name(d.bytes()), Epoch: d.uvarint()}
	}
	guards := d.count(2)
	r.Txn.Guards = make([]store.Guard, 0, guards)
	for range guards {
		r.Txn.Guards = append(r.Txn.Guards, store.Guard{Key: string(d.bytes()), Mod: store.Revision(d.uvarint())})
	}
	ops := d.count(2)
	r.Txn.Ops = make([]store.Op, 0, ops)
	for range ops {
		flags := d.byte()
		o := store.Op{Key: string(d.bytes()), Delete: flags&opDelete != 0}
		if flags&opTTL != 0 {
			o.TTL = int64(d.uvarint())
		}
		if !o.Delete {
			o.Value = append([]byte{}, d.bytes()...)
		}
		r.Txn.Ops = append(r.Txn.Ops, o)
	}
	if d.bad || len(d.b) > 0 {
		return r, fmt.Errorf("%w: request", ErrMalformed)
	}
	return r, Check(r.Txn)
}

// Check tells whether the machine would take t: [store.ErrTooLarge], or a
// transaction that names no key, or one key twice in its ops.
func Check(t store.Txn) error {
	total := 0
	var seen map[string]bool
	if len(t.Ops) > 1 {
		seen = make(map[string]bool, len(t.Ops))
	}
	for _, o := range t.Ops {
		total += len(o.Key) + len(o.Value)
		switch {
		case len(o.Value) > MaxValue:
			return fmt.Errorf("put %s: %d bytes: %w", o.Key, len(o.Value), store.ErrTooLarge)
		case o.Key == "" || o.TTL < 0:
			return fmt.Errorf("%w: op without key or with negative ttl", ErrMalformed)
		case seen[o.Key]:
			return fmt.Errorf("%w: %s twice in one transaction", ErrMalformed, o.Key)
		case seen != nil:
			seen[o.Key] = true
		}
	}
	if total > MaxTxn {
		return fmt.Errorf("transaction of %d bytes: %w", total, store.ErrTooLarge)
	}
	return nil
}

// decodeCommand reads the rest of a command after its kind.
func decodeCommand(k kind, d *reader) (Command, error) {
	var c Command
	switch k {
	case kindAssign:
		c.Assign = &Assign{Role: role.Name(d.bytes()), Holder: string(d.bytes()), Epoch: d.uvarint()}
	case kindCompact:
		c.Compact = &Compact{Expect: store.Revision(d.uvarint())}
	case kindRecover:
		c.Recover = &Recover{Jump: d.byte() == 1, Incarnation: string(d.bytes())}
	case kindLevel:
		c.Level = uint32(min(d.uvarint(), 1<<32-1))
	default:
		return c, fmt.Errorf("%w: item kind %d", ErrMalformed, k)
	}
	if d.bad || len(d.b) > 0 {
		return c, fmt.Errorf("%w: command", ErrMalformed)
	}
	return c, nil
}

package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/cespare/xxhash/v2"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

const (
	snapshotMagic  = "skeinsnp"
	snapshotFormat = 1
	maxFrame       = MaxTxn * 2 // no field of a snapshot is longer
)

func isTooNew(err error) bool { return errors.Is(err, ErrTooNew) }

// Snapshot is a machine's whole state, ready to be written while the machine
// goes on.
type Snapshot struct {
	state *State
	sum   uint64
	seen  sessions
}

// Snapshot captures the machine; it is the applying goroutine's to call. It
// fails on a frozen machine, whose state is older than its log.
func (m *Machine) Snapshot() (*Snapshot, error) {
	s := m.state.Load()
	if s.Frozen != nil {
		return nil, fmt.Errorf("snapshot of a frozen machine: %w", s.Frozen)
	}
	return &Snapshot{state: s, sum: m.sum, seen: m.seen.clone()}, nil
}

// Index is the log index up to which the snapshot stands.
func (s *Snapshot) Index() uint64 { return s.state.Index }

// Write writes the snapshot: magic, format, a header, the entries in key
// order, and the xxhash of all that.
func (s *Snapshot) Write(w io.Writer) error {
	sum := xxhash.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	head := append([]byte(snapshotMagic), snapshotFormat)
	head = appendString(head, string(s.header()))
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	var buf []byte
	var err error
	s.state.root.ascend("", func(e *store.Entry) bool {
		buf = appendString(buf[:0], e.Key)
		buf = binary.AppendUvarint(buf, uint64(e.Create))
		buf = binary.AppendUvarint(buf, uint64(e.Mod))
		buf = binary.AppendUvarint(buf, uint64(e.TTL))
		buf = appendString(buf, string(e.Value))
		_, err = out.Write(buf)
		return err == nil
	})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		_, err = w.Write(binary.BigEndian.AppendUint64(nil, sum.Sum64()))
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (s *Snapshot) header() []byte {
	st := s.state
	var b []byte
	for _, v := range []uint64{st.Index, uint64(st.rev), st.Hash, s.sum, uint64(st.Level), uint64(st.Clock), uint64(st.Compacted)} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendString(b, st.Incarnation)
	b = binary.AppendUvarint(b, uint64(len(st.roles)))
	for _, r := range st.roles {
		b = appendString(appendString(b, string(r.Role)), r.Holder)
		b = binary.AppendUvarint(binary.AppendUvarint(b, r.Epoch), uint64(r.Revision))
	}
	b = binary.AppendUvarint(b, s.seen.clock)
	b = binary.AppendUvarint(b, uint64(len(s.seen.peers)))
	for _, name := range slices.Sorted(maps.Keys(s.seen.peers)) {
		p := s.seen.peers[name]
		b = appendString(b, name)
		b = binary.AppendUvarint(b, p.boot)
		b = binary.AppendUvarint(b, p.floor)
		b = binary.AppendUvarint(b, p.used)
		b = binary.AppendUvarint(b, uint64(len(p.done)))
		for _, seq := range slices.Sorted(maps.Keys(p.done)) {
			b = binary.AppendUvarint(b, seq)
		}
	}
	return binary.AppendUvarint(b, uint64(st.root.len()))
}

// Restore replaces the machine's state by a snapshot, unless the machine is
// already ahead of it: then all it would do is lose what is known to be
// committed. On an error the machine is as before.
func (m *Machine) Restore(r io.Reader) error {
	in := &hashedReader{r: bufio.NewReaderSize(r, 1<<16), sum: xxhash.New()}
	magic := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(in, magic); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	if string(magic[:len(snapshotMagic)]) != snapshotMagic {
		return fmt.Errorf("%w: not a snapshot", ErrMalformed)
	}
	if f := magic[len(snapshotMagic)]; f != snapshotFormat {
		return fmt.Errorf("%w: snapshot format %d, have %d", ErrTooNew, f, snapshotFormat)
	}
	head, err := in.bytes()
	if err != nil {
		return fmt.Errorf("read snapshot header: %w", err)
	}
	st, seen, sum, count, err := readHeader(head)
	if err != nil {
		return err
	}
	entries, got, err := readEntries(in, count)
	if err != nil {
		return err
	}
	want := in.sum.Sum64()
	var tail [8]byte
	if _, err := io.ReadFull(in.r, tail[:]); err != nil {
		return fmt.Errorf("read snapshot checksum: %w", err)
	}
	if binary.BigEndian.Uint64(tail[:]) != want || got != sum {
		return fmt.Errorf("%w: snapshot checksum", ErrMalformed)
	}
	if st.Index <= m.state.Load().Index {
		return nil
	}
	st.root = build(entries)
	m.seen = seen
	m.install(st, sum)
	return nil
}

func readHeader(head []byte) (st *State, seen sessions, sum uint64, count int, err error) {
	d := reader{b: head}
	st = &State{Index: d.uvarint()}
	st.rev, st.Hash, sum = store.Revision(d.uvarint()), d.uvarint(), d.uvarint()
	level := d.uvarint()
	st.Level, st.Clock, st.Compacted = uint32(level), int64(d.uvarint()), store.Revision(d.uvarint())
	st.Incarnation = string(d.bytes())
	for range d.count(4) {
		st.roles = append(st.roles, Assigned{
			Assignment: role.Assignment{Role: role.Name(d.bytes()), Holder: string(d.bytes()), Epoch: d.uvarint()},
			Revision:   store.Revision(d.uvarint()),
		})
	}
	seen = newSessions()
	seen.clock = d.uvarint()
	for range d.count(5) {
		name := string(d.bytes())
		p := &session{boot: d.uvarint(), floor: d.uvarint(), used: d.uvarint(), done: map[uint64]struct{}{}}
		for range d.count(1) {
			p.done[d.uvarint()] = struct{}{}
		}
		seen.peers[name] = p
	}
	n := d.uvarint()
	switch {
	case d.bad || len(d.b) > 0 || n > 1<<31-1 || st.rev < 1:
		return nil, seen, 0, 0, fmt.Errorf("%w: snapshot header", ErrMalformed)
	case level > MaxLevel:
		return nil, seen, 0, 0, fmt.Errorf("%w: feature level %d, have %d", ErrTooNew, level, MaxLevel)
	}
	return st, seen, sum, int(n), nil
}

func readEntries(in *hashedReader, count int) (entries []*store.Entry, sum uint64, err error) {
	entries = make([]*store.Entry, 0, min(count, 1<<16))
	last := ""
	for range count {
		key, kerr := in.bytes()
		var n [3]uint64
		for i := range n {
			v, verr := binary.ReadUvarint(in)
			n[i], kerr = v, errors.Join(kerr, verr)
		}
		value, verr := in.bytes()
		if err := errors.Join(kerr, verr); err != nil {
			return nil, 0, fmt.Errorf("read snapshot entry: %w", err)
		}
		e := &store.Entry{
			Key: string(key), Value: value,
			Create: store.Revision(n[0]), Mod: store.Revision(n[1]), TTL: int64(n[2]),
		}
		if e.Key <= last {
			return nil, 0, fmt.Errorf("%w: snapshot keys out of order", ErrMalformed)
		}
		last = e.Key
		sum += entryHash(e)
		entries = append(entries, e)
	}
	return entries, sum, nil
}

// hashedReader sums what it reads.
type hashedReader struct {
	r   *bufio.Reader
	sum *xxhash.Digest
	one [1]byte
}

func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	_, _ = h.sum.Write(p[:n]) // never fails
	return n, err
}

func (h *hashedReader) ReadByte() (byte, error) {
	c, err := h.r.ReadByte()
	if err == nil {
		h.one[0] = c
		_, _ = h.sum.Write(h.one[:]) // never fails
	}
	return c, err
}

func (h *hashedReader) bytes() ([]byte, error) {
	n, err := binary.ReadUvarint(h)
	if err != nil {
		return nil, err
	}
	if n > maxFrame {
		return nil, fmt.Errorf("%w: field of %d bytes", ErrMalformed, n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(h, b)
	return b, err
}

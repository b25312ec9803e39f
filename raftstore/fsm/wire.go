package fsm

import "encoding/binary"

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes values off the front of b; after the first that is not there
// bad is set and all further ones are zero.
type reader struct {
	b   []byte
	bad bool
}

func (d *reader) fail() { d.b, d.bad = nil, true }

func (d *reader) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *reader) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// count reads how many values follow, each at least size bytes long: a length
// that the rest cannot hold must not make us allocate for it.
func (d *reader) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *reader) id() RequestID {
	return RequestID{Peer: string(d.bytes()), Boot: d.uvarint(), Seq: d.uvarint()}
}

package raftstore

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// The file of a tail: two slots for its header, then records.
const (
	slotSize     = 512
	recordsBegin = 4096 // the first half
	recordHeader = 8
	tailMagic    = "skeintl1"
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the library

// follows reports whether l may come after logs.
func follows(logs []*raft.Log, l *raft.Log) bool {
	return len(logs) == 0 || logs[len(logs)-1].Index+1 == l.Index
}

func header(gen uint64) []byte {
	b := binary.LittleEndian.AppendUint64([]byte(tailMagic), gen)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// generation finds the newest header and its slot.
func generation(image []byte) (gen uint64, at int64, ok bool) {
	for slot := range int64(2) {
		b := image[slot*slotSize:]
		n := binary.LittleEndian.Uint64(b[len(tailMagic):])
		if h := header(n); string(b[:len(h)]) == string(h) && (!ok || n > gen) {
			gen, at, ok = n, slot, true
		}
	}
	return gen, at, ok
}

// records are the entries of a generation, up to the first that is not whole.
func records(rest []byte, gen uint64) (logs []*raft.Log) {
	for len(rest) > recordHeader {
		n := int64(binary.LittleEndian.Uint32(rest))
		if n == 0 || n > int64(len(rest)-recordHeader) {
			break
		}
		body := rest[recordHeader : recordHeader+n]
		if binary.LittleEndian.Uint32(rest[4:]) != checksum(gen, body) {
			break
		}
		l := decodeLog(body)
		if l == nil || !follows(logs, l) {
			break
		}
		logs = append(logs, l)
		rest = rest[recordHeader+n:]
	}
	return logs
}

func checksum(gen uint64, body []byte) uint32 {
	var g [8]byte
	binary.LittleEndian.PutUint64(g[:], gen)
	return crc32.Update(crc32.Checksum(g[:], castagnoli()), castagnoli(), body)
}

func appendLog(b []byte, gen uint64, l *raft.Log) []byte {
	start := len(b)
	b = append(b, make([]byte, recordHeader)...)
	b = binary.AppendUvarint(b, l.Index)
	b = binary.AppendUvarint(b, l.Term)
	b = append(b, byte(l.Type))
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	b = append(append(b, l.Extensions...), l.Data...)
	body := b[start+recordHeader:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[start+4:], checksum(gen, body))
	return b
}

// decodeLog returns nil if b is no entry.
func decodeLog(b []byte) *raft.Log {
	l := &raft.Log{}
	take := func(n int) {
		if n <= 0 || n > len(b) {
			b = nil
			return
		}
		b = b[n:]
	}
	var n int
	l.Index, n = binary.Uvarint(b)
	take(n)
	l.Term, n = binary.Uvarint(b)
	take(n)
	if len(b) == 0 {
		return nil
	}
	l.Type = raft.LogType(b[0])
	take(1)
	at, n := binary.Varint(b)
	take(n)
	if at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	size, n := binary.Uvarint(b)
	if take(n); n <= 0 || size > uint64(len(b)) {
		return nil
	}
	if size > 0 {
		l.Extensions = append([]byte(nil), b[:size]...)
	}
	l.Data = append([]byte(nil), b[size:]...)
	return l
}

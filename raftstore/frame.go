package raftstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"skein.dev/skein/api/store"
)

// call is what a message on the peer link asks for.
type call byte

const (
	callPropose   call = 1 // items for the log; answered when they are applied on the leader
	callReadIndex call = 2 // answered with the index a linearizable read must wait for
	callPing      call = 3 // nonce and term; answered with nonce and the voter's term
	callReport    call = 4 // a peer's state and its roles' progress
	callResign    call = 5 // a holder gives a role back
	answer        call = 0x80
)

// frame is one message: length, kind, the asker's number for it, payload.
// An answer's payload begins with a code.
type frame struct {
	kind    call
	number  uint64
	payload []byte
}

const (
	frameHeader = 13
	maxPayload  = 16 << 20
)

func writeFrame(w *bufio.Writer, f frame) error {
	var h [frameHeader]byte
	binary.BigEndian.PutUint32(h[:], uint32(len(f.payload)))
	h[4] = byte(f.kind)
	binary.BigEndian.PutUint64(h[5:], f.number)
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	_, err := w.Write(f.payload)
	return err
}

func readFrame(r *bufio.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n > maxPayload {
		return frame{}, fmt.Errorf("frame of %d bytes", n)
	}
	f := frame{kind: call(h[4]), number: binary.BigEndian.Uint64(h[5:]), payload: make([]byte, n)}
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// Errors that peers tell each other.
var (
	errNotLeader   = errors.New("not the leader")
	errUnreachable = errors.New("peer is out of reach")
	errUndelivered = errors.New("not sent") // for sure
	errRefused     = errors.New("refused by peer")
)

// codes are what an error is on the wire, as an index; 0 is none.
func codes() []error {
	return []error{
		nil, errNotLeader, store.ErrOverloaded, store.ErrNoSpace, store.ErrNoQuorum,
		store.ErrUnknown, store.ErrClosed, errRefused,
	}
}

func encodeAnswer(payload []byte, err error) []byte {
	if err == nil {
		return append([]byte{0}, payload...)
	}
	for i, known := range codes() {
		if known != nil && errors.Is(err, known) {
			return append([]byte{byte(i)}, err.Error()...)
		}
	}
	return append([]byte{byte(len(codes()) - 1)}, err.Error()...)
}

func decodeAnswer(b []byte) ([]byte, error) {
	if len(b) == 0 || int(b[0]) >= len(codes()) {
		return nil, fmt.Errorf("%w: unknown answer", errRefused)
	}
	if b[0] == 0 {
		return b[1:], nil
	}
	return nil, codes()[b[0]]
}

package raftstore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// FuzzPeerCalls lets a member of the mesh send any bytes on the peer link to a
// leader, framed as it likes: it is refused, or what it proposes is in the log
// under its own name, and the store goes on.
func FuzzPeerCalls(f *testing.F) {
	s := fuzzedStore(f)
	frames := func(kind call, payload []byte) []byte {
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		if err := writeFrame(w, frame{kind: kind, number: 7, payload: payload}); err != nil {
			f.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	item := fsm.EncodeRequest(fsm.Request{
		ID:  fsm.RequestID{Peer: "server-2", Boot: 1, Seq: 3},
		Txn: store.Txn{Ops: []store.Op{{Key: "/b", Value: []byte("v")}}},
	})
	proposal := append(binary.AppendUvarint(nil, uint64(len(item))), item...)
	f.Add(frames(callPropose, proposal))
	f.Add(frames(callPropose, append(binary.AppendUvarint(nil, 1<<62), item...)))
	f.Add(frames(callReadIndex, nil))
	f.Add(frames(callPing, make([]byte, 16)))
	f.Add(frames(callReport, []byte(`{"revision":1,"hash":7,"roles":{"scheduler":{"epoch":1}}}`)))
	f.Add(frames(callResign, []byte(`{"role":"scheduler","epoch":1}`)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			got, err := readFrame(r)
			if err != nil {
				break
			}
			payload, err := s.answer(ctx, "server-2", got.kind, got.payload)
			if ctx.Err() != nil {
				t.Fatalf("no answer to a call of kind %d", got.kind)
			}
			if _, back := decodeAnswer(encodeAnswer(payload, err)); (back == nil) != (err == nil) {
				t.Fatalf("%v came back as %v", err, back)
			}
		}
		if _, err := s.Current(ctx); err != nil {
			t.Fatalf("the store does not go on: %v", err)
		}
	})
}

// FuzzAnswers reads any bytes as another peer's answer.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0, 1, 2})
	f.Add([]byte{3})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		payload, err := decodeAnswer(data)
		if err == nil && !bytes.Equal(encodeAnswer(payload, nil), data) {
			t.Fatalf("%q is read as %q", data, payload)
		}
	})
}

// fuzzedStore leads itself, and knows one more member, which is away.
func fuzzedStore(f *testing.F) *Store {
	f.Helper()
	logs := raft.NewInmemStore()
	s, err := Open(Config{
		ServerID: "server-1", Name: "peer-1", Bootstrap: true, Log: slog.New(slog.DiscardHandler),
		Storage: &Storage{Logs: logs, Stable: logs, Snapshots: raft.NewInmemSnapshotStore(), Close: func() error { return nil }},
		Timing:  Timing{Heartbeat: 20 * time.Millisecond, Election: 20 * time.Millisecond, Lease: 20 * time.Millisecond},
	})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Errorf("run store: %v", err)
		}
		if err := s.Close(); err != nil {
			f.Errorf("close store: %v", err)
		}
	})
	if _, err := s.Current(f.Context()); err != nil {
		f.Fatal(err)
	}
	s.SetMembers([]Member{{ServerID: "server-1", Name: "peer-1"}, {ServerID: "server-2", Name: "peer-2", Dead: true}})
	return s
}

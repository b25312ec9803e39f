package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore"
)

// A real mesh on loopback: plain TCP whose first bytes name the dialer, files
// with fsync. What TLS proves in the product is believed here.
type named struct {
	net.Conn
	far member.ServerID
}

func (c named) RemoteServerID() member.ServerID { return c.far }

type greeted struct{ net.Listener }

func (l greeted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	var id [8]byte
	if _, err := c.Read(id[:]); err != nil {
		return nil, err
	}
	return named{c, member.ServerID(id[:])}, nil
}

type loopback struct {
	ids   []member.ServerID
	ports map[string]string // kind and id → address
	store []*raftstore.Store
}

func (m *loopback) network(tb testing.TB, kind string, id member.ServerID) raftstore.Network {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	m.ports[kind+string(id)] = l.Addr().String()
	return raftstore.Network{
		Listener: greeted{l},
		Dial: func(ctx context.Context, to member.ServerID, _ string) (net.Conn, error) {
			addr, ok := m.ports[kind+string(to)]
			if !ok {
				return nil, errors.New("no such peer")
			}
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			if _, err := c.Write([]byte(id)); err != nil {
				return nil, err
			}
			return named{c, to}, nil
		},
	}
}

func newLoopback(tb testing.TB, n int) *loopback {
	tb.Helper()
	m := &loopback{ports: map[string]string{}}
	var all []raftstore.Member
	var configs []raftstore.Config
	for i := range n {
		id := member.ServerID(fmt.Sprintf("server-%d", i))
		m.ids = append(m.ids, id)
		all = append(all, raftstore.Member{ServerID: id, Name: member.Name(fmt.Sprintf("p%d", i)), Address: "loopback"})
		configs = append(configs, raftstore.Config{
			Dir: tb.TempDir(), ServerID: id, Name: all[i].Name, Address: "loopback", Bootstrap: i == 0,
			Raft: m.network(tb, "raft", id), Link: m.network(tb, "link", id),
		})
	}
	for _, c := range configs {
		s, err := raftstore.Open(c)
		if err != nil {
			tb.Fatal(err)
		}
		m.store = append(m.store, s)
		s.SetMembers(all)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		tb.Cleanup(func() {
			cancel()
			running.Wait()
			_ = s.Close()
		})
	}
	for {
		if st := m.store[0].Status(); len(st.Voters) == min(n, 3) && st.Leader != "" {
			return m
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// at is the leader's store, or a follower's.
func (m *loopback) at(leader bool) *raftstore.Store {
	id := m.store[0].Status().Leader
	i := slices.Index(m.ids, id)
	if !leader {
		i = (i + 1) % len(m.ids)
	}
	return m.store[i]
}

func BenchmarkPropose(b *testing.B) {
	for _, c := range []struct {
		name   string
		peers  int
		leader bool
	}{{"one", 1, true}, {"three/leader", 3, true}, {"three/follower", 3, false}} {
		m := newLoopback(b, c.peers)
		s := m.at(c.leader)
		for _, clients := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/c=%d", c.name, clients), func(b *testing.B) {
				value := make([]byte, 1024)
				var n atomic.Int64
				parallel(b, clients, func() error {
					_, err := s.Propose(b.Context(), store.Txn{
						Ops: []store.Op{{Key: fmt.Sprintf("/bench/%d", n.Add(1)), Value: value}},
					})
					return err
				})
			})
		}
	}
}

func BenchmarkCurrent(b *testing.B) {
	m := newLoopback(b, 3)
	for _, where := range []string{"leader", "follower"} {
		s := m.at(where == "leader")
		for _, clients := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("%s/c=%d", where, clients), func(b *testing.B) {
				parallel(b, clients, func() error {
					_, err := s.Current(b.Context())
					return err
				})
			})
		}
	}
}

// parallel runs do b.N times from so many clients and reports percentiles.
func parallel(b *testing.B, clients int, do func() error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, clients)
	b.ResetTimer()
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if err := do(); err != nil {
					b.Error(err)
					return
				}
				took[c] = append(took[c], time.Since(begin))
			}
		})
	}
	all.Wait()
	b.StopTimer()
	times := slices.Concat(took...)
	slices.Sort(times)
	if n := len(times); n > 0 {
		b.ReportMetric(float64(times[n/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(times[n*99/100].Microseconds()), "p99-µs")
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ops/s")
	}
}

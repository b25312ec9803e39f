package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore"
)

// mesh is some peers on one fabric.
type mesh struct {
	t      *testing.T
	rng    *rand.Rand
	fabric *fabric
	peers  []*peer
	down   sync.WaitGroup

	snapshotBytes int // of a peer that starts

	mu     sync.Mutex // guards the fields below
	hashes map[store.Revision]string
	epochs map[*raftstore.Store]map[role.Name]uint64
}

// peer is one data directory; store is nil while it is down.
type peer struct {
	name    member.Name
	id      member.ServerID
	platter *platter

	mu     sync.Mutex // guards the fields below
	store  *raftstore.Store
	drive  *drive
	net    *network
	cancel context.CancelFunc
	dead   bool // as the mesh's members are told
	untold bool // it is told of no member: its records come with the log
}

func newMesh(t *testing.T, seed uint64, n int) *mesh {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	m := &mesh{
		t: t, rng: rng, fabric: newFabric(rand.New(rand.NewPCG(seed, 1))),
		hashes: map[store.Revision]string{}, epochs: map[*raftstore.Store]map[role.Name]uint64{},
		snapshotBytes: 8 << 10,
	}
	for range n {
		m.add()
	}
	return m
}

// add makes one more peer, empty and not running.
func (m *mesh) add() *peer {
	i := len(m.peers)
	p := &peer{name: member.Name(fmt.Sprintf("p%d", i)), id: member.ServerID(fmt.Sprintf("s%d", i)), platter: newPlatter()}
	m.peers = append(m.peers, p)
	return p
}

// start starts peer i, with what its platter has kept.
func (m *mesh) start(i int) {
	m.t.Helper()
	p := m.peers[i]
	n := &network{fabric: m.fabric, id: p.id}
	d := &drive{platter: p.platter, rng: rand.New(rand.NewPCG(m.rng.Uint64(), 2)), sync: 500 * time.Microsecond}
	s, err := raftstore.Open(raftstore.Config{
		ServerID: p.id, Name: p.name, Address: string(p.id), Bootstrap: i == 0, Storage: d.storage(),
		Raft: n.endpoint(string(p.id) + ":raft"), Link: n.endpoint(string(p.id) + ":link"),
		SnapshotBytes: m.snapshotBytes,
	})
	if err != nil {
		m.t.Fatalf("open %s: %v", p.id, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil && !n.isDown() {
			m.t.Errorf("run %s: %v", p.id, err)
		}
	}()
	p.mu.Lock()
	p.store, p.drive, p.net, p.dead = s, d, n, false
	p.cancel = func() {
		cancel()
		m.down.Go(func() {
			<-done
			_ = s.Close() // a crashed drive refuses the last write
		})
	}
	p.mu.Unlock()
	m.tell()
}

// kill ends a peer at once: wires first, then the drive, in mid-write.
func (m *mesh) kill(i int) {
	p := m.peers[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.store == nil {
		return
	}
	p.net.down()
	p.drive.crash()
	p.cancel()
	p.store = nil
}

// stop ends a peer in order.
func (m *mesh) stop(i int) {
	p := m.peers[i]
	p.mu.Lock()
	s, cancel, n := p.store, p.cancel, p.net
	p.store = nil
	p.mu.Unlock()
	if s != nil {
		cancel()
		m.down.Wait()
		n.down()
	}
}

func (m *mesh) stopAll() {
	for i := range m.peers {
		m.kill(i)
	}
	m.down.Wait()
}

func (p *peer) running() *raftstore.Store {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store
}

// tell tells all stores the members, as the daemon would.
func (m *mesh) tell() {
	var all []raftstore.Member
	for _, p := range m.peers {
		p.mu.Lock()
		all = append(all, raftstore.Member{ServerID: p.id, Name: p.name, Address: string(p.id), Dead: p.dead})
		p.mu.Unlock()
	}
	for _, p := range m.peers {
		if s := p.running(); s != nil && !p.untold {
			s.SetMembers(all)
		}
	}
}

func (m *mesh) ids() []member.ServerID {
	var out []member.ServerID
	for _, p := range m.peers {
		out = append(out, p.id)
	}
	return out
}

// leader is the running peer that leads, or -1.
func (m *mesh) leader() int {
	for i, p := range m.peers {
		if s := p.running(); s != nil && s.Status().State == "Leader" {
			return i
		}
	}
	return -1
}

// check asserts what must hold at every moment.
func (m *mesh) check() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		s := p.running()
		if s == nil {
			continue
		}
		st := s.Status()
		want, ok := m.hashes[st.Revision]
		if !ok {
			m.hashes[st.Revision] = st.Hash
		} else if want != st.Hash {
			m.t.Fatalf("%s has hash %s at revision %d, another peer %s", p.id, st.Hash, st.Revision, want)
		}
		if len(st.Diverged) > 0 || st.Frozen != "" {
			m.t.Fatalf("%s: diverged %v, frozen %q", p.id, st.Diverged, st.Frozen)
		}
		for _, a := range s.Assignments() {
			if m.epochs[s] == nil {
				m.epochs[s] = map[role.Name]uint64{}
			}
			if a.Epoch < m.epochs[s][a.Role] {
				m.t.Fatalf("%s: %s went from epoch %d back to %d", p.id, a.Role, m.epochs[s][a.Role], a.Epoch)
			}
			m.epochs[s][a.Role] = a.Epoch
		}
	}
}

// settle waits until a condition holds, for at most a fake minute.
func (m *mesh) settle(what string, ok func() bool) {
	m.t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, p := range m.peers {
		if s := p.running(); s != nil {
			m.t.Logf("%s: %+v", p.id, s.Status())
		}
	}
	m.t.Fatalf("not within a minute: %s", what)
}

// agree waits until all running peers show one revision and hash.
func (m *mesh) agree() {
	m.t.Helper()
	m.settle("all peers agree", func() bool {
		first := ""
		for _, p := range m.peers {
			s := p.running()
			if s == nil {
				continue
			}
			st := s.Status()
			one := fmt.Sprint(st.Revision, st.Hash)
			if st.Leader == "" || (first != "" && one != first) {
				return false
			}
			first = one
		}
		return true
	})
	m.check()
}

// voters waits until the configuration has so many voters and servers.
func (m *mesh) voters(voters, servers int) {
	m.t.Helper()
	m.settle(fmt.Sprintf("%d voters of %d servers", voters, servers), func() bool {
		i := m.leader()
		if i < 0 {
			return false
		}
		st := m.peers[i].running().Status()
		return len(st.Voters) == voters && len(st.Voters)+len(st.Nonvoters) == servers
	})
}

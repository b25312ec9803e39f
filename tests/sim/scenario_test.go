package sim_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore"
)

// scenario starts n peers in a bubble, waits for their voters, and runs do.
func scenario(t *testing.T, n, voters int, do func(t *testing.T, m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 7, n)
		defer m.stopAll()
		for i := range m.peers {
			m.start(i)
		}
		m.voters(voters, n)
		do(t, m)
	})
}

func (m *mesh) put(t *testing.T, i int, key, value string) store.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	res, err := m.peers[i].running().Propose(ctx, store.Txn{Ops: []store.Op{{Key: key, Value: []byte(value)}}})
	if err != nil || !res.Held {
		t.Fatalf("put %s on %s: held %v, %v", key, m.peers[i].id, res.Held, err)
	}
	return res
}

func TestTwoPeersKeepOneVoter(t *testing.T) {
	scenario(t, 2, 1, func(_ *testing.T, m *mesh) {
		time.Sleep(10 * time.Second)
		m.voters(1, 2)
	})
}

func TestFivePeersHaveThreeVoters(t *testing.T) {
	scenario(t, 5, 3, func(_ *testing.T, m *mesh) {
		time.Sleep(10 * time.Second)
		m.voters(3, 5)
	})
}

// A follower shows a lone write within a round trip or two; raft alone would
// let it wait for 50 to 100 ms.
func TestLoneWriteIsPushedToFollowers(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		m.put(t, 0, "/warm", "x")
		time.Sleep(3 * time.Second)
		l := m.leader()
		for n := range 20 {
			time.Sleep(time.Second)
			rev := m.put(t, l, "/k", fmt.Sprint(n)).Revision
			begin := time.Now()
			for i, p := range m.peers {
				if err := p.running().Wait(t.Context(), rev); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took > 10*time.Millisecond {
					t.Errorf("write %d: peer %d shows it %v after the leader", n, i, took)
				}
			}
		}
	})
}

func TestDeadLeaderIsReplacedWithinThreeSeconds(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		for round := range 10 {
			time.Sleep(5 * time.Second)
			l := m.leader()
			other := (l + 1) % 3
			w, err := m.peers[other].running().Watch("/k", false, m.peers[other].running().Local().Revision())
			if err != nil {
				t.Fatal(err)
			}
			m.kill(l)
			died := time.Now()
			m.put(t, other, "/k", fmt.Sprint(round))
			if took := time.Since(died); took > 3*time.Second {
				t.Errorf("round %d: the next write took %v", round, took)
			}
			events, _, err := w.Next(t.Context(), true)
			if err != nil || len(events) != 1 {
				t.Errorf("watch over the change of leader: %v, %v", events, err)
			}
			m.start(l)
			m.agree()
		}
	})
}

func TestPlannedRestartHandsOver(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		time.Sleep(3 * time.Second)
		l := m.leader()
		begun := time.Now()
		m.stop(l)
		m.put(t, (l+1)%3, "/k", "x")
		if took := time.Since(begun); took > 500*time.Millisecond {
			t.Errorf("the write after a planned stop took %v", took)
		}
	})
}

func TestCutOffPeerRefusesButShowsWhatItHas(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		rev := m.put(t, 0, "/k", "old").Revision
		m.agree()
		l := m.leader()
		cut := m.peers[l]
		m.fabric.split([]member.ServerID{cut.id}, without(m.ids(), cut.id), false)
		other := m.peers[(l+1)%3].running()
		if err := other.Wait(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		m.put(t, (l+1)%3, "/k", "new")
		if _, err := cut.running().Current(t.Context()); !errors.Is(err, store.ErrNoQuorum) {
			t.Errorf("linearizable read: %v", err)
		}
		_, err := cut.running().Propose(t.Context(), store.Txn{Ops: []store.Op{{Key: "/k", Value: []byte("lost")}}})
		if !errors.Is(err, store.ErrNoQuorum) {
			t.Errorf("write: %v", err)
		}
		if e := cut.running().Local().Get("/k"); string(e.Value) != "old" {
			t.Errorf("local read: %s", e.Value)
		}
		m.fabric.heal()
		m.agree()
		if v, err := cut.running().Current(t.Context()); err != nil || string(v.Get("/k").Value) != "new" {
			t.Errorf("healed: %v", err)
		}
	})
}

// Raft's own VerifyLeader would count the two non-voters for a majority.
func TestLeaderCutFromTheVotersCannotRead(t *testing.T) {
	scenario(t, 5, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		m.put(t, 0, "/k", "old")
		m.agree()
		l := m.leader()
		leader := m.peers[l].running()
		var others []member.ServerID
		for _, id := range leader.Status().Voters {
			if id != m.peers[l].id {
				others = append(others, id)
			}
		}
		m.fabric.split([]member.ServerID{m.peers[l].id}, others, false)
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := leader.Current(ctx)
			cancel()
			if !errors.Is(err, store.ErrNoQuorum) {
				t.Fatalf("read of a leader that reaches no other voter: %v", err)
			}
		}
	})
}

// One peer of three, restarted alone, shows what it knew to be committed, and
// that it has not verified it.
func TestPeerRestartedAloneHasItsState(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		for n := range 50 {
			m.put(t, n%3, fmt.Sprintf("/k/%d", n), "v")
		}
		m.agree()
		for i := range m.peers {
			m.kill(i)
		}
		m.start(1)
		time.Sleep(20 * time.Second)
		s := m.peers[1].running()
		if got := s.Local().Count("/k/", ""); got < 49 { // the last commit index is written with the next entry
			t.Errorf("%d of 50 keys after a restart without quorum", got)
		}
		if s.Verified() {
			t.Error("verified without quorum")
		}
		m.start(0)
		m.agree()
		if got := s.Local().Count("/k/", ""); got != 50 {
			t.Errorf("%d of 50 keys with quorum", got)
		}
	})
}

func TestDeadVoterIsReplacedByASpare(t *testing.T) {
	scenario(t, 4, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		time.Sleep(3 * time.Second)
		l := m.leader()
		voters := m.peers[l].running().Status().Voters
		for i, p := range m.peers {
			if i != l && p.id == voters[2] || (voters[2] == m.peers[l].id && p.id == voters[1]) {
				m.kill(i)
				p.dead = true
				m.tell()
				m.settle("the dead peer votes no more", func() bool {
					st := m.peers[l].running().Status()
					return len(st.Voters) == 3 && len(st.Nonvoters) == 1 && st.Nonvoters[0] == p.id
				})
				return
			}
		}
		t.Fatal("no voter to kill")
	})
}

func TestLeavingPeerIsRemovedAndNoLongerHeard(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		l := m.leader()
		var all []raftstore.Member
		for i, p := range m.peers {
			all = append(all, raftstore.Member{ServerID: p.id, Name: p.name, Address: string(p.id), Leaving: i == l})
		}
		for _, p := range m.peers {
			p.running().SetMembers(all)
		}
		m.settle("the leader that leaves is gone", func() bool {
			now := m.leader()
			if now < 0 || now == l {
				return false
			}
			st := m.peers[now].running().Status()
			return len(st.Voters) == 1 && len(st.Nonvoters) == 1
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := m.peers[l].running().Propose(ctx, store.Txn{Ops: []store.Op{{Key: "/k", Value: []byte("x")}}})
		if err == nil {
			t.Error("a removed peer could write")
		}
		m.put(t, (l+1)%3, "/k", "y")
	})
}

// Roles are spread, move when their holder dies or hangs, and the old
// holder's fence is worth nothing then.
func TestRolesMoveFromTheDeadAndTheHung(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		var hung atomic.Value // the name of who hangs
		hung.Store("")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, p := range m.peers {
			go p.hold(ctx, func() bool { return hung.Load() == string(p.name) })
		}
		holders := func() map[role.Name]string {
			out := map[role.Name]string{}
			for _, a := range m.peers[m.leader()].running().Assignments() {
				out[a.Role] = a.Holder
			}
			return out
		}
		m.settle("roles are spread", func() bool {
			h := holders()
			return h[role.Scheduler] != "" && h[role.Controllers] != "" && h[role.Scheduler] != h[role.Controllers]
		})
		time.Sleep(30 * time.Second)
		before := holders()
		fence := role.Fence{Role: role.Scheduler, Epoch: m.peers[m.leader()].running().Assignments()[1].Epoch}
		hung.Store(before[role.Scheduler])
		m.settle("the hung holder loses its role", func() bool { return holders()[role.Scheduler] != before[role.Scheduler] })
		_, err := m.peers[0].running().Propose(t.Context(), store.Txn{
			Ops: []store.Op{{Key: "/bind", Value: []byte("x")}}, Fence: &fence,
		})
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("write of the old holder: %v", err)
		}
		hung.Store("")
		for i, p := range m.peers {
			if string(p.name) == holders()[role.Controllers] {
				m.kill(i)
				begun := time.Now()
				m.settle("the dead holder loses its role", func() bool {
					return m.leader() >= 0 && holders()[role.Controllers] != string(p.name)
				})
				if took := time.Since(begun); took > 7*time.Second {
					t.Errorf("the role of a dead holder moved after %v", took)
				}
				return
			}
		}
	})
}

// hold does as a daemon does whose parts hold the roles assigned to it.
func (p *peer) hold(ctx context.Context, hung func() bool) {
	for ctx.Err() == nil {
		if s := p.running(); s != nil && !hung() {
			for _, a := range s.Assignments() {
				if a.Holder == string(p.name) {
					s.ReportProgress(a.Role, a.Epoch)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func TestIdleMeshWritesNothing(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, p := range m.peers {
			go p.hold(ctx, func() bool { return false })
		}
		m.put(t, 0, "/k", "v")
		time.Sleep(6 * time.Minute) // the compaction entry comes after five
		var before []raftstore.Status
		for _, p := range m.peers {
			before = append(before, p.running().Status())
		}
		time.Sleep(10 * time.Minute)
		for i, p := range m.peers {
			after := p.running().Status()
			if after.Appends != before[i].Appends || after.Term != before[i].Term {
				t.Errorf("%s: appends %d → %d, term %d → %d", p.id, before[i].Appends, after.Appends, before[i].Term, after.Term)
			}
		}
	})
}

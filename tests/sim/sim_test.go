package sim_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
)

// seeds is how many histories a run tries: SKEIN_SIM_SEEDS, else 100, or 10
// in a short run.
func seeds(t *testing.T) int {
	t.Helper()
	if s := os.Getenv("SKEIN_SIM_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("SKEIN_SIM_SEEDS: %v", err)
		}
		return n
	}
	if testing.Short() || raceEnabled {
		return 10
	}
	return 100
}

func TestHistoriesAreLinearizable(t *testing.T) {
	first := 0
	if s := os.Getenv("SKEIN_SIM_SEED"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("SKEIN_SIM_SEED: %v", err)
		}
		first = n
	}
	for seed := first; seed < first+seeds(t); seed++ {
		t.Run("seed "+strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, uint64(seed)) })
		})
	}
}

// live lets clients use every peer of a mesh for a minute of misfortunes.
func live(t *testing.T, seed uint64) {
	t.Helper()
	m := newMesh(t, seed, 3+int(seed%3))
	defer m.stopAll()
	for i := range m.peers {
		m.start(i)
	}
	m.voters(3, len(m.peers))

	h := &history{revs: map[store.Revision]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for i, p := range m.peers {
		for c := range 2 {
			id := 2*i + c
			rng := rand.New(rand.NewPCG(seed, uint64(100+id)))
			clients.Go(func() { m.client(ctx, h, id, p, rng, 6) })
		}
	}
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); {
		m.misfortune()
		m.check()
	}
	m.fabric.heal()
	for i, p := range m.peers {
		if p.running() == nil {
			m.start(i)
		}
	}
	time.Sleep(5 * time.Second)
	cancel()
	clients.Wait()
	m.agree()
	last := len(m.peers) * 2
	for _, p := range m.peers {
		for k := range 6 {
			if _, ok := h.get(t.Context(), p.running(), last, "/r/"+strconv.Itoa(k)); !ok {
				t.Fatalf("seed %d: %s cannot be read after all is healed", seed, p.id)
			}
		}
	}
	if len(h.twice) > 0 {
		t.Errorf("seed %d: one revision for two writes: %v", seed, h.twice)
	}
	if h.linearizable() != porcupine.Ok {
		t.Errorf("seed %d: not linearizable: %d operations", seed, len(h.ops))
	}
	t.Logf("%d peers, %d operations, %d unknown, revision %d", len(m.peers), len(h.ops), h.unknown, m.peers[0].running().Local().Revision())
}

// misfortune does one thing to the mesh and lets it live with that for a while.
func (m *mesh) misfortune() {
	ids := m.ids()
	m.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	victim := m.rng.IntN(len(m.peers))
	if l := m.leader(); l >= 0 && m.rng.IntN(2) == 0 {
		victim = l
	}
	if m.rng.IntN(2) == 0 { // much is under way when it happens
		m.slow(30*time.Millisecond, 20*time.Millisecond)
		m.pause(time.Second, time.Second)
	}
	switch m.rng.IntN(8) {
	case 0, 1: // one is cut off
		m.fabric.split([]member.ServerID{m.peers[victim].id}, without(ids, m.peers[victim].id), false)
	case 2: // halves
		m.fabric.split(ids[:len(ids)/2], ids[len(ids)/2:], false)
	case 3: // one hears but is not heard, or the other way round
		m.fabric.split(ids[:1], ids[1:], true)
	case 4: // one dies and is told to be dead after a while
		m.kill(victim)
		m.pause(time.Second, 4*time.Second)
		if m.rng.IntN(2) == 0 {
			m.peers[victim].mu.Lock()
			m.peers[victim].dead = true
			m.peers[victim].mu.Unlock()
			m.tell()
			m.pause(time.Second, 4*time.Second)
		}
		m.start(victim)
	case 5: // all lose power at once
		for i := range m.peers {
			m.kill(i)
		}
		m.pause(0, time.Second)
		for i := range m.peers {
			m.start(i)
		}
	case 6: // a planned restart
		m.stop(victim)
		m.start(victim)
	case 7: // slow disk, slow wires
		if p := m.peers[victim]; p.running() != nil {
			p.drive.setSync(200 * time.Millisecond)
		}
		m.fabric.setLatency(60 * time.Millisecond)
	}
	m.pause(500*time.Millisecond, 4*time.Second)
	m.check()
	m.fabric.heal()
	m.slow(200*time.Microsecond, 500*time.Microsecond)
	m.pause(0, 3*time.Second)
}

// slow sets how long wires and drives take.
func (m *mesh) slow(wire, sync time.Duration) {
	m.fabric.setLatency(wire)
	for _, p := range m.peers {
		if p.running() != nil {
			p.drive.setSync(sync)
		}
	}
}

func (m *mesh) pause(least, more time.Duration) {
	time.Sleep(least + time.Duration(m.rng.Int64N(int64(more))))
}

func without(ids []member.ServerID, id member.ServerID) []member.ServerID {
	var out []member.ServerID
	for _, one := range ids {
		if one != id {
			out = append(out, one)
		}
	}
	return out
}

// The check must be able to fail: a drive that loses what it said was synced
// loses an acknowledged write of a mesh of one.
func TestLyingDriveIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 1, 1)
		defer m.stopAll()
		m.start(0)
		m.settle("a leader", func() bool { return m.leader() == 0 })
		m.peers[0].drive.lie()
		h := &history{revs: map[store.Revision]string{}}
		h.write(t.Context(), m.peers[0].running(), 0, input{key: "/r/0", kind: "put", to: "x"}, nil)
		h.get(t.Context(), m.peers[0].running(), 0, "/r/0")
		if h.linearizable() != porcupine.Ok {
			t.Fatal("not linearizable before the crash")
		}
		m.kill(0)
		m.start(0)
		m.settle("a leader", func() bool { return m.leader() == 0 })
		h.get(t.Context(), m.peers[0].running(), 0, "/r/0")
		if h.linearizable() == porcupine.Ok {
			t.Fatal("a lost write went unnoticed")
		}
	})
}

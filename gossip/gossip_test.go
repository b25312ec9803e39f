package gossip_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip"
)

func seedCount(t *testing.T) int64 {
	t.Helper()
	if testing.Short() {
		return 5
	}
	return seeds
}

// The goal of the mesh: 7 s from the last sign of life to Dead, for every
// survivor, at each of these sizes.
func TestDeadPeerIsConfirmedWithinSevenSeconds(t *testing.T) {
	for n := 3; n <= 5; n++ {
		t.Run(fmt.Sprintf("of %d", n), func(t *testing.T) {
			var worst, sum time.Duration
			for seed := range seedCount(t) {
				synctest.Test(t, func(t *testing.T) {
					m := newMesh(t, n, seed)
					m.awaitAllAlive(10 * time.Second)
					time.Sleep(time.Duration(seed) * 137 * time.Millisecond)
					victim := int(seed) % n
					m.f.set(m.hosts[victim], off)
					took := m.await(victim, member.Dead, 7*time.Second, others(n, victim)...)
					sum += took
					worst = max(worst, took)
					m.stopAll()
				})
			}
			t.Logf("mean %v, worst %v of %d", sum/time.Duration(seedCount(t)), worst, seedCount(t))
		})
	}
}

func TestPausedPeerIsMissedAndTakenBack(t *testing.T) {
	for seed := range seedCount(t)/5 + 1 {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 3, seed)
			m.awaitAllAlive(10 * time.Second)
			m.f.set(m.hosts[1], frozen)
			m.await(1, member.Dead, 7*time.Second, 0, 2)
			time.Sleep(time.Duration(seed) * time.Second)
			m.f.set(m.hosts[1], up)
			m.awaitAllAlive(15 * time.Second)
			m.stopAll()
		})
	}
}

func TestPartitionHealsByItself(t *testing.T) {
	for seed := range seedCount(t)/10 + 1 {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 5, seed)
			m.awaitAllAlive(10 * time.Second)
			m.f.split(m.hosts[:2], m.hosts[2:])
			for _, i := range []int{0, 1} {
				m.await(i, member.Dead, 12*time.Second, 2, 3, 4)
			}
			if got := m.state(1, 0); got != member.Alive {
				t.Errorf("within its side n2 is %s", got)
			}
			// Longer than memberlist remembers its dead, so that only the
			// records can bring the sides together again.
			time.Sleep(3 * time.Minute)
			m.f.split()
			m.awaitAllAlive(20 * time.Second)
			m.stopAll()
		})
	}
}

func TestKilledDaemonIsRestartingWhileItsGuardLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 3, 1)
		m.awaitAllAlive(10 * time.Second)
		m.f.set(m.hosts[2], daemonOff)
		m.stop[2]()
		m.await(2, member.Restarting, 7*time.Second, 0, 1)
		time.Sleep(10 * time.Minute)
		m.await(2, member.Restarting, 0, 0, 1)
		m.start(2)
		m.awaitAllAlive(10 * time.Second)
		m.stopAll()
	})
}

func TestPlannedLeaveIsSeenAtOnce(t *testing.T) {
	for seed := range seedCount(t)/5 + 1 {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 4, seed)
			m.awaitAllAlive(10 * time.Second)
			if err := m.pools[0].Announce(t.Context(), gossip.Leaving); err != nil {
				t.Error(err)
			}
			m.await(0, member.Left, 100*time.Millisecond, 1, 2, 3)
			m.stop[0]()
			m.f.set(m.hosts[0], off)
			time.Sleep(30 * time.Second)
			m.await(0, member.Left, 0, 1, 2, 3)
			m.start(0) // it may come back
			m.awaitAllAlive(10 * time.Second)
			m.stopAll()
		})
	}
}

func TestPlannedRestartIsNeverSuspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 3, 1)
		m.awaitAllAlive(10 * time.Second)
		seen := make(map[member.State]bool)
		ctx, cancel := context.WithCancel(t.Context())
		watched, name := m.pools[0], describe(1, m.hosts[1]).Name
		go func() {
			for ctx.Err() == nil {
				changed := watched.Changed()
				for _, p := range watched.Peers() {
					if p.Name == name {
						seen[p.State] = true
					}
				}
				select {
				case <-changed:
				case <-ctx.Done():
				}
			}
		}()
		if err := m.pools[1].Announce(t.Context(), gossip.Restarting); err != nil {
			t.Error(err)
		}
		m.f.set(m.hosts[1], daemonOff)
		m.stop[1]()
		time.Sleep(5 * time.Second)
		m.start(1)
		m.awaitAllAlive(10 * time.Second)
		cancel()
		synctest.Wait()
		if seen[member.Suspect] || seen[member.Dead] || !seen[member.Restarting] {
			t.Errorf("passed through %v", seen)
		}
		m.stopAll()
	})
}

func TestLossyNetworkKillsNobody(t *testing.T) {
	for seed := range seedCount(t)/20 + 1 {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, 5, seed)
			m.awaitAllAlive(10 * time.Second)
			m.f.mu.Lock()
			m.f.loss = 0.2
			m.f.mu.Unlock()
			for range 60 {
				time.Sleep(time.Second)
				for by := range m.pools {
					for of := range m.pools {
						if s := m.state(of, by); s == member.Dead || s == member.Restarting || s == member.Left {
							t.Fatalf("n%d sees n%d as %s", by+1, of+1, s)
						}
					}
				}
			}
			m.f.mu.Lock()
			m.f.loss = 0
			m.f.mu.Unlock()
			m.awaitAllAlive(10 * time.Second)
			m.stopAll()
		})
	}
}

func TestPeerWithAnotherKeyOrMeshIsNotAdmitted(t *testing.T) {
	for name, change := range map[string]func(*gossip.Config){
		"key":  func(c *gossip.Config) { c.Keys = [][]byte{[]byte("another-another-another-another-")} },
		"mesh": func(c *gossip.Config) { c.Mesh = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, 3, 1)
				m.awaitAllAlive(10 * time.Second)
				h := m.f.host(7)
				cfg := gossip.Config{
					Self: describe(7, h), Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, Mesh: "test",
					Packets: h, Streams: h, Dialer: h, Prober: h, Records: m.records(),
				}
				change(&cfg)
				p, err := gossip.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- p.Run(ctx) }()
				time.Sleep(30 * time.Second)
				for i, pool := range m.pools {
					if got := len(pool.Peers()); got != 3 {
						t.Errorf("n%d sees %d peers", i+1, got)
					}
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				m.stopAll()
			})
		})
	}
}

func TestKeysRotateWithoutLosingAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 3, 1)
		m.awaitAllAlive(10 * time.Second)
		older, newer := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")
		for _, keys := range [][][]byte{{older, newer}, {newer, older}, {newer}} {
			for _, p := range m.pools {
				if err := p.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
			}
			time.Sleep(20 * time.Second)
			m.awaitAllAlive(0)
		}
		m.stopAll()
	})
}

func TestQuietMeshTellsNobodyAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 3, 1)
		m.awaitAllAlive(10 * time.Second)
		time.Sleep(5 * time.Second)
		changed := m.pools[0].Changed()
		time.Sleep(10 * time.Minute)
		select {
		case <-changed:
			t.Error("something changed in a quiet mesh")
		default:
		}
		m.stopAll()
	})
}

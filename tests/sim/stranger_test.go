package sim_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"skein.dev/skein/api/member"
)

// leadBy has the peers hand the lead over until peer i has it.
func (m *mesh) leadBy(i int) {
	m.t.Helper()
	for range 20 {
		m.settle("a leader", func() bool { return m.leader() >= 0 })
		l := m.leader()
		if l == i {
			return
		}
		m.stop(l)
		m.settle("another leader", func() bool { return m.leader() >= 0 })
		m.start(l)
		m.agree()
	}
	m.t.Fatalf("peer %d never leads", i)
}

// The beginning of the log names only the peer that founded the mesh. A joiner
// that has read so far when its connections break must hear the leader again.
func TestJoinerHearsALeaderOfWhomItHasNotReadYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 7, 1)
		m.snapshotBytes = 1 << 20 // the joiner gets entries, no snapshot
		defer m.stopAll()
		m.start(0)
		m.voters(1, 1)
		for n := range 1500 { // more than one message carries
			m.put(t, 0, "/k", fmt.Sprint(n))
		}
		m.add()
		m.add()
		m.start(1)
		m.start(2)
		m.voters(3, 3)
		m.leadBy(1)
		m.fabric.setLatency(100 * time.Millisecond)
		joiner := m.add()
		joiner.untold = true
		m.start(3)
		for joiner.running().Status().Revision == 0 {
			time.Sleep(time.Millisecond)
		}
		joiner.net.drop()
		m.fabric.setLatency(200 * time.Microsecond)
		m.agree()
	})
}

// A peer that was cut off comes back to a mesh that somebody leads who was
// admitted in the meantime.
func TestAPeerThatWasCutOffHearsALeaderAdmittedMeanwhile(t *testing.T) {
	scenario(t, 3, 3, func(t *testing.T, m *mesh) {
		t.Helper()
		m.leadBy(0)
		cut := m.peers[2]
		cut.untold = true
		cut.running().SetMembers(nil)
		m.fabric.split([]member.ServerID{cut.id}, without(m.ids(), cut.id), false)
		cut.net.drop() // or what is on its way would come after all
		cut.dead = true
		m.add()
		m.fabric.split([]member.ServerID{cut.id}, without(m.ids(), cut.id), false)
		m.start(3)
		m.settle("the newcomer votes in place of the one cut off", func() bool {
			l := m.leader()
			return l >= 0 && l != 2 && len(m.peers[l].running().Status().Nonvoters) == 1 && m.peers[l].running().Status().Nonvoters[0] == cut.id
		})
		for range 20 {
			if m.leader() == 3 {
				break
			}
			l := m.leader()
			m.stop(l)
			m.settle("another leader", func() bool { return m.leader() >= 0 && m.leader() != 2 })
			m.start(l)
			time.Sleep(5 * time.Second)
		}
		if m.leader() != 3 {
			t.Fatal("the newcomer never leads")
		}
		m.put(t, 3, "/k", "while cut")
		m.fabric.heal()
		m.agree()
	})
}

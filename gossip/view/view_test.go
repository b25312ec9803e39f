package view_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skein.dev/skein/api/member"
	"skein.dev/skein/gossip/view"
)

var epoch = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func peer(name, boot string) view.Member {
	return view.Member{
		Name: member.Name(name), ServerID: member.ServerID("srv-" + name),
		Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, Port: 6443, Boot: boot,
	}
}

// script drives a machine and keeps its clock.
type script struct {
	t    *testing.T
	m    *view.Machine
	now  time.Time
	plan view.Plan // of the last step
	open map[member.Name]uint64
}

func begin(t *testing.T) *script {
	t.Helper()
	return &script{t: t, m: view.New(peer("n1", "b1"), view.Timing{}, epoch), now: epoch, open: make(map[member.Name]uint64)}
}

func (s *script) step(ev view.Event) *script {
	s.t.Helper()
	if p, ok := ev.(view.Probed); ok {
		p.Round = s.open[p.Name]
		ev = p
	}
	s.plan = s.m.Step(ev, s.now)
	for _, p := range s.plan.Probe {
		s.open[p.Name] = p.Round
	}
	return s
}

// wait lets time pass as the shell does: a tick whenever the machine asks for one.
func (s *script) wait(d time.Duration) (probed []member.Name) {
	s.t.Helper()
	end := s.now.Add(d)
	for {
		next := s.m.Next()
		if next.IsZero() || next.After(end) {
			s.now = end
			return probed
		}
		if next.After(s.now) {
			s.now = next
		}
		s.step(view.Ticked{})
		for _, p := range s.plan.Probe {
			probed = append(probed, p.Name)
		}
		if !s.m.Next().IsZero() && !s.m.Next().After(s.now) {
			s.t.Fatalf("machine asks for the same tick again at %v", s.now.Sub(epoch))
		}
	}
}

func (s *script) is(name string, want member.State) {
	s.t.Helper()
	for _, p := range s.m.Peers() {
		if p.Name == member.Name(name) {
			if p.State != want {
				s.t.Fatalf("%s is %s, want %s", name, p.State, want)
			}
			return
		}
	}
	if want != "" {
		s.t.Fatalf("%s is out of sight, want %s", name, want)
	}
}

func (s *script) probes(names ...string) {
	s.t.Helper()
	var got []string
	for _, m := range s.plan.Probe {
		got = append(got, string(m.Name))
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		s.t.Fatalf("probes %v, want %v", got, names)
	}
}

func nobody(name string) view.Probed { return view.Probed{Name: member.Name(name)} }

func guardOnly(name string) view.Probed { return view.Probed{Name: member.Name(name), Guard: true} }

func answers(name string) view.Probed {
	return view.Probed{Name: member.Name(name), Daemon: true, Guard: true}
}

func TestLostPeerIsDeadOnlyAfterTwoProbesReachedNobody(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.is("n2", member.Alive)
	s.step(view.Lost{Name: "n2"}).probes("n2")
	s.is("n2", member.Suspect)
	s.step(nobody("n2"))
	s.is("n2", member.Suspect)
	if got := s.wait(time.Second); len(got) != 1 {
		t.Fatalf("second probe: %v", got)
	}
	s.step(nobody("n2"))
	s.is("n2", member.Dead)
}

func TestAnsweringPeerThatGossipLostIsAliveAndAskedBackIn(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")}).step(view.Lost{Name: "n2"}).step(answers("n2"))
	s.is("n2", member.Alive)
	if len(s.plan.Rejoin) != 1 {
		t.Fatal("nobody asked it back in")
	}
	if got := s.wait(5 * time.Second); len(got) == 0 {
		t.Fatal("nobody looks after it while gossip has lost it")
	}
}

func TestPeerWithALivingGuardIsRestartingNeverDead(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")}).step(view.Lost{Name: "n2"})
	s.step(guardOnly("n2"))
	s.is("n2", member.Restarting)
	changes := 0
	for range 120 {
		for _, name := range s.wait(time.Second) {
			s.step(guardOnly(string(name)))
		}
		if s.m.Peers()[1].Overdue(s.now) {
			changes++
		}
	}
	s.is("n2", member.Restarting)
	if changes < 80 || changes > 95 {
		t.Errorf("was overdue for %d of 120 seconds, want about 90", changes)
	}
	s.wait(time.Second)
	s.step(nobody("n2")) // now the machine goes too
	s.is("n2", member.Suspect)
	s.wait(time.Second)
	s.step(nobody("n2"))
	s.is("n2", member.Dead)
}

func TestOverdueRestartIsReportedOnce(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Announced{Name: "n2", Boot: "b1", What: view.Restarting})
	s.now = s.now.Add(member.RestartGrace)
	if s.step(view.Ticked{}); !s.plan.Changed {
		t.Error("nobody was told")
	}
	if s.step(view.Ticked{}); s.plan.Changed {
		t.Error("told twice")
	}
}

func TestPlannedLeaveIsLeftAtOnceAndStays(t *testing.T) {
	s := begin(t).step(view.Recorded{Members: []view.Member{peer("n1", ""), peer("n2", "")}})
	s.step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Announced{Name: "n2", Boot: "b1", What: view.Leaving})
	s.is("n2", member.Left)
	s.step(view.Joined{Member: peer("n2", "b1")}) // gossip lags
	s.step(view.Lost{Name: "n2"})
	s.is("n2", member.Left)
	if got := s.wait(time.Hour); len(got) != 0 {
		t.Errorf("a peer that left was probed: %v", got)
	}
	s.is("n2", member.Left)
	s.step(view.Recorded{Members: []view.Member{peer("n1", "")}})
	s.wait(time.Hour)
	s.is("n2", "")
}

func TestNewStartOfAPeerThatSaidGoodbyeIsAlive(t *testing.T) {
	for _, what := range []view.Announcement{view.Leaving, view.Restarting} {
		s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
		s.step(view.Announced{Name: "n2", Boot: "b1", What: what})
		s.step(view.Joined{Member: peer("n2", "b2")})
		s.is("n2", member.Alive)
		s.step(view.Announced{Name: "n2", Boot: "b1", What: view.Leaving}) // a late repetition
		s.is("n2", member.Alive)
	}
}

func TestGoodbyeThatOvertakesGossipStillCounts(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Announced{Name: "n2", Boot: "b2", What: view.Leaving}) // of a start not heard of yet
	s.is("n2", member.Alive)
	s.step(view.Joined{Member: peer("n2", "b2")})
	s.is("n2", member.Left)
}

func TestAnnouncedRestartThatNeverReturnsIsConfirmedDead(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Announced{Name: "n2", Boot: "b1", What: view.Restarting})
	s.is("n2", member.Restarting)
	for range 5 {
		for _, name := range s.wait(time.Second) {
			s.step(nobody(string(name)))
		}
	}
	s.is("n2", member.Dead)
}

func TestDoubtAloneNeverKills(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Doubted{Name: "n2"}).probes("n2")
	s.step(nobody("n2"))
	s.is("n2", member.Suspect)
	for range 10 {
		for _, name := range s.wait(time.Second) {
			s.step(nobody(string(name)))
		}
	}
	s.is("n2", member.Suspect) // others still hear it, so gossip holds it for alive
	s.step(view.Lost{Name: "n2"})
	s.wait(time.Second)
	s.step(nobody("n2"))
	s.is("n2", member.Dead)
}

func TestRecordedPeerThatIsNotSeenIsSoughtUntilItAnswers(t *testing.T) {
	s := begin(t).step(view.Recorded{Members: []view.Member{peer("n1", ""), peer("n2", "")}})
	s.is("n2", member.Suspect)
	s.probes("n2")
	s.step(nobody("n2"))
	probes := 0
	for range 60 {
		for _, name := range s.wait(time.Second) {
			probes++
			s.step(nobody(string(name)))
		}
	}
	s.is("n2", member.Dead)
	if probes < 12 || probes > 20 {
		t.Errorf("a dead peer was probed %d times a minute, want one in 5 s", probes)
	}
	for range 6 {
		for _, name := range s.wait(time.Second) {
			s.step(answers(string(name)))
			if len(s.plan.Rejoin) != 1 {
				t.Error("it answers and is not asked in")
			}
		}
	}
	s.is("n2", member.Alive)
}

func TestRemovedPeerGoesOutOfSightWhenItIsGone(t *testing.T) {
	both := view.Recorded{Members: []view.Member{peer("n1", ""), peer("n2", "")}}
	s := begin(t).step(both).step(nobody("n2"))
	s.wait(time.Second)
	s.step(nobody("n2"))
	s.is("n2", member.Dead)
	s.step(view.Recorded{Members: []view.Member{peer("n1", "")}})
	s.is("n2", "")
}

func TestNameWithANewDataDirectoryStartsAfresh(t *testing.T) {
	s := begin(t).step(view.Joined{Member: peer("n2", "b1")})
	s.step(view.Announced{Name: "n2", Boot: "b1", What: view.Leaving})
	fresh := peer("n2", "")
	fresh.ServerID = "srv-n2-again"
	s.step(view.Recorded{Members: []view.Member{fresh}})
	s.is("n2", member.Suspect)
}

func TestQuietMeshNeedsNoTimer(t *testing.T) {
	s := begin(t).step(view.Recorded{Members: []view.Member{peer("n1", ""), peer("n2", "")}})
	s.step(answers("n2")).step(view.Joined{Member: peer("n2", "b1")})
	if next := s.m.Next(); !next.IsZero() {
		t.Errorf("wants a tick at %v", next.Sub(epoch))
	}
}

func TestAnswerOfAnEarlierProbeCountsForNothing(t *testing.T) {
	both := view.Recorded{Members: []view.Member{peer("n1", ""), peer("n2", "")}}
	s := begin(t).step(both) // probe 1 is under way
	s.step(view.Recorded{Members: []view.Member{peer("n1", "")}}).step(both)
	s.probes("n2") // probe 2
	s.plan = s.m.Step(view.Probed{Name: "n2", Round: 1, Daemon: true}, s.now)
	s.is("n2", member.Suspect)
	s.step(answers("n2"))
	s.is("n2", member.Alive)
}

// Whatever happens in whatever order: nobody is dead but by two failed probes
// since the last answer, and a peer never doubts itself.
func TestNobodyIsDeadWithoutTheProbesForIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := view.New(peer("n1", "b1"), view.Timing{}, epoch)
		now := epoch
		misses, open := map[string]int{}, map[string]uint64{}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			name := rapid.SampledFrom([]string{"n2", "n3"}).Draw(rt, "peer")
			n := member.Name(name)
			boot := rapid.SampledFrom([]string{"b1", "b2"}).Draw(rt, "boot")
			var ev view.Event
			switch rapid.IntRange(0, 7).Draw(rt, "event") {
			case 0:
				ev = view.Joined{Member: peer(name, boot)}
			case 1:
				ev = view.Lost{Name: n}
			case 2:
				ev = view.Announced{Name: n, Boot: boot, What: rapid.SampledFrom([]view.Announcement{view.Leaving, view.Restarting}).Draw(rt, "what")}
			case 3, 4:
				if open[name] == 0 {
					continue
				}
				p := view.Probed{Name: n, Round: open[name], Daemon: rapid.Bool().Draw(rt, "daemon"), Guard: rapid.Bool().Draw(rt, "guard")}
				open[name] = 0
				if misses[name]++; p.Daemon || p.Guard {
					misses[name] = 0
				}
				ev = p
			case 5:
				ev = view.Doubted{Name: n}
			case 6:
				ev = view.Recorded{Members: []view.Member{peer("n1", ""), peer(name, "")}}
			default:
				now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(rt, "ms")) * time.Millisecond)
				ev = view.Ticked{}
			}
			for _, p := range m.Step(ev, now).Probe {
				open[string(p.Name)] = p.Round
			}
			for _, p := range m.Peers() {
				if p.State == member.Dead && misses[string(p.Name)] < 2 {
					rt.Fatalf("%s is dead after %d failed probes", p.Name, misses[string(p.Name)])
				}
				if p.Name == "n1" && p.State != member.Alive {
					rt.Fatalf("a peer holds itself for %s", p.State)
				}
			}
		}
	})
}

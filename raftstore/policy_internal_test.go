package raftstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
)

// electorateOf reads a configuration: "a* b c-" is voter a who leads, voter
// b, non-voter c. Marks after the name: * leads, - non-voter, ! dead,
// < leaving, ~ not caught up, + a member that is not configured yet,
// ? configured but no member, /z in zone z.
func electorateOf(s string, most int) electorate {
	e := electorate{caughtUp: map[member.ServerID]bool{}, most: most}
	for f := range strings.FieldsSeq(s) {
		f, zone, _ := strings.Cut(f, "/")
		id := member.ServerID(f[:1])
		has := func(mark string) bool { return strings.Contains(f[1:], mark) }
		if !has("?") {
			e.members = append(e.members, Member{ServerID: id, Address: "at-" + string(id), Zone: zone, Dead: has("!"), Leaving: has("<")})
		}
		if !has("+") {
			srv := raft.Server{ID: raft.ServerID(id), Address: raftAddress(id, "at-"+string(id))}
			if has("-") {
				srv.Suffrage = raft.Nonvoter
			}
			e.servers = append(e.servers, srv)
		}
		if has("*") {
			e.leader = id
		}
		e.caughtUp[id] = !has("~") && !has("!")
	}
	return e
}

func TestVoterPolicy(t *testing.T) {
	for _, c := range []struct {
		rule, state, want string
		most              int
	}{
		{rule: "alone: nothing", state: "a*", want: ""},
		{rule: "a new peer begins as non-voter", state: "a* b+", want: "add as non-voter b"},
		{rule: "a dead peer is not added", state: "a* b+!", want: ""},
		{rule: "two peers keep one voter", state: "a* b-", want: ""},
		{rule: "a third makes two voters of it", state: "a* b- c-", want: "promote to voter b"},
		{rule: "and then three", state: "a* b c-", want: "promote to voter c"},
		{rule: "never stop at two", state: "a* b- c-~", want: ""},
		{rule: "on the way to three, who lags is waited for", state: "a* b c-~", want: ""},
		{rule: "a fourth is a spare", state: "a* b c d-", want: ""},
		{rule: "five voters if wanted", state: "a* b c d- e-", most: 5, want: "promote to voter d"},
		{rule: "four are no better than three", state: "a* b c d-", most: 5, want: ""},
		{rule: "a dead voter keeps its place without a spare", state: "a* b c!", want: ""},
		{rule: "a dead voter is replaced", state: "a* b c! d-", want: "promote to voter d"},
		{rule: "and then votes no more", state: "a* b c! d", want: "demote to non-voter c"},
		{rule: "not by a spare that lags", state: "a* b c! d-~", want: ""},
		{rule: "other zones first", state: "a*/x b-/x c-/y d-/z", want: "promote to voter c"},
		{rule: "the doubled zone gives way", state: "a*/x b/x c/y d/z", want: "demote to non-voter b"},
		{rule: "who leaves is replaced first", state: "a* b c< d-", want: "promote to voter d"},
		{rule: "then removed", state: "a* b c< d", want: "remove c"},
		{rule: "removed without a spare too", state: "a* b c<", want: "remove c"},
		{rule: "of two that remain one votes", state: "a* b", want: "demote to non-voter b"},
		{rule: "a leaving non-voter is removed", state: "a* b-<", want: "remove b"},
		{rule: "a dead peer that was given up is removed", state: "a* b c<!", want: "remove c"},
		{rule: "a leader that leaves hands over", state: "a*< b c", want: "transfer leadership b"},
		{rule: "not to a voter that lags", state: "a*< b~ c", want: "transfer leadership c"},
		{rule: "the only voter promotes its heir", state: "a*< b-", want: "promote to voter b"},
		{rule: "and hands over then", state: "a*< b", want: "transfer leadership b"},
		{rule: "the last peer stays", state: "a*<", want: ""},
		{rule: "the dead gives way before the leaving", state: "a* b! c<", want: "demote to non-voter b"},
		{rule: "who is merely unknown stays", state: "a* b c?", want: ""},
		{rule: "without quorum nothing is tried", state: "a* b! c! d- e-", most: 5, want: ""},
		{rule: "the unknown is not replaced", state: "a* b c? d-", want: ""},
		{rule: "no removal that would lose the majority", state: "a* b! c! d< e", most: 5, want: "demote to non-voter c"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			most := c.most
			if most == 0 {
				most = 3
			}
			got := electorateOf(c.state, most).next()
			if s := strings.TrimSpace(string(got.verb) + " " + string(got.id)); s != c.want {
				t.Errorf("%s: got %q, want %q", c.state, s, c.want)
			}
		})
	}
}

func TestVoterPolicyNotesNewAddress(t *testing.T) {
	e := electorateOf("a* b c", 3)
	e.members[1].Address = "elsewhere"
	if got := e.next(); got != (change{readdress, "b"}) {
		t.Errorf("got %+v", got)
	}
}

// Whatever comes, the policy ends: applied again and again to its own result
// it reaches a state that it leaves alone, with an odd number of voters
// wherever enough peers are up.
func TestVoterPolicySettles(t *testing.T) {
	marks := []string{"-", "", "!", "<", "-!", "-~", "+", "-<"}
	for _, n := range []int{1, 2, 3, 4} {
		total := 1
		for range n {
			total *= len(marks)
		}
		for code := range total {
			state, rest := "l*", code
			for i := range n {
				state += " " + string(rune('a'+i)) + marks[rest%len(marks)]
				rest /= len(marks)
			}
			settle(t, state)
		}
	}
}

func settle(t *testing.T, state string) {
	t.Helper()
	e := electorateOf(state, 3)
	var steps []string
	for range 30 {
		c := e.next()
		steps = append(steps, string(c.verb)+" "+string(c.id))
		i := slices.IndexFunc(e.servers, func(s raft.Server) bool { return s.ID == raft.ServerID(c.id) })
		switch c.verb {
		case "":
			return
		case addNonvoter:
			e.servers = append(e.servers, raft.Server{ID: raft.ServerID(c.id), Suffrage: raft.Nonvoter, Address: raftAddress(c.id, "at-"+string(c.id))})
			e.caughtUp[c.id] = true
		case promote:
			e.servers[i].Suffrage = raft.Voter
		case demote:
			e.servers[i].Suffrage = raft.Nonvoter
		case remove:
			e.servers = slices.Delete(e.servers, i, i+1)
		case transfer, readdress:
			t.Fatalf("%s: unexpected %v", state, steps)
		}
		if !e.majority(e.voters()) && e.majority(electorateOf(state, 3).voters()) {
			t.Fatalf("%s: lost its majority by %v", state, steps)
		}
	}
	t.Fatalf("%s: does not settle: %v", state, steps)
}

func TestRolePolicy(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	cfg, err := Config{Name: "x", Dir: "x"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	up := func(names ...member.Name) (out []rolePeer) {
		for _, n := range names {
			out = append(out, rolePeer{name: n, reporting: ago(60), heard: now})
		}
		return out
	}
	held := func(holder string, since, progress int) tenure {
		return tenure{assigned: role.Assignment{Holder: holder, Epoch: 3}, since: ago(since), progress: ago(progress)}
	}
	const never = 1 << 20
	for _, c := range []struct {
		rule  string
		peers []rolePeer
		begun int
		sched tenure
		ctl   tenure
		want  string
	}{
		{rule: "a role without holder is assigned", peers: up("a"), want: string(role.All()[0]) + "=a"},
		{rule: "not to the leader if another is up", peers: up("a", "b"), ctl: held("", 0, never), sched: held("b", 60, 0), want: "controllers=a"},
		{rule: "who works keeps it", peers: up("a", "b"), begun: 60, sched: held("a", 60, 1), ctl: held("b", 60, 1)},
		{rule: "who hangs loses it", peers: up("a", "b"), begun: 60, sched: held("b", 60, 4), ctl: held("a", 60, 1), want: "scheduler=a"},
		{rule: "who is new may take its time", peers: up("a", "b"), begun: 60, sched: tenure{assigned: role.Assignment{Holder: "b"}, since: ago(8)}, ctl: held("a", 60, 1)},
		{rule: "but not for ever", peers: up("a", "b"), begun: 60, sched: tenure{assigned: role.Assignment{Holder: "b"}, since: ago(11)}, ctl: held("a", 60, 1), want: "scheduler=a"},
		{rule: "a new leader gives all time to report", peers: []rolePeer{{name: "a", heard: now}, {name: "b"}}, begun: 2, sched: tenure{assigned: role.Assignment{Holder: "b"}, since: ago(2)}, ctl: tenure{assigned: role.Assignment{Holder: "a"}, since: ago(2)}},
		{rule: "who does not report to it is gone", peers: []rolePeer{{name: "a", heard: now}, {name: "b"}}, begun: 4, sched: tenure{assigned: role.Assignment{Holder: "b"}, since: ago(4)}, ctl: held("a", 60, 1), want: "scheduler=a"},
		{rule: "the confirmed dead lose it at once", peers: append(up("a"), rolePeer{name: "b", dead: true, heard: now}), begun: 60, sched: held("b", 60, 0), ctl: held("a", 60, 0), want: "scheduler=a"},
		{rule: "two roles on one peer are spread", peers: up("a", "b"), begun: 60, sched: held("a", 60, 0), ctl: held("a", 60, 0), want: "controllers=b"},
		{rule: "not onto one that just came", peers: append(up("a"), rolePeer{name: "b", reporting: ago(3), heard: now}), begun: 60, sched: held("a", 60, 0), ctl: held("a", 60, 0)},
		{rule: "who declines a role does not get it", peers: append(up("a"), rolePeer{name: "b", declines: []role.Name{role.Scheduler}, reporting: ago(60), heard: now}), begun: 60, sched: held("a", 60, 4), ctl: held("b", 60, 0)},
		{rule: "nor by spreading", peers: append(up("a"), rolePeer{name: "b", declines: role.All(), reporting: ago(60), heard: now}), begun: 60, sched: held("a", 60, 0), ctl: held("a", 60, 0)},
		{rule: "who begins to decline it loses it", peers: append(up("a"), rolePeer{name: "b", declines: []role.Name{role.Scheduler}, reporting: ago(60), heard: now}), begun: 60, sched: held("b", 60, 0), ctl: held("b", 60, 0), want: "scheduler=a"},
		{rule: "what all decline nobody gets", peers: []rolePeer{{name: "a", declines: role.All(), reporting: ago(60), heard: now}}, begun: 60},
		{rule: "who resigned is the last choice", peers: up("a", "b"), begun: 60, ctl: held("b", 60, 0), sched: tenure{
			assigned: role.Assignment{Holder: "a", Epoch: 3}, since: ago(60), progress: now,
			resigned: map[member.Name]resignation{"a": {epoch: 3, at: now}},
		}, want: "scheduler=b"},
		{rule: "but gets it back if alone", peers: up("a"), begun: 60, ctl: held("a", 60, 0), sched: tenure{
			assigned: role.Assignment{Holder: "a", Epoch: 3}, since: ago(60), progress: now,
			resigned: map[member.Name]resignation{"a": {epoch: 3, at: now}},
		}, want: "scheduler=a"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			b := roleBook{
				now: now, begun: ago(c.begun), timing: cfg.Timing, leader: "a", peers: c.peers,
				held: map[role.Name]tenure{role.Scheduler: c.sched, role.Controllers: c.ctl},
			}
			got := ""
			if a, ok := b.next(); ok {
				got = fmt.Sprintf("%s=%s", a.Role, a.Holder)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

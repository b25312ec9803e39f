package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// model is the machine as one would write it without a care: a map copied
// for each revision.
type model struct {
	rev    store.Revision
	states map[store.Revision]map[string]cell
	seen   map[fsm.RequestID]bool
	epochs map[role.Name]uint64
	events []string
}

type cell struct {
	value       string
	create, mod store.Revision
}

func newModel() *model {
	return &model{
		rev: 1, states: map[store.Revision]map[string]cell{1: {}},
		seen: map[fsm.RequestID]bool{}, epochs: map[role.Name]uint64{},
	}
}

func (m *model) now() map[string]cell { return m.states[m.rev] }

func (m *model) advance(next map[string]cell) {
	m.rev++
	m.states[m.rev] = next
}

// apply returns what the machine must say: "dup", "fenced", "failed", "held".
func (m *model) apply(r fsm.Request) string {
	if m.seen[r.ID] {
		return "dup"
	}
	m.seen[r.ID] = true
	if f := r.Txn.Fence; f != nil && m.epochs[f.Role] != f.Epoch {
		return "fenced"
	}
	for _, g := range r.Txn.Guards {
		if m.now()[g.Key].mod != g.Mod {
			return "failed"
		}
	}
	next := map[string]cell{}
	maps.Copy(next, m.now())
	changed := false
	for _, o := range r.Txn.Ops {
		old, had := next[o.Key]
		switch {
		case o.Delete && !had:
			continue
		case o.Delete:
			delete(next, o.Key)
			m.events = append(m.events, fmt.Sprintf("%d del %s", m.rev+1, o.Key))
		default:
			c := cell{value: string(o.Value), create: m.rev + 1, mod: m.rev + 1}
			if had {
				c.create = old.create
			}
			next[o.Key] = c
			m.events = append(m.events, fmt.Sprintf("%d put %s", m.rev+1, o.Key))
		}
		changed = true
	}
	if changed {
		m.advance(next)
	}
	return "held"
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{"/a/1", "/a/2", "/a/3", "/ab/1", "/b/1", "/b/2", "/b/\xff", "/b/\xff\xff"}).Draw(t, "key")
}

func (m *model) drawTxn(t *rapid.T) store.Txn {
	var txn store.Txn
	for _, key := range rapid.SliceOfNDistinct(rapid.Custom(drawKey), 1, 4, rapid.ID).Draw(t, "keys") {
		o := store.Op{Key: key, Delete: rapid.IntRange(0, 3).Draw(t, "delete") == 0}
		if !o.Delete {
			o.Value = []byte(rapid.StringN(0, 8, 16).Draw(t, "value"))
		}
		txn.Ops = append(txn.Ops, o)
	}
	if rapid.Bool().Draw(t, "guarded") {
		key := drawKey(t)
		mod := m.now()[key].mod
		if rapid.IntRange(0, 3).Draw(t, "stale") == 0 {
			mod++
		}
		txn.Guards = append(txn.Guards, store.Guard{Key: key, Mod: mod})
	}
	if rapid.IntRange(0, 5).Draw(t, "fenced") == 0 {
		txn.Fence = &role.Fence{Role: role.Scheduler, Epoch: rapid.Uint64Range(0, 3).Draw(t, "epoch")}
	}
	return txn
}

// contents compares a view with the model's state of the same revision.
func (m *model) contents(t *rapid.T, v store.View) {
	want := m.states[v.Revision()]
	var keys []string
	for e := range v.Ascend("", "") {
		c := want[e.Key]
		if string(e.Value) != c.value || e.Create != c.create || e.Mod != c.mod {
			t.Fatalf("%s at %d: got %q %d/%d, want %+v", e.Key, v.Revision(), e.Value, e.Create, e.Mod, c)
		}
		keys = append(keys, e.Key)
	}
	if len(keys) != len(want) || !slices.IsSorted(keys) {
		t.Fatalf("at %d: keys %q, want %d", v.Revision(), keys, len(want))
	}
	for _, prefix := range []string{"", "/a/", "/b/", "/b/\xff", "/zz"} {
		for _, from := range []string{"", "/a/2", "/b/1\x00"} {
			n := 0
			for k := range want {
				if strings.HasPrefix(k, prefix) && k >= from {
					n++
				}
			}
			if got := v.Count(prefix, from); got != n {
				t.Fatalf("count %q from %q at %d: got %d, want %d", prefix, from, v.Revision(), got, n)
			}
		}
	}
}

func say(o fsm.Outcome) string {
	switch {
	case o.Duplicate:
		return "dup"
	case errors.Is(o.Err, store.ErrFenced):
		return "fenced"
	case o.Result.Held:
		return "held"
	}
	return "failed"
}

func TestMachineBehavesAsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, m := newModel(), fsm.New(fsm.Limits{})
		var past []fsm.Request
		index := uint64(0)
		for range rapid.IntRange(1, 30).Draw(t, "entries") {
			var items []fsm.Item
			var fates []string
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				switch k := rapid.IntRange(0, 9).Draw(t, "kind"); {
				case k == 0 && len(past) > 0: // a retry, perhaps long after
					r := rapid.SampledFrom(past).Draw(t, "retry")
					items, fates = append(items, fsm.EncodeRequest(r)), append(fates, want.apply(r))
				case k == 1:
					e := want.epochs[role.Scheduler]
					items = append(items, fsm.EncodeCommand(fsm.Command{Assign: &fsm.Assign{Role: role.Scheduler, Holder: "p", Epoch: e}}))
					want.epochs[role.Scheduler]++
					want.advance(want.now())
					fates = append(fates, "held")
				default:
					r := fsm.Request{
						ID:  fsm.RequestID{Peer: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "peer"), Boot: 1, Seq: uint64(len(past))},
						Txn: want.drawTxn(t),
					}
					past = append(past, r)
					items, fates = append(items, fsm.EncodeRequest(r)), append(fates, want.apply(r))
				}
			}
			index++
			a := m.Apply(index, fsm.Encode(1, int64(index), items...))
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			for i, o := range a.Outcomes {
				if say(o) != fates[i] {
					t.Fatalf("item %d: got %s (%v), want %s", i, say(o), o.Err, fates[i])
				}
			}
			if m.State().Revision() != want.rev {
				t.Fatalf("revision %d, want %d", m.State().Revision(), want.rev)
			}
		}
		for rev := range want.states {
			v, err := m.At(rev)
			if err != nil {
				t.Fatal(err)
			}
			want.contents(t, v)
		}
		history(t, m, want.events)
		restored(t, m, want)
	})
}

// history compares all events the machine kept with the model's.
func history(t *rapid.T, m *fsm.Machine, want []string) {
	events, through, err := m.Events(fsm.Selector{}, 1)
	if err != nil || through != m.State().Revision() {
		t.Fatalf("events through %d: %v", through, err)
	}
	var got []string
	for _, e := range events {
		verb := "put"
		if e.Entry == nil {
			verb = "del"
		}
		got = append(got, fmt.Sprintf("%d %s %s", e.Revision, verb, e.Key))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
}

// restored says that a snapshot makes another machine the same, now and after
// the same further entries.
func restored(t *rapid.T, m *fsm.Machine, want *model) {
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		t.Fatal(err)
	}
	whole := b.Bytes()
	other := fsm.New(fsm.Limits{})
	if err := other.Restore(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	want.contents(t, other.State().View)
	r := fsm.Request{ID: fsm.RequestID{Peer: "x", Boot: 1, Seq: 1 << 20}, Txn: store.Txn{Ops: []store.Op{{Key: "/new", Value: []byte("v")}}}}
	for n := range 2 { // the second time it is a duplicate on both
		entry := fsm.Encode(1, 99, fsm.EncodeRequest(r))
		at := m.State().Index + 1
		m.Apply(at, entry)
		other.Apply(at, entry)
		if x, y := m.State(), other.State(); x.Hash != y.Hash || x.Revision() != y.Revision() || x.Role(role.Scheduler) != y.Role(role.Scheduler) {
			t.Fatalf("after restore and entry %d: %+v and %+v", n, x, y)
		}
	}
	cut := rapid.IntRange(0, len(whole)-1).Draw(t, "cut")
	if err := fsm.New(fsm.Limits{}).Restore(bytes.NewReader(whole[:cut])); err == nil {
		t.Fatalf("a snapshot cut at %d of %d was accepted", cut, len(whole))
	}
	broken := bytes.Clone(whole)
	broken[cut] ^= 0x40
	if err := fsm.New(fsm.Limits{}).Restore(bytes.NewReader(broken)); err == nil {
		t.Fatalf("a snapshot with a flipped bit in byte %d of %d was accepted", cut, len(whole))
	}
}

func FuzzApplyNeverPanics(f *testing.F) {
	good := fsm.EncodeRequest(fsm.Request{
		ID:  fsm.RequestID{Peer: "x", Boot: 1, Seq: 3},
		Txn: store.Txn{Guards: []store.Guard{{Key: "/a", Mod: 7}}, Ops: []store.Op{{Key: "/b", Value: []byte("v"), TTL: 3}}, Fence: &role.Fence{Role: "r", Epoch: 1}},
	})
	f.Add([]byte(good), true)
	f.Add([]byte(fsm.EncodeCommand(fsm.Command{Assign: &fsm.Assign{Role: "r", Holder: "h"}})), true)
	f.Add([]byte(fsm.EncodeCommand(fsm.Command{Compact: &fsm.Compact{Expect: 1}})), true)
	f.Add([]byte(fsm.EncodeCommand(fsm.Command{Recover: &fsm.Recover{Incarnation: "i", Jump: true}})), true)
	f.Add(fsm.Encode(1, 5, good, good), false)
	f.Add(fsm.Encode(9, 5, good), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, item bool) {
		m := fsm.New(fsm.Limits{})
		if item {
			data = fsm.Encode(1, 1, fsm.Item(data))
		}
		before := m.State()
		a := m.Apply(1, data)
		after := m.State()
		if a.Err != nil && (after.Revision() != before.Revision() || after.Len() != 0) {
			t.Fatalf("refused with %v, but changed", a.Err)
		}
		if (after.Frozen != nil) != errors.Is(a.Err, fsm.ErrTooNew) {
			t.Fatalf("frozen %v after %v", after.Frozen, a.Err)
		}
		_ = m.Restore(bytes.NewReader(data))
	})
}

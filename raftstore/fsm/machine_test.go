package fsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// driver applies entries to one machine with ids and indexes of its own.
type driver struct {
	*fsm.Machine
	t     *testing.T
	index uint64
	clock time.Duration
}

func drive(t *testing.T, l fsm.Limits) *driver {
	t.Helper()
	return &driver{Machine: fsm.New(l), t: t}
}

func (d *driver) apply(items ...fsm.Item) fsm.Applied {
	d.t.Helper()
	d.index++
	return d.Apply(d.index, fsm.Encode(1, int64(d.clock), items...))
}

func (d *driver) txn(t store.Txn) fsm.Outcome {
	d.t.Helper()
	a := d.apply(fsm.EncodeRequest(fsm.Request{ID: fsm.RequestID{Peer: "x", Boot: 1, Seq: d.index}, Txn: t}))
	if a.Err != nil {
		d.t.Fatal(a.Err)
	}
	return a.Outcomes[0]
}

func (d *driver) put(key, value string) store.Revision {
	d.t.Helper()
	o := d.txn(store.Txn{Ops: []store.Op{{Key: key, Value: []byte(value)}}})
	if !o.Result.Held {
		d.t.Fatalf("put %s: %+v", key, o)
	}
	return o.Result.Revision
}

func TestFirstRevisionIsOne(t *testing.T) {
	d := drive(t, fsm.Limits{})
	if got := d.State().Revision(); got != 1 {
		t.Errorf("new machine at %d", got)
	}
	if got := d.put("/a", "1"); got != 2 {
		t.Errorf("first write at %d", got)
	}
}

func TestNoChangeTakesNoRevision(t *testing.T) {
	d := drive(t, fsm.Limits{})
	o := d.txn(store.Txn{Ops: []store.Op{{Key: "/absent", Delete: true}}})
	if !o.Result.Held || o.Result.Revision != 1 || d.State().Revision() != 1 {
		t.Errorf("delete of nothing: %+v", o)
	}
}

func TestStaleFenceIsRefused(t *testing.T) {
	d := drive(t, fsm.Limits{})
	assign := func(epoch uint64) {
		d.apply(fsm.EncodeCommand(fsm.Command{Assign: &fsm.Assign{Role: role.Scheduler, Holder: "p", Epoch: epoch}}))
	}
	write := func(epoch uint64) error {
		return d.txn(store.Txn{
			Ops: []store.Op{{Key: "/k", Value: []byte("v")}}, Fence: &role.Fence{Role: role.Scheduler, Epoch: epoch},
		}).Err
	}
	assign(0)
	assign(0) // lost the race: epoch 1 is taken
	if got := d.State().Role(role.Scheduler); got.Epoch != 1 || got.Holder != "p" || got.Revision != 2 {
		t.Fatalf("assignment %+v", got)
	}
	if err := write(1); err != nil {
		t.Errorf("holder: %v", err)
	}
	assign(1)
	for _, epoch := range []uint64{0, 1, 3} {
		if err := write(epoch); !errors.Is(err, store.ErrFenced) {
			t.Errorf("epoch %d of 2: %v", epoch, err)
		}
	}
}

func TestCompactionEntryEndsHistory(t *testing.T) {
	d := drive(t, fsm.Limits{})
	d.put("/a", "1")
	last := d.put("/a", "2")
	stale := d.apply(fsm.EncodeCommand(fsm.Command{Compact: &fsm.Compact{Expect: last - 1}}))
	if stale.Outcomes[0].Result.Held {
		t.Error("compacted at a revision that had passed")
	}
	d.apply(fsm.EncodeCommand(fsm.Command{Compact: &fsm.Compact{Expect: last}}))
	if got := d.State(); got.Revision() != last+1 || got.Compacted != last+1 {
		t.Fatalf("at %d, compacted %d", got.Revision(), got.Compacted)
	}
	if _, err := d.At(last); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("state before: %v", err)
	}
	if _, _, err := d.Events(fsm.Selector{}, last-1); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("events before: %v", err)
	}
	if _, _, err := d.Events(fsm.Selector{}, last); err != nil {
		t.Errorf("a watch that had seen all before: %v", err)
	}
	if v, err := d.At(last + 1); err != nil || string(v.Get("/a").Value) != "2" {
		t.Errorf("state now: %v", err)
	}
	if _, err := d.At(last + 2); !errors.Is(err, store.ErrFuture) {
		t.Errorf("state to come: %v", err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	for _, c := range []struct {
		bound string
		limit fsm.Limits
		step  time.Duration
		kept  int
	}{
		{"by age", fsm.Limits{Age: 10 * time.Second}, time.Second, 11},
		{"by events", fsm.Limits{Events: 5}, 0, 5},
		{"by bytes", fsm.Limits{Bytes: 20_000}, 0, 11},
	} {
		t.Run(c.bound, func(t *testing.T) {
			d := drive(t, c.limit)
			for i := range 100 {
				d.clock += c.step
				d.put(fmt.Sprintf("/%03d", i), string(make([]byte, 1000)))
			}
			if got := int(d.State().Revision()-d.Oldest()) + 1; got != c.kept {
				t.Errorf("kept %d revisions, want %d", got, c.kept)
			}
			if _, _, err := d.Events(fsm.Selector{}, d.Oldest()-2); !errors.Is(err, store.ErrCompacted) {
				t.Errorf("older events: %v", err)
			}
		})
	}
}

// What an entry carries must not let a peer's clock run history backwards.
func TestClockNeverGoesBack(t *testing.T) {
	d := drive(t, fsm.Limits{})
	d.clock = time.Hour
	d.put("/a", "1")
	d.clock = time.Minute
	d.put("/a", "2")
	if got := time.Duration(d.State().Clock); got != time.Hour {
		t.Errorf("clock %v", got)
	}
}

func TestRetryCannotApplyTwice(t *testing.T) {
	d := drive(t, fsm.Limits{})
	req := func(boot, seq, floor uint64) fsm.Item {
		return fsm.EncodeRequest(fsm.Request{
			ID: fsm.RequestID{Peer: "x", Boot: boot, Seq: seq}, Floor: floor,
			Txn: store.Txn{Ops: []store.Op{{Key: "/k", Value: []byte{byte(seq)}}}},
		})
	}
	for _, c := range []struct {
		rule             string
		boot, seq, floor uint64
		dup              bool
	}{
		{"first", 1, 5, 5, false},
		{"again", 1, 5, 5, true},
		{"below the floor", 1, 4, 0, true},
		{"out of order", 1, 8, 6, false},
		{"in the gap", 1, 7, 6, false},
		{"gap again", 1, 7, 6, true},
		{"later boot", 2, 5, 0, false},
		{"earlier boot", 1, 9, 0, true},
		{"later boot again", 2, 5, 0, true},
		{"a floor far ahead", 2, 1 << 60, 1 << 60, false},
		{"behind it", 2, 1 << 59, 0, true},
	} {
		if got := d.apply(req(c.boot, c.seq, c.floor)).Outcomes[0].Duplicate; got != c.dup {
			t.Errorf("%s: duplicate %v", c.rule, got)
		}
	}
}

func TestRecoveryStartsANewIncarnation(t *testing.T) {
	d := drive(t, fsm.Limits{})
	found := fsm.EncodeCommand(fsm.Command{Recover: &fsm.Recover{Incarnation: "first"}})
	d.apply(found)
	d.apply(fsm.EncodeCommand(fsm.Command{Recover: &fsm.Recover{Incarnation: "second"}}))
	if got := d.State().Incarnation; got != "first" {
		t.Fatalf("founded twice: %s", got)
	}
	d.apply(fsm.EncodeCommand(fsm.Command{Assign: &fsm.Assign{Role: role.Scheduler, Holder: "p"}}))
	before := d.put("/a", "1")
	a := d.apply(fsm.EncodeCommand(fsm.Command{Recover: &fsm.Recover{Incarnation: "third", Jump: true}}))
	st := d.State()
	if !a.Reset || st.Incarnation != "third" || st.Revision() != before+fsm.Jump || string(st.Get("/a").Value) != "1" {
		t.Fatalf("recovered: reset %v, %+v", a.Reset, st)
	}
	if r := st.Role(role.Scheduler); r.Epoch != 2 || r.Holder != "" {
		t.Errorf("role after recovery: %+v", r)
	}
	if _, _, err := d.Events(fsm.Selector{}, before); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch over a recovery: %v", err)
	}
}

func TestNewerEntryFreezes(t *testing.T) {
	d := drive(t, fsm.Limits{})
	rev := d.put("/a", "1")
	d.index++
	if a := d.Apply(d.index, fsm.Encode(fsm.MaxLevel+1, 0)); !errors.Is(a.Err, fsm.ErrTooNew) {
		t.Fatalf("newer level: %v", a.Err)
	}
	a := d.apply(fsm.EncodeRequest(fsm.Request{ID: fsm.RequestID{Peer: "y"}, Txn: store.Txn{Ops: []store.Op{{Key: "/b"}}}}))
	if !errors.Is(a.Err, fsm.ErrTooNew) || d.State().Revision() != rev || d.State().Index != d.index-2 {
		t.Errorf("frozen machine went on: %v, revision %d, index %d", a.Err, d.State().Revision(), d.State().Index)
	}
	if _, err := d.Snapshot(); err == nil {
		t.Error("snapshot of a frozen machine")
	}
}

func TestGarbageIsRefusedAndCounted(t *testing.T) {
	d := drive(t, fsm.Limits{})
	good := fsm.Encode(1, 0, fsm.EncodeRequest(fsm.Request{ID: fsm.RequestID{Peer: "x"}, Txn: store.Txn{Ops: []store.Op{{Key: "/a"}}}}))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		d.index++
		if a := d.Apply(d.index, bad); a.Err == nil {
			t.Fatalf("flipped byte %d was accepted", i)
		} else if errors.Is(a.Err, fsm.ErrTooNew) {
			t.Fatalf("flipped byte %d froze the machine: %v", i, a.Err)
		}
	}
	if d.State().Index != d.index || d.State().Revision() != 1 {
		t.Errorf("index %d of %d, revision %d", d.State().Index, d.index, d.State().Revision())
	}
}

func TestSnapshotBehindTheMachineIsIgnored(t *testing.T) {
	d := drive(t, fsm.Limits{})
	d.put("/a", "1")
	snap, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		t.Fatal(err)
	}
	d.put("/a", "2")
	if err := d.Restore(&b); err != nil || string(d.State().Get("/a").Value) != "2" {
		t.Errorf("went back: %v", err)
	}
}

// A view held while the tree changes must not change; the tree must stay
// balanced enough to count and find in few steps.
func TestTreeAgainstSortedSlice(t *testing.T) {
	d := drive(t, fsm.Limits{Events: 1})
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]bool{}
	for range 5000 {
		key := fmt.Sprintf("/%05d", rng.IntN(2000))
		if rng.IntN(3) == 0 {
			d.txn(store.Txn{Ops: []store.Op{{Key: key, Delete: true}}})
			delete(want, key)
		} else {
			d.put(key, "v")
			want[key] = true
		}
	}
	held := d.State().View
	var keys []string
	for k := range want {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		d.txn(store.Txn{Ops: []store.Op{{Key: k, Delete: true}}})
	}
	if d.State().Len() != 0 {
		t.Errorf("%d keys left", d.State().Len())
	}
	var got []string
	for e := range held.Ascend("/", "") {
		got = append(got, e.Key)
	}
	if !slices.Equal(got, keys) {
		t.Fatalf("held view has %d keys, want %d", len(got), len(keys))
	}
	for i, k := range keys {
		if n := held.Count("/", k); n != len(keys)-i {
			t.Fatalf("count from %s: %d, want %d", k, n, len(keys)-i)
		}
	}
}

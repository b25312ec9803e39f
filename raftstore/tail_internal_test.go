package raftstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// lossy is a file that a power cut leaves with what was synced and with some
// sectors of what was not.
type lossy struct {
	mu        sync.Mutex // guards the fields below
	safe, now []byte
	fails     bool
	dies      bool // with the next sync
}

const sector = 512

var errDisk = errors.New("disk fails")

// WriteAt implements flat.
func (f *lossy) WriteAt(b []byte, at int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails {
		return copy(f.now[at:], b[:len(b)/2]), errDisk
	}
	return copy(f.now[at:], b), nil
}

// Sync implements flat.
func (f *lossy) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dies {
		f.fails = true
	}
	if f.fails {
		return errDisk
	}
	copy(f.safe, f.now)
	return nil
}

// Close implements flat.
func (*lossy) Close() error { return nil }

// cut loses power: each sector that was not synced is old or new.
func (f *lossy) cut(survives func(sector int) bool) {
	for n := 0; n < len(f.now); n += sector {
		if string(f.now[n:n+sector]) != string(f.safe[n:n+sector]) && survives(n/sector) {
			copy(f.safe[n:n+sector], f.now[n:])
		}
	}
	copy(f.now, f.safe)
	f.fails, f.dies = false, false
}

func newLossy() *lossy {
	f := &lossy{safe: make([]byte, 16<<10), now: make([]byte, 16<<10)}
	copy(f.safe, header(0))
	copy(f.now, f.safe)
	return f
}

func openLossy(tb testing.TB, f *lossy, inner raft.LogStore) *tail {
	tb.Helper()
	s, err := newTail(f, f, append([]byte(nil), f.safe...), inner)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func entry(index, term uint64, size int) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand, Extensions: []byte{byte(index)},
		Data: []byte(strings.Repeat(fmt.Sprintf("%d/%d.", index, term), size)[:size]),
	}
}

// contents are all entries of a store.
func contents(tb testing.TB, s raft.LogStore) (logs []raft.Log) {
	tb.Helper()
	first, err1 := s.FirstIndex()
	last, err2 := s.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		tb.Fatal(err)
	}
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			tb.Fatalf("entry %d of %d to %d: %v", i, first, last, err)
		}
		logs = append(logs, l)
	}
	return logs
}

// A log store in front of another one behaves as one that never fails, and
// after a power cut holds all that was acknowledged, and beyond that nothing
// that nobody stored.
func TestTailLosesNothingThatWasAcknowledged(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		file, inner, model := newLossy(), raft.NewInmemStore(), raft.NewInmemStore()
		s := openLossy(t, file, inner)
		next, term := uint64(rapid.IntRange(1, 3).Draw(r, "first")), uint64(1)
		check := func(what string) {
			if diff := cmp.Diff(contents(t, model), contents(t, s)); diff != "" {
				r.Fatalf("after %s (-want +got):\n%s", what, diff)
			}
		}
		batch := func() (logs []*raft.Log) {
			for i := range rapid.IntRange(1, 4).Draw(r, "entries") {
				logs = append(logs, entry(next+uint64(i), term, rapid.IntRange(1, 1500).Draw(r, "size")))
			}
			return logs
		}
		store := func(m raft.LogStore, logs []*raft.Log) {
			if err := m.StoreLogs(logs); err != nil {
				r.Fatal(err)
			}
		}
		// drop deletes what is there beyond the model: entries whose storing
		// failed may have been written whole all the same, but no others.
		var tried []*raft.Log
		drop := func(s *tail) {
			last, _ := model.LastIndex()
			for got, _ := s.LastIndex(); got > last; got-- {
				var l raft.Log
				if err := s.GetLog(got, &l); err != nil {
					r.Fatal(err)
				}
				if !slices.ContainsFunc(tried, func(e *raft.Log) bool { return cmp.Equal(*e, l) }) {
					r.Fatalf("entry %d was never stored: %+v", got, l)
				}
				if err := s.DeleteRange(got, got); err != nil {
					r.Fatal(err)
				}
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"store": func(*rapid.T) {
				logs := batch()
				store(s, logs)
				store(model, logs)
				next += uint64(len(logs))
				check("store")
			},
			"conflict": func(r *rapid.T) {
				first, _ := model.FirstIndex()
				if first == 0 {
					return
				}
				from := rapid.Uint64Range(first, next-1).Draw(r, "from")
				if err := errors.Join(s.DeleteRange(from, next-1), model.DeleteRange(from, next-1)); err != nil {
					r.Fatal(err)
				}
				next, term = from, term+1
				if from == first {
					model, inner = raft.NewInmemStore(), raft.NewInmemStore()
					s.inner = inner
				}
				logs := batch()
				store(s, logs)
				store(model, logs)
				next += uint64(len(logs))
				check("conflict")
			},
			"compact": func(r *rapid.T) {
				first, _ := model.FirstIndex()
				if first == 0 || first == next-1 {
					return
				}
				to := rapid.Uint64Range(first, next-2).Draw(r, "to")
				if err := errors.Join(s.DeleteRange(first, to), model.DeleteRange(first, to)); err != nil {
					r.Fatal(err)
				}
				check("compact")
			},
			"disk fails": func(*rapid.T) {
				settled(s)
				file.fails = true
				logs := batch()
				tried = append(tried, logs...)
				if err := s.StoreLogs(logs); err == nil {
					r.Fatal("a failed write was acknowledged")
				}
				settled(s)
				file.fails = false
				check("failure")
			},
			"restart": func(*rapid.T) {
				settled(s)
				file.cut(func(int) bool { return true })
				s = openLossy(t, file, inner)
				drop(s)
				check("restart")
			},
			"power cut": func(r *rapid.T) {
				file.mu.Lock()
				file.dies = true
				file.mu.Unlock()
				logs := batch()
				tried = append(tried, logs...)
				if s.StoreLogs(logs) == nil {
					store(model, logs)
					next += uint64(len(logs))
				}
				settled(s)
				file.cut(func(n int) bool { return rapid.Bool().Draw(r, fmt.Sprintf("sector %d", n)) })
				s = openLossy(t, file, inner)
				drop(s)
				check("power cut")
			},
		})
	})
}

// settled waits until nothing moves any more.
func settled(s *tail) {
	s.write.Lock()
	defer s.write.Unlock()
	if s.moving != nil {
		<-s.moving.done
	}
}

func TestTailGoesToTheStoreBehindItWhenItIsFull(t *testing.T) {
	file, inner := newLossy(), raft.NewInmemStore()
	s := openLossy(t, file, inner)
	for i := range uint64(10) {
		if err := s.StoreLog(entry(i+1, 1, 1500)); err != nil {
			t.Fatal(err)
		}
	}
	settled(s)
	if last, _ := inner.LastIndex(); last == 0 || last == 10 {
		t.Errorf("store behind has entries up to %d, want some of 10", last)
	}
	if err := s.StoreLog(entry(11, 1, 20_000)); err != nil {
		t.Fatalf("entry larger than the file: %v", err)
	}
	if got := len(contents(t, s)); got != 11 {
		t.Errorf("%d entries, want 11", got)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if last, _ := inner.LastIndex(); last != 11 {
		t.Errorf("store behind has entries up to %d after close, want all 11", last)
	}
}

func TestTailWithoutHeaderIsRefused(t *testing.T) {
	f := newLossy()
	clear(f.safe)
	if _, err := newTail(f, f, f.safe, raft.NewInmemStore()); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v, want one that says damaged", err)
	}
}

func TestTailOpensOnFullDisk(t *testing.T) {
	file := newLossy()
	s := openLossy(t, file, full{raft.NewInmemStore()})
	if err := s.StoreLog(entry(1, 1, 10)); err != nil {
		t.Fatal(err)
	}
	s = openLossy(t, file, full{raft.NewInmemStore()})
	if got := len(contents(t, s)); got != 1 {
		t.Errorf("%d entries, want 1", got)
	}
	if err := s.StoreLog(entry(2, 1, 10)); !errors.Is(err, errDisk) {
		t.Errorf("error %v, want the disk's", err)
	}
	if got := len(contents(t, s)); got != 1 {
		t.Errorf("%d entries after a failure, want 1", got)
	}
}

// While the store behind takes nothing, both halves of the file are all there
// is of the newest entries. A power cut then must find every one.
func TestTailKeepsBothHalvesWhileTheStoreBehindIsFull(t *testing.T) {
	file, inner := newLossy(), full{raft.NewInmemStore()}
	s := openLossy(t, file, raft.NewInmemStore())
	if err := s.StoreLog(entry(1, 1, 10)); err != nil {
		t.Fatal(err)
	}
	s.inner = inner
	next := uint64(2)
	for refused := 0; refused < 3; {
		if s.StoreLog(entry(next, 1, 1500)) == nil {
			next++
		} else {
			refused++
		}
	}
	settled(s)
	file.cut(func(int) bool { return true })
	s = openLossy(t, file, inner)
	if got := len(contents(t, s)); got != int(next-1) {
		t.Errorf("%d entries after a restart, want the %d that were acknowledged", got, next-1)
	}
}

// opened is one opening of a file that tells a loss as Linux does: to each, once.
type opened struct {
	*lossy

	untold  bool
	written func() // called after a write
}

// WriteAt implements flat.
func (o *opened) WriteAt(b []byte, at int64) (int, error) {
	n, err := o.lossy.WriteAt(b, at)
	if o.written != nil {
		o.written()
	}
	return n, err
}

// Sync implements flat.
func (o *opened) Sync() error {
	if o.untold {
		o.untold = false
		return errDisk
	}
	return o.lossy.Sync()
}

// The disk loses a record, and a move that ends in the same moment hears of it
// first. Whoever stored the record must hear of it, too.
func TestTailHearsOfALossThoughAMoveHasHeardOfIt(t *testing.T) {
	file := newLossy()
	records, head := &opened{lossy: file}, &opened{lossy: file}
	s, err := newTail(records, head, append([]byte(nil), file.safe...), raft.NewInmemStore())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.StoreLog(entry(1, 1, 10)); err != nil {
		t.Fatal(err)
	}
	records.written = func() {
		copy(file.now, file.safe)
		records.untold, head.untold = true, true
		if s.head.Sync() == nil {
			t.Error("the move hears of no loss")
		}
	}
	if err := s.StoreLog(entry(2, 1, 10)); !errors.Is(err, errDisk) {
		t.Errorf("error %v, want the disk's: the entry is lost", err)
	}
}

func TestTailThatIsCutShortIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := openTail(dir, raft.NewInmemStore())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 100, slotSize, recordsBegin, recordsBegin + tailHalf} {
		if err := os.Truncate(filepath.Join(dir, tailFile), size); err != nil {
			t.Fatal(err)
		}
		if _, err := openTail(dir, raft.NewInmemStore()); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%d bytes long: error %v, want one that says damaged", size, err)
		}
	}
}

// full takes no entry.
type full struct{ *raft.InmemStore }

func (full) StoreLogs([]*raft.Log) error { return errDisk }

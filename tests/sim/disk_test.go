package sim_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/raftstore"
)

// platter is what of a peer's disk survives a crash.
type platter struct {
	store *raft.InmemStore
	snaps *raft.InmemSnapshotStore
}

func newPlatter() *platter {
	return &platter{store: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
}

// drive is a platter as one start of a peer writes it. A write takes the time
// of an fsync, during which it is neither there nor lost; a crash then decides
// by lot. A drive that lies reports writes as done while they still are in
// its cache, which a crash loses.
type drive struct {
	*platter

	mu      sync.Mutex // guards the fields below
	rng     *rand.Rand
	sync    time.Duration
	crashed bool
	lies    bool
	dirty   uint64 // first log entry that a lying drive has not synced; 0: none
}

var errCrashed = errors.New("the machine has crashed")

func (d *drive) storage() *raftstore.Storage {
	return &raftstore.Storage{Logs: d, Stable: d, Snapshots: d.snaps, Close: func() error { return nil }}
}

func (d *drive) write(do func() error) error {
	d.mu.Lock()
	if d.crashed {
		d.mu.Unlock()
		return errCrashed
	}
	pause := d.sync/2 + time.Duration(d.rng.Int64N(int64(d.sync)))
	d.mu.Unlock()
	time.Sleep(pause)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.crashed {
		return do()
	}
	if d.rng.IntN(2) == 0 {
		_ = do() // it got there, though nobody was told
	}
	return errCrashed
}

func (d *drive) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crashed = true
	if last, _ := d.store.LastIndex(); d.dirty > 0 && d.dirty <= last {
		_ = d.store.DeleteRange(d.dirty, last)
	}
}

func (d *drive) lie() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lies = true
}

func (d *drive) setSync(pause time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync = pause
}

func (d *drive) FirstIndex() (uint64, error)          { return d.store.FirstIndex() }
func (d *drive) LastIndex() (uint64, error)           { return d.store.LastIndex() }
func (d *drive) GetLog(i uint64, l *raft.Log) error   { return d.store.GetLog(i, l) }
func (d *drive) Get(key []byte) ([]byte, error)       { return d.store.Get(key) }
func (d *drive) GetUint64(key []byte) (uint64, error) { return d.store.GetUint64(key) }
func (d *drive) StoreLog(l *raft.Log) error           { return d.StoreLogs([]*raft.Log{l}) }
func (d *drive) DeleteRange(a, b uint64) error {
	return d.write(func() error { return d.store.DeleteRange(a, b) })
}

func (d *drive) Set(key, val []byte) error {
	return d.write(func() error { return d.store.Set(key, val) })
}

func (d *drive) SetUint64(key []byte, val uint64) error {
	return d.write(func() error { return d.store.SetUint64(key, val) })
}

func (d *drive) StoreLogs(l []*raft.Log) error {
	return d.write(func() error {
		if d.lies && d.dirty == 0 {
			d.dirty = l[0].Index
		}
		return d.store.StoreLogs(l)
	})
}

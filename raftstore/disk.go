package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"skein.dev/skein/raftstore/fsm"
)

const logFile = "raft.db"

// openFiles opens the storage in dir: one bbolt file for log and votes, whose
// free list is kept in memory only (it is written with every commit
// otherwise), the file of the newest entries, and a directory of snapshots.
func openFiles(dir string, log *slog.Logger) (*Storage, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	db, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, logFile),
		BoltOptions: &bbolt.Options{
			Timeout:        5 * time.Second, // another daemon on this directory
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, bridge(log))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots in %s: %w", dir, err), db.Close())
	}
	logs, err := openTail(dir, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Storage{
		Logs: logs, Stable: db, Snapshots: snaps,
		Close: func() error { return errors.Join(logs.close(), db.Close()) },
	}, nil
}

// disk is raft's log and votes, on a [Storage]. It counts what is written,
// and writes beside each entry the commit index known then: a peer that
// starts without quorum may apply at least that much. (Later versions of raft
// can do so themselves, but not this one nor raft-boltdb.)
type disk struct {
	inner  *Storage
	log    *slog.Logger
	closed chan struct{}
	raft   atomic.Pointer[raft.Raft]

	appends, entries, bytes atomic.Uint64
	sinceSnapshot           atomic.Int64
	full                    atomic.Bool // the last write to the log found no space
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

var commitKey = []byte("skein-commit") //nolint:gochecknoglobals // a constant; Go has none of this type

// FirstIndex implements [raft.LogStore].
func (d *disk) FirstIndex() (uint64, error) { return d.inner.Logs.FirstIndex() }

// LastIndex implements [raft.LogStore].
func (d *disk) LastIndex() (uint64, error) { return d.inner.Logs.LastIndex() }

// GetLog implements [raft.LogStore].
func (d *disk) GetLog(i uint64, l *raft.Log) error { return d.inner.Logs.GetLog(i, l) }

// DeleteRange implements [raft.LogStore].
func (d *disk) DeleteRange(from, to uint64) error { return d.inner.Logs.DeleteRange(from, to) }

// StoreLog implements [raft.LogStore].
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore]. The entries are copied, because raft
// is already sending the originals to followers.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	var mark []byte
	if r := d.raft.Load(); r != nil {
		mark = binary.AppendUvarint(nil, r.CommitIndex())
	}
	marked := make([]*raft.Log, len(logs))
	size := 0
	for i, l := range logs {
		c := *l
		c.Extensions = mark
		marked[i] = &c
		size += len(l.Data)
	}
	err := d.inner.Logs.StoreLogs(marked)
	d.full.Store(noSpace(err))
	if err != nil {
		return fmt.Errorf("store log: %w", err)
	}
	d.appends.Add(1)
	d.entries.Add(uint64(len(logs)))
	d.bytes.Add(uint64(size))
	d.sinceSnapshot.Add(int64(size))
	return nil
}

// Set implements [raft.StableStore].
func (d *disk) Set(key, val []byte) error {
	return d.insist(func() error { return d.inner.Stable.Set(key, val) })
}

// Get implements [raft.StableStore].
func (d *disk) Get(key []byte) ([]byte, error) { return d.inner.Stable.Get(key) }

// SetUint64 implements [raft.StableStore].
func (d *disk) SetUint64(key []byte, val uint64) error {
	return d.insist(func() error { return d.inner.Stable.SetUint64(key, val) })
}

// GetUint64 implements [raft.StableStore].
func (d *disk) GetUint64(key []byte) (uint64, error) { return d.inner.Stable.GetUint64(key) }

// insist repeats a write until it is done. Raft panics when it cannot record
// its term; a peer with a full disk must only fall silent. After Close, when
// nothing it would say can leave the machine, it may go on unwritten.
func (d *disk) insist(write func() error) error {
	for warned := false; ; warned = true {
		err := write()
		if err == nil {
			return nil
		}
		if !warned {
			ctx := context.Background() //nolint:forbidigo // raft's StableStore has no context
			d.log.ErrorContext(ctx, "cannot record vote, peer is silent until it can", "err", err)
		}
		select {
		case <-d.closed:
			return nil
		case <-time.After(time.Second):
		}
	}
}

// committed is the highest index that this storage knows to be committed.
func (d *disk) committed() (uint64, error) {
	saved, err := getUint64(d.inner.Stable, commitKey)
	if err != nil {
		return 0, fmt.Errorf("read commit index: %w", err)
	}
	last, err := d.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	var l raft.Log
	if err := d.GetLog(last, &l); err != nil {
		return 0, fmt.Errorf("read log entry %d: %w", last, err)
	}
	marked, _ := binary.Uvarint(l.Extensions)
	return min(max(saved, marked), last), nil
}

// recall brings m to the newest state that the storage alone can prove: the
// last snapshot that can be read and the committed entries after it.
func (d *disk) recall(m *fsm.Machine) error {
	snaps, err := d.inner.Snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	restored, usable := len(snaps) == 0, false
	for n, meta := range snaps {
		_, r, err := d.inner.Snapshots.Open(meta.ID)
		if err == nil {
			err = errors.Join(m.Restore(r), r.Close())
		}
		if err == nil {
			restored, usable = true, n == 0
			break
		}
		ctx := context.Background() //nolint:forbidigo // opening cannot be cancelled
		d.log.WarnContext(ctx, "snapshot cannot be read, trying an older one", "snapshot", meta.ID, "err", err)
	}
	if !restored {
		return errors.New("none of the snapshots can be read")
	}
	commit, err := d.committed()
	if err != nil {
		return err
	}
	first, err := d.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index: %w", err)
	}
	have := m.State().Index
	if len(snaps) > 0 && have < snaps[0].Index && !usable {
		if first > have+1 {
			return fmt.Errorf("the newest snapshot cannot be read, and the log does not reach back to the one before: it begins at %d, wanted %d", first, have+1)
		}
		commit = max(commit, snaps[0].Index) // raft counts those as applied
	}
	for i := max(first, 1, have+1); i <= commit; i++ {
		var l raft.Log
		if err := d.GetLog(i, &l); err != nil {
			return fmt.Errorf("read log entry %d: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			m.Apply(i, l.Data)
		}
	}
	return nil
}

// saveCommit records the commit index on an orderly end.
func (d *disk) saveCommit(index uint64) error {
	return d.inner.Stable.SetUint64(commitKey, index)
}

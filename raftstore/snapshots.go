package raftstore

import (
	"context"
	"encoding/binary"
	"time"
)

// trailingBytes of log stay behind a snapshot, so that a peer that was away
// for a moment gets entries and not everything.
const trailingBytes = 16 << 20

// snapshots takes a snapshot when the log has grown by enough bytes, until
// ctx ends. Raft counts entries, which here may hold a kilobyte or one
// thousand of them.
func (s *Store) snapshots(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.disk.sinceSnapshot.Load() < int64(s.cfg.SnapshotBytes) {
			continue
		}
		if err := s.Snapshot(); err != nil {
			s.log.WarnContext(ctx, "could not take a snapshot", "err", err)
		}
	}
}

// Snapshot writes the state as a snapshot now and cuts the log behind it.
func (s *Store) Snapshot() error {
	entries, size := s.disk.entries.Load(), s.disk.bytes.Load()
	if entries > 0 {
		rc := s.raft.ReloadableConfig()
		rc.TrailingLogs = min(10_240, max(64, trailingBytes*entries/max(size, 1)))
		if err := s.raft.ReloadConfig(rc); err != nil {
			return err
		}
	}
	grown := s.disk.sinceSnapshot.Load()
	if err := s.raft.Snapshot().Error(); err != nil {
		return err
	}
	s.disk.sinceSnapshot.Add(-grown)
	return nil
}

func appendUint64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

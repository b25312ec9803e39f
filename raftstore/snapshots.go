package raftstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
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
		err := s.reload(func(rc *raft.ReloadableConfig) {
			rc.TrailingLogs = min(10_240, max(64, trailingBytes*entries/max(size, 1)))
		})
		if err != nil {
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

// reload changes what raft may be told while it runs.
func (s *Store) reload(change func(*raft.ReloadableConfig)) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	rc := s.raft.ReloadableConfig()
	change(&rc)
	if err := s.raft.ReloadConfig(rc); err != nil {
		return fmt.Errorf("reload raft's configuration: %w", err)
	}
	return nil
}

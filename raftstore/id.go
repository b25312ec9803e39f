package raftstore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
)

// ServerID returns the id of the peer whose data directory is dir, minting
// both if they do not exist yet. The id lives and dies with the directory: an
// emptied peer is a new one to raft, which must not count its old votes.
func ServerID(dir string) (member.ServerID, error) {
	path := filepath.Join(dir, "server-id")
	b, err := os.ReadFile(path)
	if err == nil {
		if id := strings.TrimSpace(string(b)); id != "" && !strings.Contains(id, "@") {
			return member.ServerID(id), nil
		}
		return "", fmt.Errorf("read server id %s: malformed", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read server id: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, logFile)); err == nil {
		return "", fmt.Errorf("read server id: %s has a log but no %s", dir, filepath.Base(path))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make data directory: %w", err)
	}
	id := uuid.NewString()
	if err := writeDurably(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("write server id: %w", err)
	}
	return member.ServerID(id), nil
}

// writeDurably puts a file in place whole and synced, or not at all.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newIncarnation names a cluster's life between two recoveries.
func newIncarnation() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%016x", binary.BigEndian.Uint64(b[:]))
}

// nextBoot counts this start of the peer, durably.
func nextBoot(s raft.StableStore) (uint64, error) {
	key := []byte("skein-boot")
	n, err := getUint64(s, key)
	if err != nil {
		return 0, fmt.Errorf("read boot count: %w", err)
	}
	if err := s.SetUint64(key, n+1); err != nil {
		return 0, fmt.Errorf("write boot count: %w", err)
	}
	return n + 1, nil
}

// getUint64 reads a number that may never have been written. The stores of
// raft have no common error for that, but a common text.
func getUint64(s raft.StableStore, key []byte) (uint64, error) {
	n, err := s.GetUint64(key)
	if err != nil && err.Error() == "not found" {
		return 0, nil
	}
	return n, err
}

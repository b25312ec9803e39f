package raftstore

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// eager is a transport that lets the only voter of a cluster lead at once:
// there is nobody to wait for, and `skein up` should not take an election's
// time. It tells raft what a leader tells its heir when it hands over.
type eager struct {
	*raft.NetworkTransport
	rpcs chan raft.RPC
}

// Consumer implements [raft.Transport].
func (e *eager) Consumer() <-chan raft.RPC { return e.rpcs }

// urge begins to pass on what comes from others, after the word to stand for
// election. It ends when done is closed.
func (e *eager) urge(done <-chan struct{}) {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	e.rpcs <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header}, RespChan: make(chan raft.RPCResponse, 1)}
	for {
		select {
		case <-done:
			return
		case rpc := <-e.NetworkTransport.Consumer():
			select {
			case e.rpcs <- rpc:
			case <-done:
				return
			}
		}
	}
}

// onlyVoter reports whether the configuration on disk has this peer as its
// only voter.
func (s *Store) onlyVoter(rc raft.Config, trans raft.Transport) (bool, error) {
	rc.NotifyCh = nil
	used, err := raft.HasExistingState(s.disk, s.disk, s.cfg.Storage.Snapshots)
	if err != nil || !used {
		return false, err
	}
	conf, err := raft.GetConfiguration(&rc, nothing{}, s.disk, s.disk, s.cfg.Storage.Snapshots, trans)
	if err != nil {
		return false, fmt.Errorf("read configuration: %w", err)
	}
	voters := 0
	for _, srv := range conf.Servers {
		if srv.Suffrage == raft.Voter {
			voters++
			if srv.ID != rc.LocalID {
				return false, nil
			}
		}
	}
	return voters == 1, nil
}

// nothing is the machine of a raft that is only asked for its configuration.
type nothing struct{ raft.FSM }

// Apply implements [raft.FSM].
func (nothing) Apply(*raft.Log) any { return errors.New("not a replica") }

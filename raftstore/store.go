package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// Store is one peer's replica of the cluster's data. It implements
// [store.Store]. Open starts raft; Run does all else, and until it runs
// proposals and linearizable reads wait.
type Store struct {
	cfg       Config
	log       *slog.Logger
	disk      *disk
	machine   *fsm.Machine
	raft      *raft.Raft
	cache     *raft.LogCache
	trans     raft.Transport
	members   *members
	link      *link
	proposer  *proposer
	committer *committer
	leading   *rounds
	following *rounds
	waits     *waits
	hub       *hub
	expiry    *expiry
	pusher    *pusher
	clock     *meshClock
	reports   *reports
	progress  *progress
	roles     *signal
	leader    *leaderOf
	term      atomic.Pointer[term]
	verified  atomic.Bool

	notify   chan bool
	observed chan raft.Observation
	closed   chan struct{}
	close    sync.Once

	reloading sync.Mutex // one change of raft's configuration at a time
}

var _ store.Store = (*Store)(nil)

// Open opens a peer's storage, shows what it proves to be committed, and
// takes part in consensus from then on.
func Open(c Config) (*Store, error) {
	if c.ServerID == "" && c.Dir != "" {
		id, err := ServerID(c.Dir)
		if err != nil {
			return nil, err
		}
		c.ServerID = id
	}
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if c.Storage == nil {
		if c.Storage, err = openFiles(c.Dir, c.Log); err != nil {
			return nil, err
		}
	}
	s := &Store{
		cfg: c, log: c.Log, closed: make(chan struct{}),
		notify: make(chan bool, 256), observed: make(chan raft.Observation, 64),
		expiry: newExpiry(), pusher: &pusher{wake: make(chan struct{}, 1)},
		clock: &meshClock{}, reports: newReports(), progress: &progress{}, roles: newSignal(),
		members: newMembers(Member{ServerID: c.ServerID, Name: c.Name, Address: c.Address, Declines: c.Declines}),
	}
	s.disk = &disk{inner: c.Storage, log: c.Log, closed: s.closed}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), c.Storage.Close())
	}
	return s, nil
}

// start builds the parts around the machine and starts raft.
func (s *Store) start() error {
	boot, err := nextBoot(s.cfg.Storage.Stable)
	if err != nil {
		return err
	}
	s.machine = fsm.New(s.cfg.Limits)
	if err := s.disk.recall(s.machine); err != nil {
		return err
	}
	s.hub = newHub(s.machine)
	s.waits = newWaits(s.machine, s.closed)
	s.proposer = newProposer(s.cfg.ServerID, boot, s.cfg.Queue)
	s.link = newLink(s.cfg.Link, s.members, s.answer, s.log)
	limit := 2 * s.cfg.Timing.Election
	s.leading, s.following = newRounds(limit, s.closed, s.leaderIndex), newRounds(limit, s.closed, s.askIndex)

	self := raftAddress(s.cfg.ServerID, s.cfg.Address)
	if s.cfg.Raft.Listener == nil {
		_, s.trans = raft.NewInmemTransport(self)
	} else {
		s.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			ServerAddressProvider: s.members, Logger: bridge(s.log), MaxPool: 4, Timeout: 5 * time.Second,
			// No pipelining: in raft v1.7.3 its sender waits for ever for a
			// decoder that has ended, when a follower refuses one of two
			// messages under way. That follower gets no entry any more, and
			// Shutdown never returns. Entries are batched anyway.
			MaxRPCsInFlight:         1,
			Stream:                  &stream{network: s.cfg.Raft, self: self, members: s.members, log: s.log},
			MsgpackUseNewTimeFormat: true,
		})
	}
	if s.cache, err = raft.NewLogCache(64, s.disk); err != nil {
		return fmt.Errorf("make log cache: %w", err)
	}
	rc := s.cfg.raft()
	rc.NotifyCh = s.notify
	if err := s.bootstrap(rc); err != nil {
		return err
	}
	if err := s.hasten(rc); err != nil {
		return err
	}
	s.raft, err = raft.NewRaft(rc, &replica{
		machine: s.machine, proposer: s.proposer, waits: s.waits, hub: s.hub,
		expiry: s.expiry, pusher: s.pusher, roles: s.roles,
	}, s.cache, s.disk, s.cfg.Storage.Snapshots, s.trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	s.disk.raft.Store(s.raft)
	s.members.start(s.raft)
	s.committer = &committer{raft: s.raft, state: s.machine.State, clock: s.clock}
	s.leader = &leaderOf{raft: s.raft, changed: newSignal()}
	s.raft.RegisterObserver(raft.NewObserver(s.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	}))
	return nil
}

// hasten spares the only voter the wait for others.
func (s *Store) hasten(rc *raft.Config) error {
	n, ok := s.trans.(*raft.NetworkTransport)
	if !ok {
		return nil
	}
	only, err := s.onlyVoter(*rc, s.trans)
	if err == nil && only {
		e := &eager{NetworkTransport: n, rpcs: make(chan raft.RPC, 1)}
		s.trans = e
		go e.urge(s.closed)
	}
	return err
}

// bootstrap founds a cluster of this one peer, if that was asked for and the
// storage is empty.
func (s *Store) bootstrap(rc *raft.Config) error {
	used, err := raft.HasExistingState(s.disk, s.disk, s.cfg.Storage.Snapshots)
	if err != nil {
		return fmt.Errorf("look for existing state: %w", err)
	}
	if used || !s.cfg.Bootstrap {
		return nil
	}
	first := raft.Configuration{Servers: []raft.Server{{ID: rc.LocalID, Address: s.trans.LocalAddr()}}}
	if err := raft.BootstrapCluster(rc, s.disk, s.disk, s.cfg.Storage.Snapshots, s.trans, first); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// Run serves proposals, reads and other peers until ctx ends; then it hands
// over the lead, if it has it.
func (s *Store) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, part := range []func(context.Context){
		s.send, s.leading.run, s.following.run, s.report, s.lead, s.follow, s.snapshots, s.verify,
	} {
		all.Go(func() { part(inner) })
	}
	failed := make(chan error, 1)
	all.Go(func() { failed <- s.link.run(inner) })
	var err error
	select {
	case <-ctx.Done():
		if terr := s.TransferLeadership(); terr != nil {
			s.log.WarnContext(ctx, "could not hand over the lead of the store", "err", terr)
		}
	case err = <-failed:
	}
	cancel()
	return err
}

// follow turns raft's news of a leader into a signal.
func (s *Store) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.observed:
			s.leader.changed.raise()
		}
	}
}

// verify makes one linearizable read, so that Verified does not wait for a
// user's.
func (s *Store) verify(ctx context.Context) {
	for !s.verified.Load() && ctx.Err() == nil && !s.isClosed() {
		_, _ = s.Current(ctx) // tries for some seconds, and again
	}
}

// answer answers other peers.
func (s *Store) answer(ctx context.Context, from member.ServerID, kind call, payload []byte) ([]byte, error) {
	switch kind {
	case callPing:
		return s.pong(payload)
	case callPropose:
		return nil, s.commitFor(ctx, from, payload)
	case callReadIndex:
		index, err := s.leading.join(ctx)
		return appendUint64(index), err
	case callReport:
		var rep report
		if json.Unmarshal(payload, &rep) != nil {
			return nil, errRefused
		}
		return nil, s.heard(ctx, from, rep)
	case callResign:
		return nil, s.resigned(from, payload)
	default:
		return nil, errRefused
	}
}

// Close ends the peer's part in consensus and frees its storage. Run must
// have returned, or it fails with what it still does.
func (s *Store) Close() error {
	err := store.ErrClosed
	s.close.Do(func() {
		err = nil
		commit := s.raft.CommitIndex()
		close(s.closed)
		s.committer.close()
		if t, ok := s.trans.(raft.WithClose); ok {
			err = t.Close()
		}
		err = errors.Join(err, s.raft.Shutdown().Error())
		s.committer.all.Wait()
		err = errors.Join(err, s.disk.saveCommit(commit), s.cfg.Storage.Close())
		s.proposer.close()
		s.hub.close()
	})
	return err
}

func (s *Store) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Local implements [store.Store].
func (s *Store) Local() store.View { return s.machine.State().View }

// At implements [store.Store].
func (s *Store) At(rev store.Revision) (store.View, error) { return s.machine.At(rev) }

// Wait implements [store.Store].
func (s *Store) Wait(ctx context.Context, rev store.Revision) error {
	return s.waits.revision(ctx, rev)
}

// Verified implements [store.Store].
func (s *Store) Verified() bool { return s.verified.Load() }

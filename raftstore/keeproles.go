package raftstore

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
	"skein.dev/skein/raftstore/fsm"
)

// Assignments returns who holds which role, as this replica knows it, sorted
// by role. A role that was never assigned is missing.
func (s *Store) Assignments() []role.Assignment {
	var out []role.Assignment
	for _, a := range s.machine.State().Roles() {
		out = append(out, a.Assignment)
	}
	return out
}

// AssignedAt is the revision at which a role was last assigned: its holder
// decides nothing before it has seen the data at it. 0: never.
func (s *Store) AssignedAt(name role.Name) store.Revision {
	return s.machine.State().Role(name).Revision
}

// RoleChanged returns a channel that is closed at the next change of an
// assignment; take it before Assignments.
func (s *Store) RoleChanged() <-chan struct{} { return s.roles.next() }

// ReportProgress says that the holder of a role does its work; a holder that
// does not say so every 500 ms for some seconds loses it.
func (s *Store) ReportProgress(name role.Name, epoch uint64) { s.progress.note(name, epoch) }

// Resign gives a role back, because its holder stops or has panicked: it goes
// to another peer, if there is one. It returns when the leader knows.
func (s *Store) Resign(ctx context.Context, name role.Name, epoch uint64) error {
	b, err := json.Marshal(role.Fence{Role: name, Epoch: epoch})
	if err != nil {
		return fmt.Errorf("resign %s: %w", name, err)
	}
	for {
		leader := s.leader.id()
		switch leader {
		case "":
			err = store.ErrNoQuorum
		case s.cfg.ServerID:
			err = s.resigned(leader, b)
		default:
			_, err = s.link.ask(ctx, leader, callResign, b)
		}
		if err == nil || s.isClosed() {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("resign %s: %w", name, err)
		case <-s.closed:
			return store.ErrClosed
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// resigned is the leader's side of Resign.
func (s *Store) resigned(from member.ServerID, payload []byte) error {
	var f role.Fence
	if json.Unmarshal(payload, &f) != nil {
		return errRefused
	}
	if s.term.Load() == nil {
		return errNotLeader
	}
	name, ok := s.members.name(from)
	if !ok {
		return errRefused
	}
	if a := s.machine.State().Role(f.Role); a.Epoch == f.Epoch && a.Holder == string(name) {
		s.reports.resign(f, name)
	}
	return nil
}

// keepRoles assigns the roles while this peer leads.
func (s *Store) keepRoles(ctx context.Context, t *term) {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return
	}
	since := map[role.Name]fsm.Assigned{}
	seen := map[role.Name]time.Time{}
	for {
		news, members := s.reports.news.next(), s.members.change()
		st := s.machine.State()
		now := time.Now()
		for _, a := range st.Roles() {
			if since[a.Role] != a {
				since[a.Role], seen[a.Role] = a, now
			}
		}
		book := s.reports.book(now, st.Roles(), seen)
		book.begun, book.timing, book.leader = t.begun, s.cfg.Timing, s.cfg.Name
		book.peers = s.reports.peers(s.members.all())
		if a, ok := book.next(); ok && st.Incarnation != "" {
			s.log.InfoContext(ctx, "assigns role", "role", string(a.Role), "holder", a.Holder, "epoch", a.Epoch+1)
			s.command(ctx, fsm.Command{Assign: &a})
			if s.machine.State() != st {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-members:
		case <-time.After(s.cfg.Timing.Report):
		}
	}
}

// book collects what the leader knows of the roles' holders.
func (r *reports) book(now time.Time, assigned []fsm.Assigned, seen map[role.Name]time.Time) roleBook {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := roleBook{now: now, held: map[role.Name]tenure{}}
	for _, a := range assigned {
		b.held[a.Role] = tenure{
			assigned: a.Assignment, since: seen[a.Role],
			progress: r.progress[role.Fence{Role: a.Role, Epoch: a.Epoch}],
			resigned: maps.Clone(r.resigned[a.Role]),
		}
	}
	return b
}

// peers are the members with what their reports say.
func (r *reports) peers(all []Member) []rolePeer {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []rolePeer
	for _, m := range all {
		rep := r.by[m.ServerID]
		out = append(out, rolePeer{name: m.Name, dead: m.Dead || m.Leaving, declines: m.Declines, reporting: rep.since, heard: rep.at})
	}
	return slices.DeleteFunc(out, func(p rolePeer) bool { return p.name == "" })
}

package fsm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// Jump is how far a recovery moves the revision.
const Jump = 1 << 30

// Machine applies log entries. One goroutine applies; any number read.
type Machine struct {
	state atomic.Pointer[State]
	past  history

	// The rest is the applying goroutine's.
	sum  uint64 // of the entries' own hashes: can be computed again from the data
	seen sessions
}

// New returns a machine as every cluster starts: revision 1, no data.
func New(l Limits) *Machine {
	m := &Machine{past: history{limits: l.withDefaults()}, seen: newSessions()}
	m.install(&State{View: View{rev: 1}}, 0)
	return m
}

// install makes s the machine's state and its only past.
func (m *Machine) install(s *State, sum uint64) {
	m.sum = sum
	m.past.reset(record{rev: s.rev, clock: s.Clock, hash: s.Hash, root: s.root})
	m.state.Store(s)
}

// State returns what the machine has come to.
func (m *Machine) State() *State { return m.state.Load() }

// Outcome is what became of one item of an entry.
type Outcome struct {
	// ID is the request's; zero for a command.
	ID RequestID
	// Duplicate says that ID was applied before, and its fate told then.
	Duplicate bool
	Result    store.Result
	Err       error // store.ErrFenced, store.ErrTooLarge, ErrMalformed
}

// Applied is what became of an entry.
type Applied struct {
	// Events are all changes, in order.
	Events   []*store.Event
	Outcomes []Outcome
	// Roles says that an assignment changed, Reset that history was cut.
	Roles, Reset bool
	// Err is why the whole entry was refused; it changed nothing.
	Err error
}

// Apply applies the entry at index. An index that is not above the last one
// changes nothing: the entry was applied already.
func (m *Machine) Apply(index uint64, data []byte) Applied {
	old := m.state.Load()
	if index <= old.Index {
		return Applied{}
	}
	s := *old
	s.Index = index
	if s.Frozen != nil {
		return Applied{Err: s.Frozen}
	}
	env, err := decode(data)
	if err != nil {
		if data != nil && isTooNew(err) {
			s.Index = old.Index // the newer program will apply it
			s.Frozen = err
		}
		m.state.Store(&s)
		return Applied{Err: err}
	}
	s.Clock = max(s.Clock, env.clock)
	var a Applied
	a.Outcomes = make([]Outcome, 0, len(env.items))
	for _, it := range env.items {
		a.Outcomes = append(a.Outcomes, m.item(&s, it, &a))
	}
	m.state.Store(&s)
	return a
}

func (m *Machine) item(s *State, it Item, a *Applied) Outcome {
	d := reader{b: it}
	k := kind(d.byte())
	if k != kindTxn {
		c, err := decodeCommand(k, &d)
		if err != nil {
			return Outcome{Err: err}
		}
		return m.command(s, c, a)
	}
	r, err := decodeRequest(&d)
	if r.ID.Peer == "" {
		return Outcome{Err: fmt.Errorf("%w: request without id", ErrMalformed)}
	}
	if !m.seen.admit(r.ID, r.Floor) {
		return Outcome{ID: r.ID, Duplicate: true}
	}
	if err != nil {
		return Outcome{ID: r.ID, Err: err}
	}
	res, err := m.txn(s, r.Txn, a)
	return Outcome{ID: r.ID, Result: res, Err: err}
}

func (m *Machine) txn(s *State, t store.Txn, a *Applied) (store.Result, error) {
	if f := t.Fence; f != nil {
		if now := s.Role(f.Role); now.Epoch != f.Epoch {
			return store.Result{}, fmt.Errorf("%s, now at epoch %d: %w", f, now.Epoch, store.ErrFenced)
		}
	}
	for _, g := range t.Guards {
		e := s.root.get(g.Key)
		if (e == nil && g.Mod != 0) || (e != nil && e.Mod != g.Mod) {
			return store.Result{Revision: s.rev, Failed: e}, nil
		}
	}
	rev := s.rev + 1
	res := store.Result{
		Held:    true,
		Entries: make([]*store.Entry, len(t.Ops)),
		Prev:    make([]*store.Entry, len(t.Ops)),
	}
	root := s.root
	var events []*store.Event
	for i, o := range t.Ops {
		prev := root.get(o.Key)
		res.Prev[i] = prev
		if o.Delete {
			if prev == nil {
				continue
			}
			root = root.without(o.Key)
		} else {
			e := &store.Entry{Key: o.Key, Value: o.Value, Create: rev, Mod: rev, TTL: o.TTL}
			if prev != nil {
				e.Key, e.Create = prev.Key, prev.Create
			}
			res.Entries[i] = e
			root = root.with(e)
		}
		m.sum += entryHash(res.Entries[i]) - entryHash(prev)
		events = append(events, &store.Event{Revision: rev, Key: o.Key, Entry: res.Entries[i], Prev: prev})
	}
	if len(events) > 0 {
		s.root = root
		m.advance(s, events, 0)
		a.Events = append(a.Events, events...)
	}
	res.Revision = s.rev
	return res, nil
}

// advance takes the next revision. extra is what changed beside the data.
func (m *Machine) advance(s *State, events []*store.Event, extra uint64) {
	s.rev++
	s.Hash = mix(s.Hash, m.sum, uint64(s.rev), extra)
	m.past.push(record{rev: s.rev, clock: s.Clock, hash: s.Hash, root: s.root, events: events})
}

func (m *Machine) command(s *State, c Command, a *Applied) Outcome {
	before := s.rev
	switch {
	case c.Assign != nil:
		a.Roles = m.assign(s, *c.Assign) || a.Roles
	case c.Compact != nil:
		if s.rev == c.Compact.Expect {
			m.advance(s, nil, 0)
			s.Compacted = s.rev
			m.past.compact()
		}
	case c.Recover != nil:
		m.recover(s, *c.Recover, a)
	case c.Level > s.Level && c.Level <= MaxLevel:
		s.Level = c.Level
		m.advance(s, nil, uint64(c.Level))
	}
	return Outcome{Result: store.Result{Revision: s.rev, Held: s.rev != before}}
}

func (m *Machine) assign(s *State, c Assign) bool {
	now := s.Role(c.Role)
	if c.Role == "" || now.Epoch != c.Epoch {
		return false
	}
	m.set(s, Assigned{
		Assignment: role.Assignment{Role: c.Role, Holder: c.Holder, Epoch: now.Epoch + 1},
		Revision:   s.rev + 1,
	})
	m.advance(s, nil, xxhash.Sum64String(string(c.Role)+"\x00"+c.Holder)+now.Epoch+1)
	return true
}

func (m *Machine) set(s *State, a Assigned) {
	s.roles = slices.DeleteFunc(slices.Clone(s.roles), func(b Assigned) bool { return b.Role == a.Role })
	s.roles = append(s.roles, a)
	slices.SortFunc(s.roles, func(a, b Assigned) int { return cmp.Compare(a.Role, b.Role) })
}

// recover starts a new incarnation. No role survives a jump: whoever held one
// held it of a cluster that is no more.
func (m *Machine) recover(s *State, c Recover, a *Applied) {
	if c.Incarnation == "" || (!c.Jump && s.Incarnation != "") {
		return
	}
	s.Incarnation = c.Incarnation
	if !c.Jump {
		m.advance(s, nil, xxhash.Sum64String(c.Incarnation))
		return
	}
	s.rev += Jump
	for _, r := range slices.Clone(s.roles) {
		m.set(s, Assigned{Assignment: role.Assignment{Role: r.Role, Epoch: r.Epoch + 1}, Revision: s.rev})
	}
	m.seen = newSessions()
	s.Hash = mix(s.Hash, m.sum, uint64(s.rev), xxhash.Sum64String(c.Incarnation))
	s.Compacted = s.rev
	m.past.reset(record{rev: s.rev, clock: s.Clock, hash: s.Hash, root: s.root})
	a.Roles, a.Reset = true, true
}

// entryHash stands for one entry; nil is 0.
func entryHash(e *store.Entry) uint64 {
	if e == nil {
		return 0
	}
	return mix(xxhash.Sum64String(e.Key), xxhash.Sum64(e.Value), uint64(e.Create), uint64(e.Mod)) ^ uint64(e.TTL)
}

func mix(a, b, c, d uint64) uint64 {
	var w [32]byte
	binary.BigEndian.PutUint64(w[0:], a)
	binary.BigEndian.PutUint64(w[8:], b)
	binary.BigEndian.PutUint64(w[16:], c)
	binary.BigEndian.PutUint64(w[24:], d)
	return xxhash.Sum64(w[:])
}

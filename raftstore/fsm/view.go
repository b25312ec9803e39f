package fsm

import (
	"iter"
	"strings"

	"skein.dev/skein/api/role"
	"skein.dev/skein/api/store"
)

// View is the data at one revision. It implements [store.View].
type View struct {
	rev  store.Revision
	root *node
}

var _ store.View = View{}

// Revision implements [store.View].
func (v View) Revision() store.Revision { return v.rev }

// Get implements [store.View].
func (v View) Get(key string) *store.Entry { return v.root.get(key) }

// Ascend implements [store.View].
func (v View) Ascend(prefix, from string) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		v.root.ascend(max(prefix, from), func(e *store.Entry) bool {
			return strings.HasPrefix(e.Key, prefix) && yield(e)
		})
	}
}

// Count implements [store.View].
func (v View) Count(prefix, from string) int {
	upper := int(v.root.len())
	if end, ok := after(prefix); ok {
		upper = v.root.rank(end)
	}
	return max(0, upper-v.root.rank(max(prefix, from)))
}

// Len is the number of keys.
func (v View) Len() int { return int(v.root.len()) }

// State is all that readers may know of a machine, as of one applied entry.
// It is immutable.
type State struct {
	View
	// Index is the log index of the last entry applied.
	Index uint64
	// Hash stands for everything that led to Revision; peers at the same
	// revision and incarnation must agree on it.
	Hash uint64
	// Incarnation changes when the cluster is recovered or restored; empty
	// in a machine that no cluster has founded yet.
	Incarnation string
	// Level is the feature level that all peers have agreed to use.
	Level uint32
	// Clock is the mesh's own time in nanoseconds: it only grows, and only
	// while there is a leader that writes.
	Clock int64
	// Compacted is the revision of the last compaction entry.
	Compacted store.Revision
	// Frozen is why the machine refuses all further entries; nil if it works.
	Frozen error

	roles []Assigned
}

// Assigned is a role's record and the revision that wrote it.
type Assigned struct {
	role.Assignment
	Revision store.Revision
}

// Roles returns the roles' records sorted by name. Read only.
func (s *State) Roles() []Assigned { return s.roles }

// Role returns the record of one role; the zero Epoch means never assigned.
func (s *State) Role(name role.Name) Assigned {
	for _, a := range s.roles {
		if a.Role == name {
			return a
		}
	}
	return Assigned{Assignment: role.Assignment{Role: name}}
}

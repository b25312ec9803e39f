// Package store is the contract between the replicated store and those who
// keep cluster data in it.
//
// Its invariant: what a View shows never changes, and every peer that has
// applied revision N shows the same data at N.
package store

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"skein.dev/skein/api/role"
)

// Revision numbers the states of the store: it grows by one with each
// transaction that changed something and is equal on all peers.
// The first revision a store ever shows is 1; 0 means "none".
type Revision int64

// Entry is one key at one revision. It is immutable and shared; callers
// must not write to Value.
type Entry struct {
	Key    string
	Value  []byte
	Create Revision // the transaction that created the key
	Mod    Revision // the transaction that wrote Value
	TTL    int64    // seconds after Mod at which the leader deletes the key; 0: never

	decoded atomic.Value
}

// Decoded returns what decode made of e the first time it was called for e;
// the result is shared by all callers, who must treat it as read-only.
// Concurrent first calls may each decode; all return the same value.
// All callers for one key must pass an equivalent decode with one result type.
func (e *Entry) Decoded(decode func(*Entry) (any, error)) (any, error) {
	if v := e.decoded.Load(); v != nil {
		return v, nil
	}
	v, err := decode(e)
	if err != nil {
		return nil, err
	}
	if !e.decoded.CompareAndSwap(nil, v) {
		v = e.decoded.Load()
	}
	return v, nil
}

// Event is one change of one key. It is immutable and shared.
type Event struct {
	Revision Revision
	Key      string
	Entry    *Entry // nil: the key was deleted
	Prev     *Entry // nil: the key was created

	shared atomic.Value
}

// Shared returns what share made of e the first time, like [Entry.Decoded]:
// the place for one encoding of an event that serves a thousand watches.
func (e *Event) Shared(share func(*Event) (any, error)) (any, error) {
	if v := e.shared.Load(); v != nil {
		return v, nil
	}
	v, err := share(e)
	if err != nil {
		return nil, err
	}
	if !e.shared.CompareAndSwap(nil, v) {
		v = e.shared.Load()
	}
	return v, nil
}

// View is the whole state at one revision. It is immutable, costs nothing to
// hold for a while, and is safe for concurrent use.
type View interface {
	Revision() Revision
	// Get returns the entry of key, or nil.
	Get(key string) *Entry
	// Ascend yields the entries with the prefix whose key is >= from, in key order.
	Ascend(prefix, from string) iter.Seq[*Entry]
	// Count returns how many keys have the prefix and are >= from.
	Count(prefix, from string) int
}

// Guard is a condition of a transaction: key must stand at revision Mod, and
// with Mod 0 must not exist.
type Guard struct {
	Key string
	Mod Revision
}

// Op is one write: a put, or with Delete set a removal. Deleting an absent
// key is no change.
type Op struct {
	Key    string
	Value  []byte
	TTL    int64 // seconds; 0: never expires
	Delete bool
}

// Txn is applied whole or not at all. Its order is: the fence, then all
// guards, then all ops, which take effect at one revision.
type Txn struct {
	Guards []Guard
	Ops    []Op
	Fence  *role.Fence // nil: not fenced
}

// Result is the fate of a transaction that reached the log.
type Result struct {
	// Revision is that of the ops, or the present one if nothing changed.
	Revision Revision
	// Held says that all guards held and the ops were applied.
	Held bool
	// Failed is, when a guard did not hold, the first such guard's key as it
	// stands now; nil when that key does not exist.
	Failed *Entry
	// Entries are the puts of the transaction as stored, in order of Ops,
	// nil for deletes; Prev what stood there before.
	Entries, Prev []*Entry
}

// Store is one peer's access to the replicated store. All methods are safe
// for concurrent use.
type Store interface { //nolint:interfacebloat // one replica: splitting what all its users need would only rename it
	// Propose commits t and returns its fate as the local replica applied
	// it: once Propose has returned, Local shows the change. A retry inside
	// Propose cannot apply t twice. It blocks until then or until ctx ends;
	// an error of ErrUnknown's kind means that t may or may not be applied.
	// The caller must not change t's slices or values afterwards.
	Propose(ctx context.Context, t Txn) (Result, error)
	// Local is the newest state this replica has applied, without waiting.
	Local() View
	// Current is a state at least as new as every write acknowledged
	// anywhere before the call (a linearizable read). It fails with
	// ErrNoQuorum if a majority of voters cannot be asked before ctx ends.
	Current(ctx context.Context) (View, error)
	// At is the state at exactly rev: ErrCompacted if it is no longer kept,
	// ErrFuture if the replica has not reached it.
	At(rev Revision) (View, error)
	// Wait blocks until the replica has applied rev or ctx ends.
	Wait(ctx context.Context, rev Revision) error
	// Watch follows the keys with the prefix (or with exact set, that very
	// key) from the first change after rev on. It fails with ErrCompacted
	// if those changes are no longer kept.
	Watch(prefix string, exact bool, rev Revision) (Watch, error)
	// Verified reports whether this replica has succeeded with a
	// linearizable read since it started: until then what it shows may be
	// old, and nobody may delete by it.
	Verified() bool
}

// Watch is a cursor on the history of changes; it buffers nothing, so a slow
// reader costs nothing and is told ErrCompacted when history has passed it.
type Watch interface {
	// Next blocks until there are changes and returns those of one or more
	// whole transactions, in order, and the revision through which the
	// watch has now seen everything. With wait false it returns at once,
	// possibly with no events and a higher through. It ends with
	// ErrCompacted, ErrClosed, or the error of ctx.
	Next(ctx context.Context, wait bool) (events []*Event, through Revision, err error)
	// Close frees the cursor and ends a Next under way.
	Close()
}

// The errors that callers branch on.
var (
	ErrCompacted  = errors.New("revision is no longer kept")
	ErrFuture     = errors.New("revision is not reached yet")
	ErrNoQuorum   = errors.New("no quorum: a majority of the voters is out of reach")
	ErrUnknown    = errors.New("outcome unknown: the proposal may or may not be applied")
	ErrTooLarge   = errors.New("value is too large")
	ErrOverloaded = errors.New("too many proposals are waiting")
	ErrFenced     = errors.New("fenced: the role has moved to another holder")
	ErrClosed     = errors.New("store is closed")
	ErrNoSpace    = errors.New("no space left for the log")
)

package fsm

import (
	"strings"

	"skein.dev/skein/api/store"
)

// node is the root of a persistent ordered tree: nobody changes a node that
// another can see, so a root is a snapshot and keeping it costs the nodes on
// the paths that were written since (about 17 × 32 bytes a write at 100,000
// keys; a B-tree of the usual degree copies some 3 KiB). It is a
// weight-balanced tree, because the sizes that balance it also answer Count
// in logarithmic time; Δ=3, Γ=2 are the pair that Hirai and Yamamoto ("Balancing
// weight-balanced trees", 2011) proved sound.
type node struct {
	entry       *store.Entry
	left, right *node
	size        int32
}

const (
	delta = 3
	gamma = 2
)

func (n *node) len() int32 {
	if n == nil {
		return 0
	}
	return n.size
}

func join(e *store.Entry, l, r *node) *node {
	return &node{entry: e, left: l, right: r, size: l.len() + r.len() + 1}
}

// balance joins two trees of which one may be heavier than the other by the
// one key that was just put in or taken out.
func balance(e *store.Entry, l, r *node) *node {
	lw, rw := l.len()+1, r.len()+1
	switch {
	case rw > delta*lw:
		if r.left.len()+1 < gamma*(r.right.len()+1) {
			return join(r.entry, join(e, l, r.left), r.right)
		}
		m := r.left
		return join(m.entry, join(e, l, m.left), join(r.entry, m.right, r.right))
	case lw > delta*rw:
		if l.right.len()+1 < gamma*(l.left.len()+1) {
			return join(l.entry, l.left, join(e, l.right, r))
		}
		m := l.right
		return join(m.entry, join(l.entry, l.left, m.left), join(e, m.right, r))
	default:
		return join(e, l, r)
	}
}

func (n *node) get(key string) *store.Entry {
	for n != nil {
		switch c := strings.Compare(key, n.entry.Key); {
		case c < 0:
			n = n.left
		case c > 0:
			n = n.right
		default:
			return n.entry
		}
	}
	return nil
}

// with returns the tree that also has e, in place of an entry of its key.
func (n *node) with(e *store.Entry) *node {
	if n == nil {
		return &node{entry: e, size: 1}
	}
	switch c := strings.Compare(e.Key, n.entry.Key); {
	case c < 0:
		return balance(n.entry, n.left.with(e), n.right)
	case c > 0:
		return balance(n.entry, n.left, n.right.with(e))
	default:
		return &node{entry: e, left: n.left, right: n.right, size: n.size}
	}
}

// without returns the tree that lacks key, which must be in n.
func (n *node) without(key string) *node {
	switch c := strings.Compare(key, n.entry.Key); {
	case c < 0:
		return balance(n.entry, n.left.without(key), n.right)
	case c > 0:
		return balance(n.entry, n.left, n.right.without(key))
	case n.left == nil:
		return n.right
	case n.right == nil:
		return n.left
	default:
		next := n.right
		for next.left != nil {
			next = next.left
		}
		return balance(next.entry, n.left, n.right.without(next.entry.Key))
	}
}

// rank is the number of keys below key.
func (n *node) rank(key string) int {
	below := int32(0)
	for n != nil {
		if key <= n.entry.Key {
			n = n.left
			continue
		}
		below += n.left.len() + 1
		n = n.right
	}
	return int(below)
}

// ascend yields the entries from key from on, in order, until yield says no.
func (n *node) ascend(from string, yield func(*store.Entry) bool) bool {
	if n == nil {
		return true
	}
	if from < n.entry.Key && !n.left.ascend(from, yield) {
		return false
	}
	if from <= n.entry.Key && !yield(n.entry) {
		return false
	}
	return n.right.ascend(from, yield)
}

// after is the least string above all that have the prefix; ok is false when
// there is none.
func after(prefix string) (end string, ok bool) {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1]), true
		}
	}
	return "", false
}

// build makes a tree of entries in ascending order, in linear time.
func build(sorted []*store.Entry) *node {
	if len(sorted) == 0 {
		return nil
	}
	mid := len(sorted) / 2
	return join(sorted[mid], build(sorted[:mid]), build(sorted[mid+1:]))
}

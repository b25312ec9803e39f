package fsm

import (
	"fmt"
	"testing"

	"skein.dev/skein/api/store"
)

func (n *node) depth() int {
	if n == nil {
		return 0
	}
	return 1 + max(n.left.depth(), n.right.depth())
}

func TestTreeStaysShallow(t *testing.T) {
	var n *node
	for i := range 1 << 14 { // ascending keys: the worst case of a tree without balance
		n = n.with(&store.Entry{Key: fmt.Sprintf("%06d", i)})
	}
	if got := n.depth(); got > 30 {
		t.Errorf("depth %d of %d keys", got, n.len())
	}
	for i := range 1 << 13 {
		n = n.without(fmt.Sprintf("%06d", i))
	}
	if got := n.depth(); got > 28 {
		t.Errorf("depth %d of %d keys after deletes", got, n.len())
	}
}

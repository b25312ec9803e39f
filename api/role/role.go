// Package role names the leaderships of the mesh and carries a holder's
// fence from its decision to the store.
//
// Its invariant: at most one holder per epoch, and epochs only grow, so a
// write that carries an old epoch can be told and refused.
package role

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Name is a leadership that one peer holds at a time.
type Name string

// The roles of the mesh. The store's own leader is raft's and no role here.
const (
	Scheduler   Name = "scheduler"
	Controllers Name = "controllers"
)

// All returns every role the store leader assigns.
func All() []Name { return []Name{Scheduler, Controllers} }

// Fence is what a holder's writes carry: the store refuses them once the role
// has a later epoch.
type Fence struct {
	Role  Name
	Epoch uint64
}

// Assignment is one role's record in the store. Holder is a peer's name,
// empty while the role is not assigned.
type Assignment struct {
	Role   Name
	Holder string
	Epoch  uint64
}

// Header is the HTTP header in which a fence travels to the API server, which
// honours it only from the identities that may hold the role.
const Header = "Skein-Fence"

// String is the header's value, "scheduler=7".
func (f Fence) String() string { return string(f.Role) + "=" + strconv.FormatUint(f.Epoch, 10) }

// ErrBadFence is wrapped by the errors of Parse.
var ErrBadFence = errors.New("malformed fence")

// Parse reads what [Fence.String] wrote.
func Parse(s string) (Fence, error) {
	name, epoch, ok := strings.Cut(s, "=")
	n, err := strconv.ParseUint(epoch, 10, 64)
	if !ok || name == "" || err != nil {
		return Fence{}, fmt.Errorf("%w %q: want role=epoch", ErrBadFence, s)
	}
	return Fence{Role: Name(name), Epoch: n}, nil
}

type contextKey struct{}

// With returns a context whose writes carry f.
func With(ctx context.Context, f Fence) context.Context {
	return context.WithValue(ctx, contextKey{}, f)
}

// From returns the fence that ctx carries.
func From(ctx context.Context) (Fence, bool) {
	f, ok := ctx.Value(contextKey{}).(Fence)
	return f, ok
}

// Package registry turns the declaration of a kind into the REST storage that
// serves it.
//
// Its invariant: there is one generic registry; a kind is data. What a kind
// needs beyond its declaration becomes a field here, never a second mechanism.
package registry

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kind declares one resource: what it is called, how it is shown, and the
// rules for changing it. All functions get the hub type, the one the kind is
// stored as; nil functions mean "no rule".
type Kind struct {
	// Resource is the hub version's group, version and plural name.
	Resource   schema.GroupVersionResource
	Kind       string
	Singular   string
	ShortNames []string
	Categories []string
	Namespaced bool
	// Thin says that objects are many or large and seldom looked at:
	// informers read them when they are asked for, and what requests have had
	// decoded is forgotten when the server comes to rest.
	Thin bool

	New     func() runtime.Object
	NewList func() runtime.Object

	// Versions are further served versions of this resource, possibly of
	// another group, each converted from and to the hub.
	Versions []Version

	// Columns are the printer columns after Name; Row gives their cells.
	Columns []metav1.TableColumnDefinition
	Row     func(obj runtime.Object) []any
	// NameInRow says that Columns and Row have the name themselves, where it
	// does not come first (events).
	NameInRow bool
	// Marked returns the names among some objects that are shown as the
	// default of their kind.
	Marked func(objs []runtime.Object) map[string]bool

	// Select returns the selectable fields beside metadata.name and
	// metadata.namespace.
	Select func(obj runtime.Object) fields.Set
	// Unselectable are those of them that watches carry and requests may not
	// name.
	Unselectable []string

	// Default fills in what the user left out; it runs on decoding.
	Default func(obj runtime.Object)

	Strategy Strategy
	// Status is the strategy of the status subresource; nil: none.
	// Without it users may write the status with the object.
	Status *Strategy
	// Scale tells how the scale subresource reads and writes the object; nil: none.
	Scale *Scale

	// TTL returns after how many seconds the store deletes obj; 0 never.
	TTL func(obj runtime.Object) uint64
	// Grace decides how many seconds of grace a deletion gets; nil: the kind
	// is deleted at once. It returns false if the object may go now.
	Grace func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool
	// ReturnDeleted makes deletions answer with the object that is gone, not
	// with a Status. Deletions with a grace or in two steps always do.
	ReturnDeleted bool
	// Subresources are further strategies of the same object by the names of
	// their paths (certificatesigningrequests/approval).
	Subresources map[string]*Strategy
	// Finalize marks kinds that are deleted in two steps by a finalizer of
	// their own spec (namespaces).
	Finalize *Strategy
}

// Version is a served version other than the hub.
type Version struct {
	Resource schema.GroupVersionResource
	New      func() runtime.Object
	NewList  func() runtime.Object
	// FromHub and ToHub convert a single object; lists follow from them.
	FromHub func(hub, out runtime.Object) error
	ToHub   func(in, hub runtime.Object) error
	// FieldLabel maps field labels of this version where they differ; "" refuses one.
	FieldLabel func(label string) (hubLabel string)
}

// Strategy are the rules of create and update. Prepare functions change obj
// in place before validation (drop what the user may not set, count
// generations); validation returns upstream's field paths and wording.
type Strategy struct {
	PrepareCreate func(ctx context.Context, obj runtime.Object)
	PrepareUpdate func(ctx context.Context, obj, old runtime.Object)
	Validate      func(ctx context.Context, obj runtime.Object) field.ErrorList
	// ValidateUpdate gets the result of Validate's rules as well: the
	// registry runs Validate only on create.
	ValidateUpdate func(ctx context.Context, obj, old runtime.Object) field.ErrorList
	Warn           func(ctx context.Context, obj, old runtime.Object) []string
	// CreateOnUpdate lets PUT create; NeedsVersion makes resourceVersion
	// mandatory in PUT.
	CreateOnUpdate bool
	NeedsVersion   bool
	// Reset are the paths of further fields, joined by dots, that the strategy
	// does not let users set, for server-side apply.
	Reset []string
}

// Scale maps a kind to autoscaling/v1 Scale.
type Scale struct {
	Replicas func(obj runtime.Object) (spec, status int32, selector string)
	Set      func(obj runtime.Object, replicas int32)
}

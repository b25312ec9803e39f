package run

import (
	"fmt"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// KeyOf is the key of an API object.
func KeyOf(obj any) (Key, bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return Key{}, false
	}
	return Key{Namespace: m.GetNamespace(), Name: m.GetName()}, true
}

// OwnerKeys maps an object to its controller, if that is of kind.
func OwnerKeys(kind string) func(any) []Key {
	return func(obj any) []Key {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil
		}
		ref := metav1.GetControllerOf(m)
		if ref == nil || ref.Kind != kind {
			return nil
		}
		return []Key{{Namespace: m.GetNamespace(), Name: ref.Name}}
	}
}

// KeysOf are the keys of objects.
func KeysOf[T metav1.Object](all []T) []Key {
	keys := make([]Key, 0, len(all))
	for _, o := range all {
		keys = append(keys, Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	}
	return keys
}

// None is for kinds that are read but wake nobody.
func None(any) []Key { return nil }

// Constant maps every object to the one key of a controller whose work is
// not split by object.
func Constant(name string) func(any) []Key {
	keys := []Key{{Name: name}}
	return func(any) []Key { return slices.Clone(keys) }
}

// The indices that several controllers share.
const (
	ownerIndex = "controllers/owner"
	valueIndex = "controllers/by"
)

const orphans = "orphans/"

// IndexByOwner makes the informer answer [Owned]; safe to call again.
func IndexByOwner(inf cache.SharedIndexInformer) error {
	return index(inf, ownerIndex, func(obj any) ([]string, error) {
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, fmt.Errorf("index by owner: %w", err)
		}
		if ref := metav1.GetControllerOfNoCopy(m); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{orphans + m.GetNamespace()}, nil
	})
}

// Owned returns the objects controlled by owner and those of its namespace
// that no controller owns.
func Owned(inf cache.SharedIndexInformer, owner metav1.Object) (owned, orphan []any) {
	ix := inf.GetIndexer()
	owned, _ = ix.ByIndex(ownerIndex, string(owner.GetUID())) // the only error is a missing index, which IndexByOwner made
	orphan, _ = ix.ByIndex(ownerIndex, orphans+owner.GetNamespace())
	return owned, orphan
}

// ControlledBy returns the objects whose controller has the UID.
func ControlledBy(inf cache.SharedIndexInformer, uid types.UID) []any {
	got, _ := inf.GetIndexer().ByIndex(ownerIndex, string(uid)) // as above
	return got
}

// IndexBy makes the informer answer [By] for values of an object; safe to
// call again with the same name.
func IndexBy(inf cache.SharedIndexInformer, name string, values func(any) []string) error {
	return index(inf, valueIndex+"/"+name, func(obj any) ([]string, error) { return values(obj), nil })
}

// By returns the objects with a value under the named index.
func By(inf cache.SharedIndexInformer, name, value string) []any {
	got, _ := inf.GetIndexer().ByIndex(valueIndex+"/"+name, value) // as above
	return got
}

func index(inf cache.SharedIndexInformer, name string, f cache.IndexFunc) error {
	if _, ok := inf.GetIndexer().GetIndexers()[name]; ok {
		return nil
	}
	if err := inf.AddIndexers(cache.Indexers{name: f}); err != nil {
		return fmt.Errorf("add index %s: %w", name, err)
	}
	return nil
}

// StoreRevision is the newest revision that an informer's store shows, 0 if
// unknown.
func StoreRevision(inf cache.SharedIndexInformer) uint64 {
	n, err := strconv.ParseUint(inf.GetIndexer().LastStoreSyncResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

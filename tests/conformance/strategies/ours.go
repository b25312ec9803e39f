package strategies

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"skein.dev/skein/apiserver/kinds"
	"skein.dev/skein/apiserver/registry"
	"skein.dev/skein/apiserver/storage/memstore"
)

// pair is one path of one kind with both sides' rules for it.
type pair struct {
	kind        *registry.Kind
	gvr         schema.GroupVersionResource
	subresource string
	theirs      side
	ours        side
	main        side // upstream's for the kind itself
	// raw are the storages themselves, for what they say of their names.
	theirRaw, ourRaw rest.Storage
	scheme           *registry.Scheme // ours
}

func (p pair) String() string {
	name := p.gvr.GroupResource().String()
	if p.subresource != "" {
		name += "/" + p.subresource
	}
	return name
}

// pairs are all kinds that both serve, and names of those that one side lacks.
func pairs() (out []pair, missing []string, err error) {
	theirs, err := upstream()
	if err != nil {
		return nil, nil, err
	}
	all := kinds.All()
	scheme, err := registry.NewScheme(all)
	if err != nil {
		return nil, nil, fmt.Errorf("make scheme: %w", err)
	}
	options := &registry.Options{Store: memstore.New()}
	for i := range all {
		k := &all[i]
		r, err := registry.New(k, scheme, options)
		if err != nil {
			return nil, nil, fmt.Errorf("make %s: %w", k.Kind, err)
		}
		main := storeOf(theirs[k.Resource.GroupVersion()][k.Resource.Resource])
		for path, raw := range r.Paths {
			if strings.HasSuffix(path, "/scale") {
				continue // another kind, whose rules are the generic ones
			}
			theirRaw, ok := theirs[k.Resource.GroupVersion()][path]
			if !ok {
				missing = append(missing, k.Resource.Group+"/"+path)
				continue
			}
			mine, other := storeOf(raw), storeOf(theirRaw)
			if mine == nil || other == nil {
				missing = append(missing, k.Resource.Group+"/"+path)
				continue
			}
			p := pair{kind: k, gvr: k.Resource, theirRaw: theirRaw, ourRaw: raw, scheme: scheme}
			if len(path) > len(k.Resource.Resource) {
				p.subresource = path[len(k.Resource.Resource)+1:]
			}
			p.ours = side{internal: func(o runtime.Object) (runtime.Object, error) {
				if k.Default != nil {
					k.Default(o)
				}
				return o, nil
			}, external: func(o runtime.Object, _ schema.GroupVersion) (runtime.Object, error) { return o.DeepCopyObject(), nil }, store: mine}
			p.theirs = side{internal: toInternal, external: toExternal, store: other}
			p.main = side{internal: toInternal, external: toExternal, store: main}
			out = append(out, p)
		}
	}
	return out, missing, nil
}

func toInternal(o runtime.Object) (runtime.Object, error) {
	legacyscheme.Scheme.Default(o)
	gvks, _, err := legacyscheme.Scheme.ObjectKinds(o)
	if err != nil {
		return nil, err
	}
	return legacyscheme.Scheme.UnsafeConvertToVersion(o, schema.GroupVersion{Group: gvks[0].Group, Version: runtime.APIVersionInternal})
}

func toExternal(o runtime.Object, gv schema.GroupVersion) (runtime.Object, error) {
	return legacyscheme.Scheme.ConvertToVersion(o.DeepCopyObject(), gv)
}

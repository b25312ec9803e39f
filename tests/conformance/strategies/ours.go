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
	// main and status are upstream's for the kind itself and for its status,
	// if it has one.
	main, status side
	// raw are the storages themselves, for what they say of their names.
	theirRaw, ourRaw rest.Storage
	// theirScale and ourScale serve the scale subresource, if there is one.
	theirScale, ourScale rest.Storage
	scheme               *registry.Scheme // ours
}

func (p pair) String() string {
	name := p.gvr.GroupResource().String()
	if p.gvr != p.kind.Resource {
		name += "@" + p.gvr.Version
	}
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
		out, missing = pairsOf(r, hubForm(k), theirs[k.Resource.GroupVersion()], scheme, out, missing)
		for j := range k.Versions {
			v := &k.Versions[j]
			out, missing = pairsOf(r, versionForm(k, v), theirs[v.Resource.GroupVersion()], scheme, out, missing)
		}
	}
	return out, missing, nil
}

// form is a version of a kind, and how our rules see objects of it.
type form struct {
	gvr      schema.GroupVersionResource
	internal func(runtime.Object) (runtime.Object, error)
	external func(runtime.Object, schema.GroupVersion) (runtime.Object, error)
}

func hubForm(k *registry.Kind) form {
	return form{k.Resource, func(o runtime.Object) (runtime.Object, error) {
		if k.Default != nil {
			k.Default(o)
		}
		return o, nil
	}, func(o runtime.Object, _ schema.GroupVersion) (runtime.Object, error) { return o.DeepCopyObject(), nil }}
}

func versionForm(k *registry.Kind, v *registry.Version) form {
	hub := hubForm(k)
	return form{v.Resource, func(o runtime.Object) (runtime.Object, error) {
		out := k.New()
		if err := v.ToHub(o, out); err != nil {
			return nil, err
		}
		return hub.internal(out)
	}, func(o runtime.Object, _ schema.GroupVersion) (runtime.Object, error) {
		out := v.New()
		return out, v.FromHub(o.DeepCopyObject(), out)
	}}
}

// pairsOf adds the paths of one version of a kind.
func pairsOf(r *registry.Resource, f form, own map[string]rest.Storage, scheme *registry.Scheme, out []pair, missing []string) ([]pair, []string) {
	upstream := func(path string) side {
		return side{internal: toInternal, external: toExternal, store: storeOf(own[path])}
	}
	plural := f.gvr.Resource
	for path, raw := range r.Paths {
		if strings.HasSuffix(path, "/scale") {
			continue // another kind: TestScalesAreUpstreams
		}
		mine, other := storeOf(raw), storeOf(own[path])
		if mine == nil || other == nil {
			missing = append(missing, f.gvr.Group+"/"+path)
			continue
		}
		out = append(out, pair{
			kind: r.Kind, gvr: f.gvr, subresource: strings.TrimPrefix(strings.TrimPrefix(path, plural), "/"),
			theirRaw: own[path], ourRaw: raw, scheme: scheme, theirScale: own[plural+"/scale"], ourScale: r.Paths[plural+"/scale"],
			ours:   side{internal: f.internal, external: f.external, store: mine},
			theirs: upstream(path), main: upstream(plural), status: upstream(plural + "/status"),
		})
	}
	return out, missing
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

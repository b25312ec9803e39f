package apiserver

import (
	"context"
	"crypto/aes"
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"

	"skein.dev/skein/api/store"
	"skein.dev/skein/apiserver/registry"
)

// sealPrefix begins every sealed value; the key's ID follows.
const sealPrefix = "skein:seal:v1:"

// options says where objects are kept, and which are sealed.
func (s *Server) options() (*registry.Options, error) {
	o := &registry.Options{Store: s.cfg.Store, Log: s.cfg.Log, Claims: s.claims}
	if err := s.makeEncryption(); err != nil {
		return nil, err
	}
	var own value.Transformer
	if len(s.cfg.Sealing) > 0 { // only tests want none
		var err error
		if s.seals, err = newSeals(s.cfg.Store, s.cfg.Sealing); err != nil {
			return nil, err
		}
		own = s.seals
	}
	o.Seal = func(r schema.GroupResource) value.Transformer {
		var t value.Transformer
		if own != nil && r == (schema.GroupResource{Resource: "secrets"}) {
			t = own
		}
		if s.encryption != nil {
			t = s.encryption.transformer(r, t)
		}
		return t
	}
	return o, nil
}

// sealKeysKey is where the store has the keys that were made after the mesh,
// sealed with the keyring's: those are the keys of keys from then on. That the
// keys are in the log before all that they seal is why no peer ever meets a
// value that it cannot open.
const sealKeysKey = "/skein/sealing-keys"

// seals is what a server does to secrets by itself. It implements
// value.Transformer.
type seals struct {
	store store.Store
	own   []SealingKey
	root  value.Transformer // of the keyring's keys alone
}

// opened is what one state of the store says.
type opened struct {
	value.Transformer

	stored []storedSealingKey // the newest first
}

var _ value.Transformer = (*seals)(nil)

func newSeals(s store.Store, own []SealingKey) (*seals, error) {
	root, err := transformers(own)
	return &seals{store: s, own: own, root: root}, err
}

// transformers seals with the first key and opens with all.
func transformers(all []SealingKey) (value.Transformer, error) {
	var keys []value.PrefixTransformer
	for _, k := range all {
		block, err := aes.NewCipher(k.Key)
		if err != nil {
			return nil, fmt.Errorf("sealing key %s: %w", k.ID, err)
		}
		gcm, err := aestransformer.NewGCMTransformer(block)
		if err != nil {
			return nil, fmt.Errorf("sealing key %s: %w", k.ID, err)
		}
		keys = append(keys, value.PrefixTransformer{Prefix: []byte(sealPrefix + k.ID + ":"), Transformer: gcm})
	}
	// What was stored before there was a key is read as it is, and is stale.
	keys = append(keys, value.PrefixTransformer{Transformer: identity.NewEncryptCheckTransformer()})
	return value.NewPrefixTransformers(errors.New("no sealing key opens this value"), keys...), nil
}

// in are the keys as they stand in one state of the store.
func (s *seals) in(ctx context.Context, view store.View) (*opened, error) {
	e := view.Get(sealKeysKey)
	if e == nil {
		return &opened{Transformer: s.root}, nil
	}
	got, err := e.Decoded(func(e *store.Entry) (any, error) { return s.open(ctx, e.Value) })
	if err != nil {
		return nil, err
	}
	o, ok := got.(*opened)
	if !ok {
		return nil, fmt.Errorf("sealing keys are a %T", got)
	}
	return o, nil
}

func (s *seals) open(ctx context.Context, raw []byte) (*opened, error) {
	raw, _, err := s.root.TransformFromStorage(ctx, raw, value.DefaultContext(sealKeysKey))
	if err != nil {
		return nil, fmt.Errorf("open sealing keys: %w", err)
	}
	o := &opened{}
	if err := json.Unmarshal(raw, &o.stored); err != nil {
		return nil, fmt.Errorf("decode sealing keys: %w", err)
	}
	var all []SealingKey
	for _, k := range o.stored {
		all = append(all, SealingKey{ID: k.ID, Key: k.Key})
	}
	o.Transformer, err = transformers(append(all, s.own...))
	return o, err
}

// TransformFromStorage implements value.Transformer.
func (s *seals) TransformFromStorage(ctx context.Context, data []byte, at value.Context) ([]byte, bool, error) {
	o, err := s.in(ctx, s.store.Local())
	if err != nil {
		return nil, false, err
	}
	return o.TransformFromStorage(ctx, data, at)
}

// TransformToStorage implements value.Transformer.
func (s *seals) TransformToStorage(ctx context.Context, data []byte, at value.Context) ([]byte, error) {
	o, err := s.in(ctx, s.store.Local())
	if err != nil {
		return nil, err
	}
	return o.TransformToStorage(ctx, data, at)
}

package apiserver

import (
	"crypto/aes"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
	aestransformer "k8s.io/apiserver/pkg/storage/value/encrypt/aes"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"

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
	own, err := s.sealing()
	if err != nil {
		return nil, err
	}
	s.sealed = own
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

// sealing is what this server does to secrets by itself; nil: nothing.
func (s *Server) sealing() (value.Transformer, error) {
	if len(s.cfg.Sealing) == 0 {
		return nil, nil //nolint:nilnil // only tests want that
	}
	var keys []value.PrefixTransformer
	for _, k := range s.cfg.Sealing {
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

package apiserver

import (
	"crypto/aes"
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
	if len(s.cfg.Sealing) == 0 {
		return o, nil
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
	s.sealed = value.NewPrefixTransformers(fmt.Errorf("no sealing key opens this value"), keys...)
	o.Seal = func(r schema.GroupResource) value.Transformer {
		if r == (schema.GroupResource{Resource: "secrets"}) {
			return s.sealed
		}
		return nil
	}
	return o, nil
}

package storage

import (
	"bytes"
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
)

// Metadata reads the metadata of one resource's objects and nothing else of
// them, whatever their types and versions: these do not change what metadata
// is. What it returns is the caller's at its first level, shared below, and is
// not kept: who only wants to know what there is must not have the peer keep
// every object decoded.
type Metadata struct {
	all  string
	kind metav1.TypeMeta
	open value.Transformer
}

// NewMetadata reads what a storage of c keeps, as objects of kind; c's codec
// and constructors are not needed.
func NewMetadata(c Config, kind metav1.TypeMeta) *Metadata {
	return &Metadata{all: keys(c.Root, c.Prefix), kind: kind, open: c.Transformer}
}

// Keys is the prefix of all keys of the resource.
func (m *Metadata) Keys() string { return m.all }

// Read is the metadata in e.
func (m *Metadata) Read(ctx context.Context, e *store.Entry) (*metav1.PartialObjectMetadata, error) {
	return m.of(ctx, e, e.Mod)
}

// Told is what a change has left or, when it deleted the object, as it was
// then with the revision of its end.
func (m *Metadata) Told(ctx context.Context, e *store.Event) (*metav1.PartialObjectMetadata, error) {
	if e.Entry != nil {
		return m.of(ctx, e.Entry, e.Revision)
	}
	return m.of(ctx, e.Prev, e.Revision)
}

func (m *Metadata) of(ctx context.Context, e *store.Entry, rev store.Revision) (*metav1.PartialObjectMetadata, error) {
	out := &metav1.PartialObjectMetadata{}
	if had := metadataOf(remembered(e)); had != nil {
		out.ObjectMeta = *had
	} else {
		data, _, err := (&coder{transformer: m.open}).open(ctx, e)
		if err != nil {
			return nil, err
		}
		if err := decodeMetadata(data, out); err != nil {
			return nil, &CorruptError{Cause: fmt.Errorf("metadata not decodable: revision=%d: %w", e.Mod, err)}
		}
	}
	out.TypeMeta = m.kind
	return out, storage.APIObjectVersioner{}.UpdateObject(out, uint64(rev))
}

func metadataOf(k *kept) *metav1.ObjectMeta {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.obj.(metav1.ObjectMetaAccessor)
	if !ok {
		return nil
	}
	m, _ := a.GetObjectMeta().(*metav1.ObjectMeta)
	return m
}

// decodeMetadata reads either encoding of the store. In protobuf the metadata
// of every kind is field 1, and what follows is skipped.
func decodeMetadata(data []byte, out *metav1.PartialObjectMetadata) error {
	raw, isProto := bytes.CutPrefix(data, []byte("k8s\x00"))
	if !isProto {
		return json.Unmarshal(data, out)
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(raw); err != nil {
		return err
	}
	return out.Unmarshal(envelope.Raw)
}

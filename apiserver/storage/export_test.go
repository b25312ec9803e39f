package storage

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage/value"
)

// SetCoder replaces codec and transformer, as the published suite does in the
// middle of its tests.
func (s *Storage) SetCoder(codec runtime.Codec, t value.Transformer) { s.setCoder(codec, t) }

// Coder returns what SetCoder set.
func (s *Storage) Coder() (runtime.Codec, value.Transformer) {
	c := s.coder.Load()
	return c.codec, c.transformer
}

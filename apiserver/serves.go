package apiserver

import (
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skein.dev/skein/apiserver/registry"
)

// Serves reports whether the resource is one of this server's own kinds, in
// whatever version. It may be asked from [New] on, by anyone.
func (s *Server) Serves(r schema.GroupResource) bool {
	for _, k := range s.cfg.Kinds {
		if serves(k, r) {
			return true
		}
	}
	return false
}

func serves(k registry.Kind, r schema.GroupResource) bool {
	if k.Resource.GroupResource() == r {
		return true
	}
	for _, v := range k.Versions {
		if v.Resource.GroupResource() == r {
			return true
		}
	}
	return false
}

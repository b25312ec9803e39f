package storage

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
)

// versioner is upstream's, but for what a user may have written as the
// version of an object: a number that is none is the user's mistake and not a
// failure of the server.
type versioner struct{ storage.APIObjectVersioner }

// ObjectResourceVersion implements storage.Versioner.
func (v versioner) ObjectResourceVersion(obj runtime.Object) (uint64, error) {
	rv, err := v.APIObjectVersioner.ObjectResourceVersion(obj)
	if err == nil {
		return rv, nil
	}
	o, metaErr := meta.Accessor(obj)
	if metaErr != nil {
		return 0, metaErr
	}
	return 0, apierrors.NewBadRequest(fmt.Sprintf("metadata.resourceVersion %q: must be a version that the server gave", o.GetResourceVersion()))
}

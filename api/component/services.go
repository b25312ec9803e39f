package component

import (
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// SlicesByService is the index that [IndexSlices] makes: endpoint slices by
// their service's "namespace/name".
const SlicesByService = "skein.dev/service"

// IndexSlices gives the informer of EndpointSlices the index SlicesByService.
// The informer is shared, and so is the index: whoever needs it calls this
// before the informers start, one after the other.
func IndexSlices(slices cache.SharedIndexInformer) error {
	if slices.GetIndexer().GetIndexers()[SlicesByService] != nil {
		return nil
	}
	if err := slices.AddIndexers(cache.Indexers{SlicesByService: indexByService}); err != nil {
		return fmt.Errorf("index endpoint slices: %w", err)
	}
	return nil
}

// Slices are the endpoint slices of a service, from an indexer that
// [IndexSlices] has prepared.
func Slices(indexer cache.Indexer, service string) ([]*discoveryv1.EndpointSlice, error) {
	objs, err := indexer.ByIndex(SlicesByService, service)
	if err != nil {
		return nil, fmt.Errorf("list endpoints of %s: %w", service, err)
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(objs))
	for _, o := range objs {
		if s, ok := o.(*discoveryv1.EndpointSlice); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func indexByService(obj any) ([]string, error) {
	if k := ServiceKey(obj); k != "" {
		return []string{k}, nil
	}
	return nil, nil
}

// ServiceKey is the "namespace/name" of an EndpointSlice's service, empty if
// it has none. The object may be a tombstone.
func ServiceKey(obj any) string {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	s, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
		return ""
	}
	return s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
}

// ObjectKey is an object's own "namespace/name", empty for what is no object.
// The object may be a tombstone.
func ObjectKey(obj any) string {
	k, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return ""
	}
	return k
}

package endpointslice

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MaxEndpoints is how many endpoints a slice of ours holds at most.
const MaxEndpoints = 100

// Changes leads from the slices that exist to those that should.
type Changes struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
}

// Diff rewrites as few slices as it can: an endpoint stays where it is, new
// ones go first into slices that change anyway, then into free room, then
// into new slices. Its inputs stay untouched.
func Diff(svc *corev1.Service, have []*discoveryv1.EndpointSlice, want []Group) Changes {
	var ch Changes
	meta := Meta(svc)
	byGroup := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		if s.DeletionTimestamp == nil {
			k := groupKey(s.AddressType, s.Ports)
			byGroup[k] = append(byGroup[k], s)
		}
	}
	for _, g := range want {
		k := g.key()
		ch.group(meta, byGroup[k], g)
		delete(byGroup, k)
	}
	for _, left := range byGroup { // order does not matter: all of them go
		ch.Delete = append(ch.Delete, left...)
	}
	ch.reuse()
	return ch
}

// draft is a slice being worked on.
type draft struct {
	was     *discoveryv1.EndpointSlice // nil: new
	ends    []discoveryv1.Endpoint
	changed bool
}

func (ch *Changes) group(meta metav1.ObjectMeta, have []*discoveryv1.EndpointSlice, g Group) {
	missing := map[string]discoveryv1.Endpoint{}
	for _, e := range g.Endpoints {
		missing[identity(e)] = e
	}
	drafts := make([]*draft, 0, len(have))
	for _, s := range have {
		d := &draft{was: s, changed: !sameMeta(meta, s)}
		for _, e := range s.Endpoints {
			w, ok := missing[identity(e)]
			if !ok {
				d.changed = true
				continue
			}
			delete(missing, identity(e))
			if !equality.Semantic.DeepEqual(e, w) {
				d.changed = true
			}
			d.ends = append(d.ends, w)
		}
		drafts = append(drafts, d)
	}
	add := make([]discoveryv1.Endpoint, 0, len(missing))
	for _, e := range g.Endpoints { // in order, so that the result is one
		if _, ok := missing[identity(e)]; ok {
			add = append(add, e)
		}
	}
	drafts = place(drafts, add)
	ch.collect(meta, g, drafts)
}

// place puts endpoints into drafts: changed ones first, then the fullest.
func place(drafts []*draft, add []discoveryv1.Endpoint) []*draft {
	for len(add) > 0 {
		var best *draft
		for _, d := range drafts {
			if len(d.ends) >= MaxEndpoints {
				continue
			}
			if best == nil || (d.changed && !best.changed) || (d.changed == best.changed && len(d.ends) > len(best.ends)) {
				best = d
			}
		}
		if best == nil {
			best = &draft{}
			drafts = append(drafts, best)
		}
		n := min(len(add), MaxEndpoints-len(best.ends))
		best.ends = append(best.ends, add[:n]...)
		best.changed = true
		add = add[n:]
	}
	return drafts
}

// collect turns drafts into changes. One empty slice stays for a group
// without endpoints: it tells readers that the controller has looked.
func (ch *Changes) collect(meta metav1.ObjectMeta, g Group, drafts []*draft) {
	if len(drafts) == 0 {
		drafts = []*draft{{changed: true}}
	}
	kept := false
	for _, d := range drafts {
		kept = kept || len(d.ends) > 0
	}
	for _, d := range drafts {
		if len(d.ends) == 0 && kept {
			ch.Delete = append(ch.Delete, d.was)
			continue
		}
		kept = true
		switch {
		case d.was == nil:
			ch.Create = append(ch.Create, build(meta, nil, g, d.ends))
		case d.changed:
			ch.Update = append(ch.Update, build(meta, d.was, g, d.ends))
		}
	}
}

func build(meta metav1.ObjectMeta, was *discoveryv1.EndpointSlice, g Group, ends []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: meta}
	if was != nil {
		s = was.DeepCopy()
		s.Labels, s.OwnerReferences = meta.Labels, meta.OwnerReferences
	}
	s.AddressType, s.Ports, s.Endpoints = g.Type, g.Ports, ends
	if s.Endpoints == nil {
		s.Endpoints = []discoveryv1.Endpoint{}
	}
	return s
}

// reuse turns a pair of create and delete of one family into an update, so
// that changed ports do not churn names.
func (ch *Changes) reuse() {
	ch.Create = slices.DeleteFunc(ch.Create, func(made *discoveryv1.EndpointSlice) bool {
		for i, gone := range ch.Delete {
			if gone.AddressType != made.AddressType {
				continue
			}
			u := gone.DeepCopy()
			u.Labels, u.OwnerReferences, u.Ports, u.Endpoints = made.Labels, made.OwnerReferences, made.Ports, made.Endpoints
			ch.Update = append(ch.Update, u)
			ch.Delete = slices.Delete(ch.Delete, i, i+1)
			return true
		}
		return false
	})
}

func sameMeta(meta metav1.ObjectMeta, s *discoveryv1.EndpointSlice) bool {
	return equality.Semantic.DeepEqual(meta.Labels, s.Labels) && equality.Semantic.DeepEqual(meta.OwnerReferences, s.OwnerReferences)
}

// identity tells endpoints apart: the pod behind it and its address, so that
// a new pod with a recycled address is a new endpoint.
func identity(e discoveryv1.Endpoint) string {
	id := ""
	if e.TargetRef != nil {
		id = string(e.TargetRef.UID)
	}
	if len(e.Addresses) > 0 {
		id += " " + e.Addresses[0]
	}
	return id
}

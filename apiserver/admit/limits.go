package admit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	resourcehelper "k8s.io/component-helpers/resource"
)

// limitsNote is the annotation that tells what a LimitRange filled in.
const limitsNote = "kubernetes.io/limit-ranger"

// limitRanges are those of the request's namespace. Upstream's plugin is
// LimitRanger; its semantics are those of the LimitRange documentation.
func (c Config) limitRanges(a admission.Attributes) []*corev1.LimitRange {
	var out []*corev1.LimitRange
	for obj := range c.Reader.Each("/limitranges", a.GetNamespace()) {
		if l, ok := obj.(*corev1.LimitRange); ok {
			out = append(out, l)
		}
	}
	return out
}

// defaultLimits gives the containers of a new pod the requests and limits that
// the namespace has for those who name none.
func (c Config) defaultLimits(_ context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil || a.GetOperation() != admission.Create {
		return nil
	}
	for _, l := range c.limitRanges(a) {
		requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
		for _, item := range l.Spec.Limits {
			if item.Type == corev1.LimitTypeContainer {
				maps.Copy(requests, item.DefaultRequest)
				maps.Copy(limits, item.Default)
			}
		}
		fillPod(p, requests, limits)
	}
	return nil
}

func fillPod(p *corev1.Pod, requests, limits corev1.ResourceList) {
	var notes []string
	fill := func(list *corev1.ResourceList, from corev1.ResourceList, what string) {
		var set []string
		for _, name := range slices.Sorted(maps.Keys(from)) {
			if _, has := (*list)[name]; has {
				continue
			}
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = from[name].DeepCopy()
			set = append(set, string(name))
		}
		if len(set) > 0 {
			notes = append(notes, strings.Join(set, ", ")+" "+what)
		}
	}
	each := func(containers []corev1.Container, kind string) {
		for i := range containers {
			r := &containers[i].Resources
			fill(&r.Requests, requests, "request for "+kind+" "+containers[i].Name)
			fill(&r.Limits, limits, "limit for "+kind+" "+containers[i].Name)
		}
	}
	each(p.Spec.Containers, "container")
	each(p.Spec.InitContainers, "init container")
	if len(notes) > 0 {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[limitsNote] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

// checkLimits refuses pods and claims outside the bounds of their namespace.
func (c Config) checkLimits(_ context.Context, a admission.Attributes) error {
	if old, ok := a.GetOldObject().(interface{ GetDeletionTimestamp() *metav1.Time }); ok && old.GetDeletionTimestamp() != nil {
		return nil
	}
	resize := is(a, "", "pods", "resize") && a.GetOperation() == admission.Update
	fresh := is(a, "", "pods", "") && a.GetOperation() == admission.Create
	if !resize && !fresh && !is(a, "", "persistentvolumeclaims", "") {
		return nil
	}
	for _, l := range c.limitRanges(a) {
		var errs []error
		for _, item := range l.Spec.Limits {
			errs = append(errs, outside(item, a.GetObject())...)
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return admission.NewForbidden(a, err)
		}
	}
	return nil
}

// outside are the bounds of one item that the object oversteps.
func outside(item corev1.LimitRangeItem, obj runtime.Object) []error {
	switch o := obj.(type) {
	case *corev1.PersistentVolumeClaim:
		if item.Type != corev1.LimitTypePersistentVolumeClaim {
			return nil
		}
		b := bounds{item: item, requests: o.Spec.Resources.Requests, onlyRequests: true}
		return b.check()
	case *corev1.Pod:
		switch item.Type {
		case corev1.LimitTypeContainer:
			var errs []error
			for _, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers) {
				b := bounds{item: item, requests: c.Resources.Requests, limits: c.Resources.Limits}
				errs = append(errs, b.check()...)
			}
			return errs
		case corev1.LimitTypePod:
			opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
			b := bounds{item: item, requests: resourcehelper.PodRequests(o, opts), limits: resourcehelper.PodLimits(o, opts)}
			return b.check()
		default:
		}
	}
	return nil
}

// bounds compares what is asked for with one item of a LimitRange.
type bounds struct {
	item             corev1.LimitRangeItem
	requests, limits corev1.ResourceList
	onlyRequests     bool // a claim has no limits that count
}

func (b *bounds) check() []error {
	var errs []error
	each := func(list corev1.ResourceList, check func(corev1.ResourceName, resource.Quantity) string) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if said := check(name, list[name]); said != "" {
				errs = append(errs, errors.New(said))
			}
		}
	}
	each(b.item.Min, b.least)
	each(b.item.Max, b.most)
	each(b.item.MaxLimitRequestRatio, b.ratio)
	return errs
}

func (b *bounds) least(name corev1.ResourceName, bound resource.Quantity) string {
	head := fmt.Sprintf("minimum %s usage per %s is %s", name, b.item.Type, bound.String())
	req, has := b.requests[name]
	lim, limited := b.limits[name]
	switch {
	case !has:
		return head + ".  No request is specified"
	case req.Cmp(bound) < 0:
		return head + ", but request is " + req.String()
	case limited && lim.Cmp(bound) < 0:
		return head + ", but limit is " + lim.String()
	}
	return ""
}

func (b *bounds) most(name corev1.ResourceName, bound resource.Quantity) string {
	head := fmt.Sprintf("maximum %s usage per %s is %s", name, b.item.Type, bound.String())
	req, has := b.requests[name]
	lim, limited := b.limits[name]
	switch {
	case b.onlyRequests && !has:
		return head + ".  No request is specified"
	case !b.onlyRequests && !limited:
		return head + ".  No limit is specified"
	case limited && lim.Cmp(bound) > 0:
		return head + ", but limit is " + lim.String()
	case has && req.Cmp(bound) > 0:
		return head + ", but request is " + req.String()
	}
	return ""
}

func (b *bounds) ratio(name corev1.ResourceName, bound resource.Quantity) string {
	head := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, b.item.Type, bound.String())
	req, lim := b.requests[name], b.limits[name]
	switch {
	case req.IsZero():
		return head + ", but no request is specified or request is 0"
	case lim.IsZero():
		return head + ", but no limit is specified or limit is 0"
	}
	if got := lim.AsApproximateFloat64() / req.AsApproximateFloat64(); got > bound.AsApproximateFloat64() {
		return fmt.Sprintf("%s, but provided ratio is %f", head, got)
	}
	return ""
}

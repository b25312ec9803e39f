package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func (r *rollout) desired() int32 {
	if r.d.Spec.Replicas == nil {
		return 1
	}
	return *r.d.Spec.Replicas
}

// bounds resolves maxSurge (rounded up) and maxUnavailable (rounded down); if
// both are zero one pod may be missing, or nothing could ever move.
func (r *rollout) bounds() (surge, unavailable int32) {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0, 0
	}
	u := r.d.Spec.Strategy.RollingUpdate
	if u == nil {
		u = &appsv1.RollingUpdateDeployment{}
	}
	quarter := intstr.FromString("25%")
	surge = resolve(intstr.ValueOrDefault(u.MaxSurge, quarter), r.desired(), true)
	unavailable = resolve(intstr.ValueOrDefault(u.MaxUnavailable, quarter), r.desired(), false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, r.desired())
}

func resolve(v *intstr.IntOrString, total int32, up bool) int32 {
	n, err := intstr.GetScaledValueFromIntOrPercent(v, int(total), up)
	if err != nil { // validation refuses it
		return 0
	}
	return int32(n)
}

// note records for which size s is scaled now.
func (r *rollout) note(s *appsv1.ReplicaSet) {
	surge, _ := r.bounds()
	s.Annotations = with(s.Annotations, desiredAnnotation, strconv.Itoa(int(r.desired())))
	s.Annotations[maxAnnotation] = strconv.Itoa(int(r.desired() + surge))
}

func (r *rollout) resize(s *appsv1.ReplicaSet, n int32) {
	n = max(n, 0)
	s.Spec.Replicas = &n
	r.note(s)
}

// resized reports whether the deployment's size changed since its running
// sets were scaled last.
func (r *rollout) resized() bool {
	for _, s := range r.all {
		if size(s) == 0 {
			continue
		}
		n, err := strconv.Atoi(s.Annotations[desiredAnnotation])
		if err == nil && int32(n) != r.desired() {
			return true
		}
	}
	return false
}

// freshSize is how large the present template's set may be now.
func (r *rollout) freshSize() int32 {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return r.desired()
	}
	surge, _ := r.bounds()
	room := r.desired() + surge - sum(r.all, size)
	if room <= 0 {
		return size(r.fresh)
	}
	return size(r.fresh) + min(room, r.desired()-size(r.fresh))
}

func (r *rollout) recreate(oldRun bool, now time.Time) {
	stopped := true
	for _, s := range r.old {
		if size(s) > 0 {
			r.resize(s, 0)
			stopped = false
		}
	}
	if !stopped || oldRun {
		return
	}
	r.makeFresh(now)
	if size(r.fresh) != r.desired() {
		r.resize(r.fresh, r.desired())
	}
}

// rollingUpdate grows the new set as far as maxSurge allows and shrinks old
// ones as far as maxUnavailable allows, broken pods first.
func (r *rollout) rollingUpdate() {
	switch n := size(r.fresh); {
	case n > r.desired():
		r.resize(r.fresh, r.desired())
	case n < r.desired():
		if want := r.freshSize(); want != n {
			r.resize(r.fresh, want)
		}
	}
	if sum(r.old, size) == 0 {
		return
	}
	_, unavailable := r.bounds()
	least := r.desired() - unavailable
	missing := size(r.fresh) - r.fresh.Status.AvailableReplicas
	room := sum(r.all, size) - least - missing
	if room <= 0 {
		return
	}
	for _, s := range r.old {
		broken := size(s) - s.Status.AvailableReplicas
		if n := min(room, broken); n > 0 {
			r.resize(s, size(s)-n)
			room -= n
		}
	}
	spare := sum(r.all, available) - least
	for _, s := range r.old {
		if n := min(spare, size(s)); n > 0 {
			r.resize(s, size(s)-n)
			spare -= n
		}
	}
}

func available(s *appsv1.ReplicaSet) int32 { return s.Status.AvailableReplicas }

// scale follows a change of size: proportionally over the running sets while
// a rollout is under way, so that no more risk is taken than before.
func (r *rollout) scale() {
	var active []*appsv1.ReplicaSet
	for _, s := range r.all {
		if size(s) > 0 {
			active = append(active, s)
		}
	}
	if one := r.single(active); one != nil {
		r.resize(one, r.desired())
		return
	}
	if r.fresh != nil && size(r.fresh) == r.desired() && r.fresh.Status.AvailableReplicas == r.desired() &&
		r.fresh.Annotations[desiredAnnotation] == strconv.Itoa(int(r.desired())) {
		for _, s := range r.old {
			if size(s) > 0 {
				r.resize(s, 0)
			}
		}
		return
	}
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		for _, s := range active { // the old ones are on their way to zero
			r.note(s)
		}
		return
	}
	r.proportional(active)
}

// single is the only running set, or the newest when none runs; nil when
// several run.
func (r *rollout) single(active []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	switch len(active) {
	case 1:
		return active[0]
	case 0:
		if r.fresh != nil {
			return r.fresh
		}
		if len(r.old) > 0 {
			return r.old[len(r.old)-1]
		}
	}
	return nil
}

func (r *rollout) proportional(active []*appsv1.ReplicaSet) {
	surge, _ := r.bounds()
	allowed := int32(0)
	if r.desired() > 0 {
		allowed = r.desired() + surge
	}
	total := sum(active, size)
	add := allowed - total
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int {
		age := byAge(a, b)
		if add > 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(size(b), size(a)), age)
	})
	added := int32(0)
	want := make([]int32, len(active))
	for i, s := range active {
		want[i] = size(s)
		if add == 0 {
			continue
		}
		share := r.share(s, allowed, total)
		if add > 0 {
			share = min(max(share, 0), add-added)
		} else {
			share = max(min(share, 0), add-added)
		}
		want[i] += share
		added += share
	}
	for i, s := range active {
		if i == 0 { // what rounding left over
			want[i] += add - added
		}
		r.resize(s, want[i])
	}
}

// share is how much s grows (or shrinks) so that it keeps its part of the whole.
func (r *rollout) share(s *appsv1.ReplicaSet, allowed, total int32) int32 {
	if r.desired() == 0 {
		return -size(s)
	}
	was, err := strconv.Atoi(s.Annotations[maxAnnotation])
	if err != nil || was == 0 {
		was = int(total)
	}
	return int32(math.Round(float64(size(s))*float64(allowed)/float64(was))) - size(s)
}

package deployment

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/pods"
)

// The annotations that kubectl rollout reads, and those that remember for
// which size a set was last scaled.
const (
	RevisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// Plan is everything one reconcile writes.
type Plan struct {
	Create   *appsv1.ReplicaSet   // nil: none
	Updates  []Update             // in order
	Delete   []*appsv1.ReplicaSet // beyond the history limit
	Revision string               // of the deployment; "": leave it
	Status   appsv1.DeploymentStatus
	After    time.Duration // look again even if nothing happens; 0: no need
}

// Update is a set to write, and how its size changes.
type Update struct {
	Set      *appsv1.ReplicaSet
	From, To int32
}

// rollout is the working state of one decision. Sets are copies.
type rollout struct {
	d       *appsv1.Deployment
	all     []*appsv1.ReplicaSet // oldest first
	fresh   *appsv1.ReplicaSet   // of the present template; nil: none yet
	old     []*appsv1.ReplicaSet // all but fresh
	created bool                 // fresh is still to be made
}

// Decide plans the next step of d. Its inputs stay untouched. oldRun says
// that pods of an older template exist.
func Decide(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, oldRun bool, now time.Time) Plan {
	r := newRollout(d, sets)
	if d.DeletionTimestamp != nil {
		return Plan{Status: r.status(nil, now)}
	}
	complete := r.complete()
	switch {
	case d.Spec.Paused:
		r.scale()
	case r.resized():
		r.adoptRevision()
		r.scale()
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.recreate(oldRun, now)
	default:
		r.makeFresh(now)
		r.rollingUpdate()
	}
	var p Plan
	before := map[string]*appsv1.ReplicaSet{}
	for _, s := range sets {
		before[string(s.UID)] = s
	}
	for _, s := range r.all {
		was, known := before[string(s.UID)]
		if r.created && s == r.fresh {
			p.Create = s
		} else if known && !equality.Semantic.DeepEqual(was, s) {
			p.Updates = append(p.Updates, Update{Set: s, From: size(was), To: size(s)})
		}
	}
	if r.fresh != nil && !d.Spec.Paused {
		p.Revision = r.fresh.Annotations[RevisionAnnotation]
	}
	if complete || d.Spec.Paused {
		p.Delete = r.excess()
	}
	p.Status = r.status(sets, now)
	p.After = r.progress(&p.Status, now)
	return p
}

func newRollout(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *rollout {
	r := &rollout{d: d}
	for _, s := range sets {
		r.all = append(r.all, s.DeepCopy())
	}
	slices.SortFunc(r.all, byAge)
	r.fresh = newest(d, r.all)
	for _, s := range r.all {
		if s != r.fresh {
			r.old = append(r.old, s)
		}
	}
	return r
}

func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// newest is the oldest set with the deployment's present template, or nil.
func newest(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	var best *appsv1.ReplicaSet
	for _, s := range sets {
		if sameTemplate(&s.Spec.Template, &d.Spec.Template) && (best == nil || byAge(s, best) < 0) {
			best = s
		}
	}
	return best
}

// sameTemplate compares but for the hash label that we add.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

// makeFresh ensures a set of the present template with the next revision.
func (r *rollout) makeFresh(now time.Time) {
	if r.fresh != nil {
		r.adoptRevision()
		return
	}
	d := r.d
	template := *d.Spec.Template.DeepCopy()
	hash := pods.Hash(&template, d.Status.CollisionCount)
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	zero := int32(0)
	r.fresh = &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: template.Labels,
			Annotations:       map[string]string{},
			OwnerReferences:   []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
			CreationTimestamp: metav1.NewTime(now),
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &zero, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template,
		},
	}
	r.created = true
	r.all = append(r.all, r.fresh)
	r.adoptRevision()
	r.resize(r.fresh, r.freshSize())
}

// adoptRevision gives the present template's set the highest revision, so
// that returning to an old template counts as a new revision, and copies what
// the set mirrors of the deployment.
func (r *rollout) adoptRevision() {
	if r.fresh == nil {
		return
	}
	top := int64(0)
	for _, s := range r.old {
		top = max(top, revision(s))
	}
	if r.fresh.Annotations == nil {
		r.fresh.Annotations = map[string]string{}
	}
	maps.Copy(r.fresh.Annotations, mirrored(r.d.Annotations))
	if have := revision(r.fresh); have <= top {
		if was := r.fresh.Annotations[RevisionAnnotation]; was != "" {
			history := r.fresh.Annotations[historyAnnotation]
			if history != "" {
				history += ","
			}
			r.fresh.Annotations[historyAnnotation] = history + was
		}
		r.fresh.Annotations[RevisionAnnotation] = strconv.FormatInt(top+1, 10)
	}
	if r.fresh.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		r.fresh.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
	}
}

// mirrored are the deployment's annotations that its sets carry too.
func mirrored(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if k != corev1.LastAppliedConfigAnnotation && k != appsv1.DeprecatedRollbackTo &&
			!strings.HasPrefix(k, "deployment.kubernetes.io/") {
			out[k] = v
		}
	}
	return out
}

// excess are the old, empty sets beyond the history limit, lowest revision first.
func (r *rollout) excess() []*appsv1.ReplicaSet {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil {
		return nil
	}
	old := slices.DeleteFunc(slices.Clone(r.old), func(s *appsv1.ReplicaSet) bool { return s.DeletionTimestamp != nil })
	slices.SortStableFunc(old, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	n := len(old) - int(*limit)
	var out []*appsv1.ReplicaSet
	for _, s := range old[:max(0, n)] {
		if size(s) == 0 && s.Status.Replicas == 0 && s.Generation <= s.Status.ObservedGeneration {
			out = append(out, s)
		}
	}
	return out
}

func revision(s *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(s.Annotations[RevisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func size(s *appsv1.ReplicaSet) int32 {
	if s == nil || s.Spec.Replicas == nil {
		return 0
	}
	return *s.Spec.Replicas
}

func sum(sets []*appsv1.ReplicaSet, f func(*appsv1.ReplicaSet) int32) int32 {
	n := int32(0)
	for _, s := range sets {
		n += f(s)
	}
	return n
}

func with(m map[string]string, k, v string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[k] = v
	return out
}

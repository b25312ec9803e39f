// Package autoscale is the horizontal pod autoscaler.
//
// Its invariant: without trustworthy figures nothing is scaled, and a scale
// is written only when its number changes.
package autoscale

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"skein.dev/skein/api/component"
	"skein.dev/skein/controllers/run"
)

// period is how often an autoscaler looks at its figures.
const period = 15 * time.Second

// Controller reconciles HorizontalPodAutoscalers.
type Controller struct {
	kit     component.Kit
	scalers autoscalinglisters.HorizontalPodAutoscalerLister
	pods    corelisters.PodLister

	mu     sync.Mutex // guards the field below
	memory map[run.Key]*Memory
}

// New takes its informers from kit.
func New(kit component.Kit) (run.Controller, error) {
	inf := kit.Informers.Autoscaling().V2().HorizontalPodAutoscalers()
	c := &Controller{kit: kit, scalers: inf.Lister(), pods: kit.Informers.Core().V1().Pods().Lister(), memory: map[run.Key]*Memory{}}
	return run.Controller{
		Name: "horizontal-pod-autoscaler-controller",
		Reads: []run.Source{
			{Informer: inf.Informer(), Changed: func(before, after any) bool {
				a, ok := before.(*autoscalingv2.HorizontalPodAutoscaler)
				b, ok2 := after.(*autoscalingv2.HorizontalPodAutoscaler)
				return !ok || !ok2 || !equality.Semantic.DeepEqual(a.Spec, b.Spec)
			}},
			{Informer: kit.Informers.Core().V1().Pods().Informer(), Keys: run.None},
		},
		Writes: []string{"horizontalpodautoscalers.autoscaling/status", "*/scale"}, Workers: 2, Reconcile: c.reconcile, Reset: c.reset,
	}, nil
}

func (c *Controller) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory = map[run.Key]*Memory{}
}

// remember returns the key's memory, which only its reconcile touches.
func (c *Controller) remember(key run.Key) *Memory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.memory[key] == nil {
		c.memory[key] = &Memory{}
	}
	return c.memory[key]
}

func (c *Controller) reconcile(ctx context.Context, key run.Key) (time.Duration, error) {
	h, err := c.scalers.HorizontalPodAutoscalers(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.mu.Lock()
		delete(c.memory, key)
		c.mu.Unlock()
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read autoscaler: %w", err)
	}
	up := h.DeepCopy()
	up.Status.ObservedGeneration = &h.Generation
	if err := c.step(ctx, key, up, time.Now()); err != nil {
		return 0, err
	}
	if equality.Semantic.DeepEqual(h.Status, up.Status) {
		return period, nil
	}
	_, err = c.kit.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).UpdateStatus(ctx, up, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("write autoscaler status: %w", err)
	}
	return period, nil
}

// step scales once and notes in the status what was found.
func (c *Controller) step(ctx context.Context, key run.Key, h *autoscalingv2.HorizontalPodAutoscaler, now time.Time) error {
	path, scale, err := c.scale(ctx, h)
	if err != nil {
		note(h, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: "+err.Error(), now)
		return nil //nolint:nilerr // it is told in the status and tried again
	}
	note(h, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale", now)
	current, least := scale.Spec.Replicas, int32(1)
	h.Status.CurrentReplicas = scale.Status.Replicas
	if h.Spec.MinReplicas != nil {
		least = *h.Spec.MinReplicas
	}
	desired := current
	switch {
	case current == 0 && least != 0:
		note(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero", now)
	case current > h.Spec.MaxReplicas:
		desired = h.Spec.MaxReplicas
	case current < least:
		desired = least
	default:
		asked, ok := c.ask(ctx, h, scale, now)
		if !ok {
			h.Status.DesiredReplicas = current
			return nil
		}
		var why string
		desired, why = Behave(c.remember(key), h.Spec.Behavior, current, asked, least, h.Spec.MaxReplicas, now)
		limited := corev1.ConditionFalse
		if why == "" {
			why = "DesiredWithinRange"
		} else {
			limited = corev1.ConditionTrue
		}
		note(h, autoscalingv2.ScalingLimited, limited, why, "the desired count is "+fmt.Sprint(desired), now)
	}
	h.Status.DesiredReplicas = desired
	if desired == current {
		return nil
	}
	scale.Spec.Replicas = desired
	body, err := json.Marshal(scale)
	if err != nil {
		return fmt.Errorf("encode scale: %w", err)
	}
	if err := c.kit.Client.CoreV1().RESTClient().Put().AbsPath(path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error(); err != nil {
		note(h, autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: "+err.Error(), now)
		return nil //nolint:nilerr // as above
	}
	note(h, autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to "+fmt.Sprint(desired), now)
	c.kit.Recorder.Eventf(h, nil, corev1.EventTypeNormal, "SuccessfulRescale", "Rescale", "New size: %d; from %d", desired, current)
	c.remember(key).Scaled(current, desired, now)
	h.Status.LastScaleTime = &metav1.Time{Time: now}
	return nil
}

var errTarget = errors.New("no such kind with a scale")

// scale reads the target's scale, of any kind that has one.
func (c *Controller) scale(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler) (string, *autoscalingv1.Scale, error) {
	ref := h.Spec.ScaleTargetRef
	list, err := c.kit.Client.Discovery().ServerResourcesForGroupVersion(ref.APIVersion)
	if err != nil {
		return "", nil, fmt.Errorf("discover %s: %w", ref.APIVersion, err)
	}
	i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == ref.Kind && !strings.Contains(r.Name, "/") })
	if i < 0 {
		return "", nil, fmt.Errorf("%w: %s %s", errTarget, ref.APIVersion, ref.Kind)
	}
	root := "/apis/" + ref.APIVersion
	if !strings.Contains(ref.APIVersion, "/") {
		root = "/api/" + ref.APIVersion
	}
	path := root + "/namespaces/" + h.Namespace + "/" + list.APIResources[i].Name + "/" + ref.Name + "/scale"
	raw, err := c.kit.Client.CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return "", nil, err //nolint:wrapcheck // the API's words reach the user
	}
	var s autoscalingv1.Scale
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", nil, fmt.Errorf("decode scale: %w", err)
	}
	return path, &s, nil
}

// ask is the highest number that any metric asks for; false: none could tell,
// or one could not and the others would scale down.
func (c *Controller) ask(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, scale *autoscalingv1.Scale, now time.Time) (int32, bool) {
	sel, err := labels.Parse(scale.Status.Selector)
	if err != nil || scale.Status.Selector == "" {
		note(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "the HPA target's scale is missing a selector", now)
		return 0, false
	}
	all, err := c.pods.Pods(h.Namespace).List(sel)
	if err != nil { // a lister over a store never fails
		return 0, false
	}
	figures, err := c.figures(ctx, h.Namespace, sel)
	best, bad := int32(-1), err
	var found []autoscalingv2.MetricStatus
	for i := range h.Spec.Metrics {
		if err != nil {
			break
		}
		p, e := Propose(&h.Spec.Metrics[i], scale.Spec.Replicas, all, figures, now)
		if e != nil {
			bad = e
			continue
		}
		found = append(found, p.Status)
		best = max(best, p.Replicas)
	}
	h.Status.CurrentMetrics = found
	if bad != nil && (best < 0 || best <= scale.Spec.Replicas) {
		note(h, autoscalingv2.ScalingActive, corev1.ConditionFalse, "FailedGetResourceMetric",
			"the HPA was unable to compute the replica count: "+bad.Error(), now)
		return 0, false
	}
	if best < 0 {
		return 0, false
	}
	note(h, autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from its metrics", now)
	return best, true
}

// figures asks the resource metrics API.
func (c *Controller) figures(ctx context.Context, namespace string, sel labels.Selector) (map[string]Figure, error) {
	raw, err := c.kit.Client.CoreV1().RESTClient().Get().AbsPath("/apis/metrics.k8s.io/v1beta1/namespaces/"+namespace+"/pods").
		Param("labelSelector", sel.String()).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
	}
	var list metricsv1beta1.PodMetricsList
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("decode metrics: %w", err)
	}
	out := map[string]Figure{}
	for _, p := range list.Items {
		f := Figure{}
		for _, x := range p.Containers {
			f[x.Name] = x.Usage
		}
		out[p.Name] = f
	}
	return out, nil
}

// note sets a condition; its time moves only with its status.
func note(h *autoscalingv2.HorizontalPodAutoscaler, t autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) {
	x := autoscalingv2.HorizontalPodAutoscalerCondition{Type: t, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now).Rfc3339Copy()}
	i := slices.IndexFunc(h.Status.Conditions, func(c autoscalingv2.HorizontalPodAutoscalerCondition) bool { return c.Type == t })
	if i < 0 {
		h.Status.Conditions = append(h.Status.Conditions, x)
		return
	}
	if h.Status.Conditions[i].Status == status {
		x.LastTransitionTime = h.Status.Conditions[i].LastTransitionTime
	}
	h.Status.Conditions[i] = x
}

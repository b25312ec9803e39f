package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
)

// podImage is on every peer of a lab that was given the example images.
const podImage = "skein.dev/examples/busybox:1"

// podLimit bounds the wait for one pod.
const podLimit = 30 * time.Second

// pods starts pods one at a time, each from create to its container running.
func (o loadOptions) pods(ctx context.Context) (loadResult, error) {
	c, err := o.client()
	if err != nil {
		return loadResult{}, err
	}
	return o.drive(ctx, func(int) request {
		return func(ctx context.Context, n int64) error { return startPod(ctx, c, "bench-"+strconv.FormatInt(n, 10)) }
	}), nil
}

// startPod returns when the pod's container runs. The pod is deleted a moment
// later, while the next one starts, as no pod is measured alone in a mesh.
func startPod(ctx context.Context, c *kubernetes.Clientset, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, podLimit)
	defer cancel()
	pods := c.CoreV1().Pods(metav1.NamespaceDefault)
	now := int64(0)
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &now, Containers: []corev1.Container{{
			Name: "shell", Image: podImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sleep", "infinity"},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("create pod: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), podLimit)
		defer cancel()
		err = errors.Join(err, pods.Delete(end, name, metav1.DeleteOptions{}))
	}()
	return awaitRunning(ctx, pods, name)
}

// awaitRunning watches from the pod's beginning, so that nothing is missed.
func awaitRunning(ctx context.Context, pods typed.PodInterface, name string) error {
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return fmt.Errorf("watch pod: %w", err)
	}
	defer w.Stop()
	last := "no event"
	for e := range w.ResultChan() { // ends with ctx
		p, ok := e.Object.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("watch pod: unexpected event %s", e.Type)
		}
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Running != nil {
				return nil
			}
		}
		last = string(p.Status.Phase)
	}
	return fmt.Errorf("watch pod: it ended before the container ran; last phase %s: %w", last, context.Cause(ctx))
}

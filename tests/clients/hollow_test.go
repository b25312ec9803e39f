package clients

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
)

const hollow = "hollow"

// hollowNode registers a node whose pods are said to run, and those that may
// end to have succeeded, until the test ends. There are no containers.
func (m *mesh) hollowNode() {
	m.Helper()
	client := m.peers[0].client
	full := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("500"),
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: hollow, Labels: map[string]string{corev1.LabelHostname: hollow}}}
	_, err := client.CoreV1().Nodes().Create(m.Context(), node, metav1.CreateOptions{})
	if err != nil {
		m.Fatal(err)
	}
	status := corev1.NodeStatus{
		Capacity: full, Allocatable: full,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Hollow"}},
	}
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error { // controllers write to it too
		node, err := client.CoreV1().Nodes().Get(m.Context(), hollow, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status = status
		_, err = client.CoreV1().Nodes().UpdateStatus(m.Context(), node, metav1.UpdateOptions{})
		return err
	}); err != nil {
		m.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.Context()))
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", corev1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", hollow))
	informer := cache.NewSharedInformer(lw, &corev1.Pod{}, 0)
	act := func(o any) {
		if pod, ok := o.(*corev1.Pod); ok {
			pretend(ctx, client, pod.DeepCopy())
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: act, UpdateFunc: func(_, o any) { act(o) }}); err != nil {
		m.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { informer.RunWithContext(ctx) })
	m.Cleanup(func() { cancel(); wg.Wait() })
}

// pretend does for a pod what a kubelet's status would say. A write that
// fails is tried again with the pod's next change.
func pretend(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) {
	pods := client.CoreV1().Pods(pod.Namespace)
	if pod.DeletionTimestamp != nil {
		zero := int64(0)
		_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
		return
	}
	if pod.Status.Phase != corev1.PodPending {
		return
	}
	now := metav1.Now()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
	state, ready := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}, corev1.ConditionTrue
	if pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		pod.Status.Phase, ready = corev1.PodSucceeded, corev1.ConditionFalse
		state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: ready == corev1.ConditionTrue, State: state,
		})
	}
	for _, t := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t, Status: ready, LastTransitionTime: now})
	}
	ip := fmt.Sprintf("10.99.%d.%d", len(pod.Name)%250, len(pod.UID)%250)
	pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	_, _ = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
}

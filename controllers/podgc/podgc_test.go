package podgc_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"skein.dev/skein/api/component"
	"skein.dev/skein/api/role"
	"skein.dev/skein/controllers/podgc"
	"skein.dev/skein/controllers/run"
)

func on(node, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: name, UID: "uid"}, Spec: corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func TestPodsOfAMissingNodeFailAndGoAfterQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, on("n1", "kept"), on("n2", "orphan"))
		var failed *corev1.Pod
		client.PrependReactor("delete", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			obj, err := client.Tracker().Get(a.GetResource(), "app", a.(clienttesting.DeleteAction).GetName())
			failed, _ = obj.(*corev1.Pod)
			return false, nil, err
		})
		factory := informers.NewSharedInformerFactory(client, 0)
		c, err := podgc.New(component.Kit{Client: client, Informers: factory})
		if err != nil {
			t.Fatal(err)
		}
		loop, err := run.New(run.Config{Controllers: []run.Controller{c}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		factory.Start(ctx.Done())
		done := make(chan error, 1)
		go func() { done <- loop.Run(ctx, role.Fence{Role: role.Controllers, Epoch: 1}, nil) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			factory.Shutdown()
		}()
		gone := func(name string) bool {
			synctest.Wait()
			_, err := client.CoreV1().Pods("app").Get(t.Context(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}
		<-time.After(30 * time.Second)
		if gone("orphan") {
			t.Error("the pod went at once: its node may only be late")
		}
		<-time.After(30 * time.Second)
		if !gone("orphan") || gone("kept") {
			t.Errorf("orphan gone: %v, want true; kept gone: %v, want false", gone("orphan"), gone("kept"))
		}
		has := func(t corev1.PodConditionType) bool {
			return slices.ContainsFunc(failed.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
		}
		if failed == nil || failed.Status.Phase != corev1.PodFailed || !has(corev1.DisruptionTarget) || !has(corev1.PodReady) {
			t.Errorf("ended as %+v, want it failed, disrupted and with its other conditions", failed)
		}
	})
}

package kubelet

import (
	"bytes"
	"errors"
	"log/slog"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	listers "k8s.io/client-go/listers/core/v1"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
)

// lines is a log that many write to.
type lines struct {
	mu  sync.Mutex // guards the fields below
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func TestARefusalIsToldWhenItStaysAndNotForAPodThatHasGone(t *testing.T) {
	for _, gone := range []bool{true, false} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
		store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		if err := store.Add(pod); err != nil {
			t.Fatal(err)
		}
		client := fake.NewClientset(pod)
		refused := make(chan struct{}, 100)
		// What a node is told of a pod that somebody else has just deleted.
		client.PrependReactor("delete", "pods", func(ktesting.Action) (bool, runtime.Object, error) {
			if gone {
				if err := store.Delete(pod); err != nil {
					t.Error(err)
				}
			}
			refused <- struct{}{}
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "p", errors.New("no relationship"))
		})
		var out lines
		s := newStatusWriter(client, listers.NewPodLister(store), slog.New(slog.NewTextHandler(&out, nil)))
		go s.run(t.Context())
		s.set(pod, &corev1.PodStatus{Phase: corev1.PodSucceeded}, true)
		tries := 1
		if !gone {
			tries = refusedOften + 2
		}
		for range tries {
			<-refused
		}
		for gone && s.latest(pod.UID) != nil {
			goruntime.Gosched() // until it is forgotten
		}
		out.mu.Lock()
		told := strings.Count(out.buf.String(), "pod status not written")
		out.mu.Unlock()
		if want := map[bool]int{true: 0, false: 1}[gone]; told != want {
			t.Errorf("gone %v: told %d times, want %d", gone, told, want)
		}
	}
}

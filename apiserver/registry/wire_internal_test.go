package registry

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTextIsLookedForEverywhere(t *testing.T) {
	const bad = "\xc3"
	for name, obj := range map[string]any{
		"in a map's key":       &corev1.ConfigMap{Data: map[string]string{bad: "a"}},
		"in a map's value":     &corev1.ConfigMap{Data: map[string]string{"a": bad}},
		"in a list":            &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{"a", bad}}},
		"behind a pointer":     &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: "a", RuntimeClassName: func() *string { s := bad; return &s }()}},
		"of a type of its own": &corev1.Pod{Spec: corev1.PodSpec{DNSPolicy: bad}},
	} {
		if isText(reflect.ValueOf(obj)) {
			t.Errorf("%s: not found", name)
		}
	}
	now := metav1.Now()
	good := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "é", DeletionTimestamp: &now}, BinaryData: map[string][]byte{"a": []byte(bad)}}
	if !isText(reflect.ValueOf(good)) {
		t.Error("bytes are taken for text")
	}
}

func BenchmarkText(b *testing.B) {
	c := corev1.Container{Name: "c", Image: "example.com/a:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80}}}
	v := reflect.ValueOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{c, c}}})
	for b.Loop() {
		isText(v)
	}
}

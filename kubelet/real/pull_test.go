package real_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Each pod is deleted at another moment of its vain beginning: while its
// sandbox is made, while the image is asked for, and after it was not had.
func TestPodsWhosePullsFailAreDeletedWithoutATrace(t *testing.T) {
	n := newNode(t)
	const pods = 12
	for i := range pods {
		name := fmt.Sprintf("vain-%d", i)
		n.create(pod(name, "true", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = "127.0.0.1:9/nothing:1"
			p.Spec.Containers[0].ImagePullPolicy = corev1.PullAlways
		}))
		time.Sleep(time.Duration(i) * 40 * time.Millisecond)
		n.remove(name, 1)
	}
	for i := range pods {
		n.eventually(fmt.Sprintf("vain-%d", i), "gone", gone)
	}
}

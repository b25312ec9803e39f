package real_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestInitSidecarsHooksAndProbes(t *testing.T) {
	n := newNode(t)
	shared := filepath.Join(n.dir, "shared")
	n.create(pod("all", "cat /work/init >> /host/order; trap 'echo term >> /host/order; exit 0' TERM; echo up > /work/live; httpd -p 8080 -h /work; while true; do sleep 1; done", func(p *corev1.Pod) {
		always, create, grace := corev1.ContainerRestartPolicyAlways, corev1.HostPathDirectoryOrCreate, int64(20)
		p.Spec.TerminationGracePeriodSeconds = &grace
		p.Spec.Volumes = []corev1.Volume{
			{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: shared, Type: &create}}},
		}
		mounts := []corev1.VolumeMount{{Name: "work", MountPath: "/work"}, {Name: "host", MountPath: "/host"}}
		sh := func(name, script string) corev1.Container {
			return corev1.Container{Name: name, Image: box, Command: []string{"sh", "-c", script}, ImagePullPolicy: corev1.PullNever, VolumeMounts: mounts}
		}
		side := sh("side", "echo side >> /host/order; trap 'echo side-term >> /host/order; exit 0' TERM; touch /work/side; while true; do sleep 1; done")
		side.RestartPolicy = &always
		side.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ls", "/work/side"}}}, PeriodSeconds: 1, FailureThreshold: 30}
		p.Spec.InitContainers = []corev1.Container{side, sh("init", "ls /work/side && echo init > /work/init")}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = mounts
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/live", Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1, FailureThreshold: 2, InitialDelaySeconds: 1}
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo post >> /work/post"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "cat /work/post >> /host/order; echo pre >> /host/order"}}},
		}
	}))
	n.eventually("all", "ready", ready)
	n.remove("all", 20)
	n.eventually("all", "gone", gone)
	b, err := os.ReadFile(filepath.Join(shared, "order"))
	must(t, err)
	want := "side\ninit\npost\npre\nterm\nside-term\n"
	if string(b) != want {
		t.Errorf("order:\n%s\nwant:\n%s", b, want)
	}
}

func TestALivenessProbeRestartsAndTheHostsNetworkIsTheHosts(t *testing.T) {
	n := newNode(t)
	n.create(pod("sick", "touch /tmp/well; sleep 1000", func(p *corev1.Pod) {
		p.Spec.HostNetwork, p.Spec.HostPID = true, true
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ls", "/tmp/well"}}}, PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1}
		p.Spec.Containers[0].Command[2] = "[ -e /proc/1/comm ] && echo $(ls /sys/class/net); touch /tmp/well; sleep 2; busybox rm /tmp/well; sleep 1000"
	}))
	p := n.eventually("sick", "restarted", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	if p.Status.PodIP != "10.99.0.1" {
		t.Errorf("address %s", p.Status.PodIP)
	}
	if out := n.log(p, "app"); !strings.Contains(out, bridgeName) {
		t.Errorf("not the host's links: %s", out)
	}
}

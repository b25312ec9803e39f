package real_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// says waits until a container's log has all of want.
func (n *node) says(name, container string, want ...string) {
	n.Helper()
	var out string
	n.eventually(name, "heard to say "+strings.Join(want, ", "), func(p *corev1.Pod) bool {
		if p == nil || p.Status.PodIP == "" {
			return false
		}
		b, err := os.ReadFile(filepath.Join(n.dir, "logs", p.Namespace+"_"+p.Name+"_"+string(p.UID), container, "0.log"))
		if err != nil {
			return false
		}
		out = string(b)
		for _, w := range want {
			if !strings.Contains(out, w) {
				return false
			}
		}
		return true
	})
}

func TestAPodGetsTheSecurityThatItAsksFor(t *testing.T) {
	n := newNode(t)
	profiles := filepath.Join(n.dir, "kubelet", "seccomp", "mine")
	must(t, os.MkdirAll(profiles, 0o755))
	must(t, os.WriteFile(filepath.Join(profiles, "nomkdir.json"), []byte(
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`), 0o600))
	yes, no, nobody := true, false, int64(65534)

	n.create(pod("confined", "busybox grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status; sleep 1000", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no,
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		}
	}))
	n.create(pod("profiled", "mkdir /tmp/x || echo denied; sleep 1000", func(p *corev1.Pod) {
		file := "mine/nomkdir.json"
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &file},
		}
	}))
	n.create(pod("shared", "cat /proc/1/comm; sleep 7654; true", func(p *corev1.Pod) {
		p.Spec.ShareProcessNamespace = &yes
		p.Spec.Containers = append(p.Spec.Containers, *p.Spec.Containers[0].DeepCopy())
		p.Spec.Containers[1].Name, p.Spec.Containers[1].Command[2] = "other", "sleep 1; busybox ps; sleep 1000"
	}))
	n.create(pod("tuned", "cat /proc/sys/net/ipv4/ip_local_port_range; sleep 1000", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_local_port_range", Value: "20000 20100"}}}
	}))
	n.create(pod("root", "id -u; sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes}
	}))
	n.create(pod("token", "stat -c '%a %u' -L /var/run/t/token; cat /var/run/t/token; echo; sleep 1000", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &nobody}
		p.Spec.Volumes = []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
		}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "t", MountPath: "/var/run/t"}}
	}))

	n.says("confined", "app", "Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000400")
	n.says("profiled", "app", "denied")
	n.says("shared", "app", "pause")
	n.says("shared", "other", "sleep 7654")
	n.says("tuned", "app", "20000\t20100")
	n.says("token", "app", "600 65534", "token-")
	n.eventually("root", "refused", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError" &&
			strings.Contains(p.Status.ContainerStatuses[0].State.Waiting.Message, "image will run as root")
	})
}

func TestAPodIsLookedIntoAndEndsAsItSays(t *testing.T) {
	n := newNode(t)
	n.create(pod("target", "sleep 4321", nil))
	n.create(pod("last-words", "echo it was; echo too much; exit 4", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}))
	n.create(pod("late", "sleep 1000", func(p *corev1.Pod) {
		three := int64(3)
		p.Spec.ActiveDeadlineSeconds = &three
	}))
	n.create(pod("placed", "echo here > /data/file; cat /info/limit; echo; sleep 1000", func(p *corev1.Pod) {
		create := corev1.HostPathDirectoryOrCreate
		p.Spec.Volumes = []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(n.dir, "data-of-pods"), Type: &create}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "limit", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}},
			}}}},
		}
		c := &p.Spec.Containers[0]
		c.Env = []corev1.EnvVar{{Name: "ME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
		c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data", SubPathExpr: "of/$(ME)"}, {Name: "info", MountPath: "/info"}}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("77Mi")}
	}))
	n.create(pod("of-images", "ls /img/bin/busybox /sub; sleep 1000", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "i", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: box, PullPolicy: corev1.PullNever}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "i", MountPath: "/img"}, {Name: "i", MountPath: "/sub", SubPath: "bin"}}
	}))
	p := n.eventually("target", "ready", ready)
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		TargetContainerName: "app",
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debug", Image: box, ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", "busybox ps; sleep 1000"},
		},
	}}
	_, err := n.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{})
	must(t, err)
	n.says("target", "debug", "sleep 4321")
	n.eventually("target", "seen to be looked into", func(p *corev1.Pod) bool {
		return len(p.Status.EphemeralContainerStatuses) == 1 && p.Status.EphemeralContainerStatuses[0].State.Running != nil
	})

	p = n.eventually("last-words", "ended", ended)
	if st := p.Status.ContainerStatuses[0].State.Terminated; st == nil || st.Message != "it was\ntoo much\n" {
		t.Errorf("last words: %+v", st)
	}
	n.says("placed", "app", "77")
	n.says("of-images", "app", "/img/bin/busybox", "hostname")
	if b, err := os.ReadFile(filepath.Join(n.dir, "data-of-pods", "of", "placed", "file")); err != nil || string(b) != "here\n" {
		t.Errorf("subPathExpr: %q, %v", b, err)
	}
	p = n.eventually("late", "ended", ended)
	if p.Status.Reason != "DeadlineExceeded" || p.Status.Phase != corev1.PodFailed {
		t.Errorf("late: %s %s", p.Status.Phase, p.Status.Reason)
	}
}

func TestARunningPodIsResizedInTheKernel(t *testing.T) {
	n := newNode(t)
	const root = "/sys/fs/cgroup/memory/"
	if _, err := os.Stat(root + "memory.limit_in_bytes"); err != nil {
		t.Skip("looks into cgroup v1")
	}
	limit := func(mem string) corev1.ResourceRequirements {
		l := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse(mem)}
		return corev1.ResourceRequirements{Requests: l, Limits: l}
	}
	n.create(pod("grows", "sleep 1000", func(p *corev1.Pod) { p.Spec.Containers[0].Resources = limit("32Mi") }))
	n.eventually("grows", "ready", ready)
	for _, size := range []string{"64Mi", "16Mi"} {
		p, err := n.client.CoreV1().Pods("default").Get(t.Context(), "grows", metav1.GetOptions{})
		must(t, err)
		p.Spec.Containers[0].Resources = limit(size)
		_, err = n.client.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{})
		must(t, err)
		want := resource.MustParse(size)
		n.eventually("grows", "of "+size, func(p *corev1.Pod) bool {
			id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
			for _, dir := range []string{"", id} { // the pod's own limit and the container's
				b, err := os.ReadFile(filepath.Join(root, n.cgroup, "kubepods", "poduid-grows", dir, "memory.limit_in_bytes"))
				if err != nil || strings.TrimSpace(string(b)) != want.AsDec().String() {
					return false
				}
			}
			return p.Status.ContainerStatuses[0].Resources != nil && p.Status.ContainerStatuses[0].Resources.Limits.Memory().Cmp(want) == 0
		})
	}
}

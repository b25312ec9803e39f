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

func TestPodsLiveAndDieOnContainerd(t *testing.T) {
	n := newNode(t)
	t.Run("runs and survives the kubelet", func(*testing.T) {
		n.create(pod("web", "sleep 1000", nil))
		p := n.eventually("web", "ready", ready)
		id := p.Status.ContainerStatuses[0].ContainerID
		if !strings.HasPrefix(id, "containerd://") || !strings.HasPrefix(p.Status.PodIP, "10.99.0.") {
			t.Errorf("id %q, ip %q", id, p.Status.PodIP)
		}
		n.stop()
		n.start()
		n.create(pod("other", "sleep 1000", nil))
		n.eventually("other", "ready", ready)
		p = n.eventually("web", "ready", ready)
		if got := p.Status.ContainerStatuses[0]; got.ContainerID != id || got.RestartCount != 0 {
			t.Errorf("container was replaced: %s, then %s with %d restarts", id, got.ContainerID, got.RestartCount)
		}
	})
	t.Run("says how it ended", func(*testing.T) {
		n.create(pod("done", "echo -n bye > /dev/termination-log; exit 3", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }))
		p := n.eventually("done", "ended", ended)
		st := p.Status.ContainerStatuses[0].State.Terminated
		if p.Status.Phase != corev1.PodFailed || st == nil || st.ExitCode != 3 || st.Message != "bye" || st.Reason != "Error" {
			t.Errorf("%s %+v", p.Status.Phase, st)
		}
	})
	t.Run("says that memory ran out", func(*testing.T) {
		n.create(pod("hog", "x=$(cat /dev/zero)", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
			p.Spec.Containers[0].Command = []string{"busybox", "sh", "-c", "busybox tail /dev/zero"}
		}))
		p := n.eventually("hog", "ended", ended)
		if st := p.Status.ContainerStatuses[0].State.Terminated; st == nil || st.ExitCode == 0 {
			t.Errorf("%+v", p.Status.ContainerStatuses[0])
		} else {
			t.Logf("reason %s, code %d", st.Reason, st.ExitCode)
		}
	})
	t.Run("stops within its grace", func(*testing.T) {
		n.create(pod("stubborn", "trap '' TERM; while true; do sleep 1; done", nil))
		n.eventually("stubborn", "ready", ready)
		n.remove("stubborn", 1)
		n.eventually("stubborn", "gone", gone)
	})
	t.Run("waits for an image that never comes", func(*testing.T) {
		n.create(pod("noimage", "true", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "local.test/nothing:1" }))
		n.eventually("noimage", "waiting", func(p *corev1.Pod) bool {
			return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
				p.Status.ContainerStatuses[0].State.Waiting.Reason == "ErrImageNeverPull"
		})
		n.remove("noimage", 30)
		n.eventually("noimage", "gone", gone)
	})
}

func TestPodSeesItsVolumesAndEnvironment(t *testing.T) {
	n := newNode(t)
	ctx := t.Context()
	_, err := n.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "conf", Namespace: "default"}, Data: map[string]string{"a": "one", "b": "two"},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = n.client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "sec", Namespace: "default"}, Data: map[string][]byte{"pw": []byte("hush")},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = n.client.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "my-svc", Namespace: "default"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.3.4", Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	must(t, err)
	mode := int32(0o400)
	user, group := int64(1000), int64(3000)
	n.create(pod("vols", strings.Join([]string{
		"id -u", "id -g", "cat /conf/a /conf/sub/b", "echo", "cat /sec/pw", "echo", "stat -L -c %a /sec/pw", "cat /var/run/token", "echo",
		"cat /info/labels", "echo", "echo $MINE $IP $CM $SE $MY_SVC_SERVICE_HOST $LIM", "touch /mem/x && stat -f -c %T /mem", "cat /one",
		"echo", "cat /etc/resolv.conf", "hostname", "cat /etc/hosts", "touch /sub/file", "touch /ro 2>/dev/null || echo readonly", "sleep 1000",
	}, "\n"), func(p *corev1.Pod) {
		yes := true
		c := &p.Spec.Containers[0]
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group}
		c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "conf"},
				Items:                []corev1.KeyToPath{{Key: "a", Path: "a"}, {Key: "b", Path: "sub/b"}},
			}}},
			{Name: "sec", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sec", DefaultMode: &mode}}},
			{Name: "tok", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			}}}},
			{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			}}}},
			{Name: "mem", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
			{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		}
		c.VolumeMounts = []corev1.VolumeMount{
			{Name: "conf", MountPath: "/conf"},
			{Name: "sec", MountPath: "/sec"},
			{Name: "tok", MountPath: "/var/run"},
			{Name: "info", MountPath: "/info"},
			{Name: "mem", MountPath: "/mem"},
			{Name: "conf", MountPath: "/one", SubPath: "a"},
			{Name: "disk", MountPath: "/sub", SubPath: "deep/down"},
		}
		c.Env = []corev1.EnvVar{
			{Name: "MINE", Value: "$(MY_SVC_SERVICE_PORT)-$$(X)"},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			{Name: "CM", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "a"}}},
			{Name: "SE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "sec"}, Key: "pw"}}},
			{Name: "LIM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
	}))
	p := n.eventually("vols", "ready", ready)
	var out string
	n.eventually("vols", "done talking", func(*corev1.Pod) bool {
		out = n.log(p, "app")
		return strings.Contains(out, "readonly")
	})
	for _, want := range []string{
		"1000\n3000\n", "onetwo\n", "hush\n440\n", "token-", "app=\"vols\"", "80-$(X) " + p.Status.PodIP + " one hush 10.96.3.4 64\n", "tmpfs\none\n",
		"nameserver 10.96.0.10", "search default.svc.cluster.local svc.cluster.local cluster.local", "ndots:5", "vols\n", p.Status.PodIP + "\tvols",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/memory/" + n.cgroup + "/kubepods/poduid-vols/memory.limit_in_bytes"); err == nil && strings.TrimSpace(string(b)) != "67108864" {
		t.Errorf("pod's memory limit %s", b)
	}
	cm, err := n.client.CoreV1().ConfigMaps("default").Get(ctx, "conf", metav1.GetOptions{})
	must(t, err)
	cm.Data["a"], cm.ResourceVersion = "changed", "2"
	_, err = n.client.CoreV1().ConfigMaps("default").Update(ctx, cm, metav1.UpdateOptions{})
	must(t, err)
	n.eventually("vols", "updated", func(*corev1.Pod) bool {
		b, err := os.ReadFile(n.dir + "/kubelet/pods/uid-vols/volumes/kubernetes.io~configmap/conf/a")
		return err == nil && string(b) == "changed"
	})
}

func TestLogsAreRotated(t *testing.T) {
	n := newNode(t)
	n.create(pod("loud", "seq 1 900000; while true; do echo more; sleep 1; done", nil))
	p := n.eventually("loud", "ready", ready)
	dir := filepath.Join(n.dir, "logs", "default_loud_"+string(p.UID), "app")
	n.eventually("loud", "rotated", func(*corev1.Pod) bool {
		old, err := filepath.Glob(filepath.Join(dir, "0.log.*"))
		must(t, err)
		return len(old) == 1
	})
	n.eventually("loud", "writing to a new file", func(*corev1.Pod) bool {
		b, err := os.ReadFile(filepath.Join(dir, "0.log"))
		return err == nil && strings.Contains(string(b), "more") && len(b) < 10<<20
	})
}

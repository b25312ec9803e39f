package validation_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/validation"
)

// words are errors as a client reads them.
func words(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Field+": "+e.ErrorBody())
	}
	return out
}

func pod() *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", ResourceVersion: "1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "nginx:1"}}},
	}
	defaulting.Pod(p)
	return p
}

type podCase struct {
	rule   string
	change func(p *corev1.Pod, c *corev1.Container)
	want   []string
}

func podCases() []podCase {
	return []podCase{
		{"a plain pod is valid", func(*corev1.Pod, *corev1.Container) {}, nil},
		{
			"a pod has containers", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.Containers = nil },
			[]string{"spec.containers: Required value"},
		},
		{
			"containers have an image", func(_ *corev1.Pod, c *corev1.Container) { c.Image = "" },
			[]string{"spec.containers[0].image: Required value"},
		},
		{
			"images have no space around", func(_ *corev1.Pod, c *corev1.Container) { c.Image = " a" },
			[]string{`spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace`},
		},
		{
			"names of containers differ", func(p *corev1.Pod, c *corev1.Container) { p.Spec.Containers = append(p.Spec.Containers, *c) },
			[]string{`spec.containers[1].name: Duplicate value: "c"`},
		},
		{
			"restart policies are three", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.RestartPolicy = "x" },
			[]string{`spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never"`},
		},
		{
			"dnsPolicy None needs a server", func(p *corev1.Pod, _ *corev1.Container) { p.Spec.DNSPolicy = corev1.DNSNone },
			[]string{"spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"},
		},
		{"ports have numbers", func(_ *corev1.Pod, c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{Protocol: "TCP"}, {ContainerPort: 70000, Protocol: "X"}}
		}, []string{
			"spec.containers[0].ports[0].containerPort: Required value",
			"spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
			`spec.containers[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`,
		}},
		{"host ports are taken once", func(_ *corev1.Pod, c *corev1.Container) {
			c.Ports = []corev1.ContainerPort{{ContainerPort: 1, HostPort: 1, Protocol: "TCP"}, {ContainerPort: 2, HostPort: 1, Protocol: "TCP"}}
		}, []string{`spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//1"`}},
		{"in the host's network ports keep their number", func(p *corev1.Pod, c *corev1.Container) {
			p.Spec.HostNetwork = true
			c.Ports = []corev1.ContainerPort{{ContainerPort: 1, HostPort: 2, Protocol: "TCP"}}
		}, []string{"spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true"}},
		{"a variable has one source", func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{}}, {Name: "B", Value: "x", ValueFrom: &corev1.EnvVarSource{
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"},
			}}}
		}, []string{
			"spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
			"spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
		}},
		{"the environment shows some fields", func(_ *corev1.Pod, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels"}}}}
		}, []string{`spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"`}},
		{"mounts name a volume", func(_ *corev1.Pod, c *corev1.Container) {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "no", MountPath: "/x", SubPath: "../y"}}
		}, []string{
			`spec.containers[0].volumeMounts[0].name: Not found: "no"`,
			`spec.containers[0].volumeMounts.subPath: Invalid value: "../y": must not contain '..'`,
		}},
		{"a volume has one source", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.Volumes = []corev1.Volume{{Name: "none"}, {Name: "two", VolumeSource: corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{}, HostPath: &corev1.HostPathVolumeSource{Path: "/x"},
			}}}
		}, []string{
			"spec.volumes[0]: Required value: must specify a volume type",
			"spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
		}},
		{"a probe has one handler", func(_ *corev1.Pod, c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{SuccessThreshold: 2}
		}, []string{
			"spec.containers[0].livenessProbe: Required value: must specify a handler type",
			"spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
		}},
		{"a probe's port is a number or a name", func(_ *corev1.Pod, c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(0)}}}
		}, []string{"spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"}},
		{"init containers have no probes", func(p *corev1.Pod, c *corev1.Container) {
			i := *c
			i.Name, i.LivenessProbe = "i", &corev1.Probe{}
			p.Spec.InitContainers = []corev1.Container{i}
		}, []string{"spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"}},
		{"requests stay within limits", func(_ *corev1.Pod, c *corev1.Container) {
			c.Resources = corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("2"), "gpu": resource.MustParse("1")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1")},
			}
		}, []string{
			`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
			`spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified`,
			`spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers`,
		}},
		{"privilege and no escalation exclude each other", func(_ *corev1.Pod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Privileged: new(true)}
		}, []string{
			"spec.containers[0].securityContext: Invalid value: {\"Capabilities\":null,\"Privileged\":true,\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\"SeccompProfile\":null,\"AppArmorProfile\":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
		}},
		{"tolerations of all taints say so", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpEqual}}
		}, []string{`spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when ` + "`key`" + ` is empty, which means "match all values and all keys"`}},
		{"spread has a skew, a key and an action", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{}}
		}, []string{
			"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
			"spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
			`spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "": supported values: "DoNotSchedule", "ScheduleAnyway"`,
		}},
		{"required node affinity has terms", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}
		}, []string{"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"}},
		{"gated pods have no node", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.NodeName, p.Spec.SchedulingGates = "n", []corev1.PodSchedulingGate{{Name: "g"}}
		}, []string{"spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"}},
		{"ephemeral containers come later", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "e", Image: "i", ImagePullPolicy: "Always", TerminationMessagePolicy: "File",
			}}}
		}, []string{"spec.ephemeralContainers: Forbidden: cannot be set on create"}},
		{"tokens need an account", func(p *corev1.Pod, _ *corev1.Container) {
			p.Spec.Volumes = []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t", ExpirationSeconds: new(int64(3600))}}},
			}}}}
		}, []string{"spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"}},
	}
}

func TestPodRules(t *testing.T) {
	for _, tc := range podCases() {
		t.Run(tc.rule, func(t *testing.T) {
			p := pod()
			tc.change(p, &p.Spec.Containers[0])
			if d := cmp.Diff(tc.want, words(validation.Pod(p))); d != "" {
				t.Errorf("errors (-want +got):\n%s", d)
			}
		})
	}
}

func TestPodUpdateChangesLittle(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		before func(p *corev1.Pod)
		change func(p *corev1.Pod)
		want   []string
	}{
		{"images may change", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx:2" }, nil},
		{"tolerations may be added", nil, func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
		}, nil},
		{
			"tolerations may not go", func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "k", Operator: corev1.TolerationOpExists}}
			},
			func(p *corev1.Pod) { p.Spec.Tolerations = nil },
			[]string{"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"},
		},
		{"containers may not be added", nil, func(p *corev1.Pod) {
			c := p.Spec.Containers[0]
			c.Name = "d"
			p.Spec.Containers = append(p.Spec.Containers, c)
		}, []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}},
		{
			"a deadline may come nearer", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(9)) },
			func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(5)) }, nil,
		},
		{
			"a deadline may not recede", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(5)) },
			func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(9)) },
			[]string{"spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value"},
		},
		{
			"gates may only go", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} },
			func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "h"}} },
			[]string{"spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"},
		},
		{
			"a gated pod may become choosier", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} },
			func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, nil,
		},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			old := pod()
			if tc.before != nil {
				tc.before(old)
			}
			p := old.DeepCopy()
			tc.change(p)
			if d := cmp.Diff(tc.want, words(validation.PodUpdate(p, old))); d != "" {
				t.Errorf("errors (-want +got):\n%s", d)
			}
		})
	}
}

func TestPodUpdateNamesWhatMayChange(t *testing.T) {
	old := pod()
	p := old.DeepCopy()
	p.Spec.Containers[0].Command = []string{"sh"}
	errs := validation.PodUpdate(p, old)
	if len(errs) != 1 || errs[0].Field != "spec" {
		t.Fatalf("errors: got %v, want one on spec", errs)
	}
	const want = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`," +
		"`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations)," +
		"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
	if got := errs[0].Detail; len(got) <= len(want) || got[:len(want)] != want {
		t.Errorf("detail: got %q, want it to begin with %q and show the difference", got, want)
	}
}

func TestPodStatusKeepsEndedContainersEnded(t *testing.T) {
	ended := corev1.ContainerStatus{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}
	running := corev1.ContainerStatus{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	for policy, want := range map[corev1.RestartPolicy][]string{
		corev1.RestartPolicyAlways:    nil,
		corev1.RestartPolicyOnFailure: nil,
		corev1.RestartPolicyNever:     {"status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"},
	} {
		old := pod()
		old.Spec.RestartPolicy = policy
		old.Status.ContainerStatuses = []corev1.ContainerStatus{ended}
		p := old.DeepCopy()
		p.Status.ContainerStatuses = []corev1.ContainerStatus{running}
		if d := cmp.Diff(want, words(validation.PodStatusUpdate(p, old))); d != "" {
			t.Errorf("%s (-want +got):\n%s", policy, d)
		}
	}
}

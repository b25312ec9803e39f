package validation_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skein.dev/skein/apiserver/defaulting"
	"skein.dev/skein/apiserver/validation"
)

func named() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: "x", Namespace: "default", ResourceVersion: "1"}
}

func service() *corev1.Service {
	s := &corev1.Service{ObjectMeta: named(), Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Port: 80}}, ClusterIP: "10.0.0.1", ClusterIPs: []string{"10.0.0.1"},
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
	}}
	defaulting.Service(s)
	return s
}

func TestServiceRules(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		change func(s *corev1.Service)
		want   []string
	}{
		{"a plain service is valid", func(*corev1.Service) {}, nil},
		{"names may begin with a digit", func(s *corev1.Service) { s.Name = "1x" }, nil},
		{"a service has ports", func(s *corev1.Service) { s.Spec.Ports = nil }, []string{"spec.ports: Required value"}},
		{"a headless one need not", func(s *corev1.Service) {
			s.Spec.Ports, s.Spec.ClusterIP, s.Spec.ClusterIPs = nil, "None", []string{"None"}
		}, nil},
		{"several ports have names", func(s *corev1.Service) { s.Spec.Ports = append(s.Spec.Ports, s.Spec.Ports[0]) }, []string{
			"spec.ports[0].name: Required value", "spec.ports[1].name: Required value",
			`spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}`,
		}},
		{
			"types are four", func(s *corev1.Service) { s.Spec.Type, s.Spec.InternalTrafficPolicy = "X", nil },
			[]string{`spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"`},
		},
		{"an external name has no address", func(s *corev1.Service) { s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "a.b." }, []string{
			"spec.clusterIPs: Forbidden: may not be set for ExternalName services",
			"spec.ipFamilies: Forbidden: may not be set for ExternalName services",
		}},
		{
			"addresses fit their families", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "fd00::1", []string{"fd00::1"} },
			[]string{"spec.clusterIPs[0]: Invalid value: \"fd00::1\": expected an IPv4 value as indicated by `ipFamilies[0]`"},
		},
		{"external addresses are not local", func(s *corev1.Service) {
			s.Spec.ExternalIPs, s.Spec.ExternalTrafficPolicy = []string{"127.0.0.1"}, corev1.ServiceExternalTrafficPolicyCluster
		}, []string{`spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`}},
		{
			"leading zeros are refused", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.0.0.01", []string{"10.0.0.01"} },
			[]string{`spec.clusterIPs[0]: Invalid value: "10.0.0.01": must not have leading 0s`},
		},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			s := service()
			tc.change(s)
			if d := cmp.Diff(tc.want, words(validation.Service(s))); d != "" {
				t.Errorf("errors (-want +got):\n%s", d)
			}
		})
	}
}

func TestServiceKeepsItsAddress(t *testing.T) {
	old := service()
	s := old.DeepCopy()
	s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.0.0.2", []string{"10.0.0.2"}
	want := []string{`spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set`}
	if d := cmp.Diff(want, words(validation.ServiceUpdate(s, old))); d != "" {
		t.Errorf("errors (-want +got):\n%s", d)
	}
}

func deployment() *appsv1.Deployment {
	labels := map[string]string{"a": "b"}
	d := &appsv1.Deployment{ObjectMeta: named(), Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
	}}
	defaulting.Deployment(d)
	return d
}

func TestDeploymentRules(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		change func(d *appsv1.Deployment)
		want   []string
	}{
		{"a plain deployment is valid", func(*appsv1.Deployment) {}, nil},
		{
			"the selector selects the template", func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"a": "c"} },
			[]string{"spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"},
		},
		{
			"a selector selects something", func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			[]string{"spec.selector: Invalid value: {}: empty selector is invalid for deployment"},
		},
		{"a roll moves", func(d *appsv1.Deployment) {
			d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: new(intstr.FromInt32(0)), MaxUnavailable: new(intstr.FromString("0%"))}
		}, []string{"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{
			"recreating does not roll", func(d *appsv1.Deployment) { d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType },
			[]string{"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"},
		},
		{
			"pods are always restarted", func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever },
			[]string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`},
		},
		{
			"the deadline is later than readiness", func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			[]string{"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"},
		},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			d := deployment()
			tc.change(d)
			if diff := cmp.Diff(tc.want, words(validation.Deployment(d))); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSelectorsStay(t *testing.T) {
	old := deployment()
	d := old.DeepCopy()
	d.Spec.Selector.MatchLabels, d.Spec.Template.Labels = map[string]string{"c": "d"}, map[string]string{"c": "d"}
	want := []string{`spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable`}
	if diff := cmp.Diff(want, words(validation.DeploymentUpdate(d, old))); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestOtherKindsRules(t *testing.T) {
	for rule, tc := range map[string]struct {
		got  func() field.ErrorList
		want []string
	}{
		"a TLS secret has both parts": {func() field.ErrorList {
			return validation.Secret(&corev1.Secret{ObjectMeta: named(), Type: corev1.SecretTypeTLS})
		}, []string{"data[tls.crt]: Required value", "data[tls.key]: Required value"}},
		"a sealed secret stays": {func() field.ErrorList {
			old := &corev1.Secret{ObjectMeta: named(), Type: "x", Immutable: new(true), Data: map[string][]byte{"a": nil}}
			return validation.SecretUpdate(&corev1.Secret{ObjectMeta: named(), Type: "x"}, old)
		}, []string{
			"immutable: Forbidden: field is immutable when `immutable` is set",
			"data: Forbidden: field is immutable when `immutable` is set",
		}},
		"a secret is at most a mebibyte": {func() field.ErrorList {
			return validation.Secret(&corev1.Secret{ObjectMeta: named(), Data: map[string][]byte{"a": make([]byte, 1<<20+1)}})
		}, []string{"data: Too long: may not be more than 1048576 bytes"}},
		"a key has one place": {func() field.ErrorList {
			return validation.ConfigMap(&corev1.ConfigMap{ObjectMeta: named(), Data: map[string]string{"a": ""}, BinaryData: map[string][]byte{"a": nil}})
		}, []string{`data[a]: Invalid value: "a": duplicate of key present in binaryData`}},
		"roles do not reach beyond resources": {func() field.ErrorList {
			return validation.Role(&rbacv1.Role{ObjectMeta: named(), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}}})
		}, []string{`rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`}},
		"a binding keeps its role": {func() field.ErrorList {
			old := &rbacv1.RoleBinding{ObjectMeta: named(), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "a"}}
			b := old.DeepCopy()
			b.RoleRef.Name = "b"
			return validation.RoleBindingUpdate(b, old)
		}, []string{`roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: field is immutable`}},
		"subjects are three": {func() field.ErrorList {
			return validation.RoleBinding(&rbacv1.RoleBinding{
				ObjectMeta: named(), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "a"}, Subjects: []rbacv1.Subject{{Kind: "X", Name: "y"}},
			})
		}, []string{`subjects[0].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group"`}},
		"taints are unique": {func() field.ErrorList {
			m := named()
			m.Namespace = ""
			taint := corev1.Taint{Key: "k", Effect: corev1.TaintEffectNoSchedule}
			return validation.Node(&corev1.Node{ObjectMeta: m, Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint, taint}}})
		}, []string{`metadata.taints[1]: Duplicate value: {"Key":"k","Value":"","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair`}},
		"slices hold addresses of their family": {func() field.ErrorList {
			return validation.EndpointSlice(&discoveryv1.EndpointSlice{
				ObjectMeta: named(), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}}},
			})
		}, []string{`endpoints[0].addresses: Invalid value: "fd00::1": must be an IPv4 address`}},
	} {
		t.Run(rule, func(t *testing.T) {
			if d := cmp.Diff(tc.want, words(tc.got())); d != "" {
				t.Errorf("errors (-want +got):\n%s", d)
			}
		})
	}
}

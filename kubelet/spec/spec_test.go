package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/spec"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)"}
	for in, want := range map[string]string{
		"$(A)":         "1",
		"x$(A)y$(A)":   "x1y1",
		"$(B)":         "$(A)", // values are not expanded again
		"$$(A)":        "$(A)",
		"$$$(A)":       "$1",
		"$(NONE)":      "$(NONE)",
		"$(A":          "$(A",
		"$A $":         "$A $",
		"":             "",
		"$(A)$(NO)$$B": "1$(NO)$B",
	} {
		if got := spec.Expand(in, vars); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDNSFollowsThePolicy(t *testing.T) {
	host := &runtimeapi.DNSConfig{Servers: []string{"192.0.2.53"}, Searches: []string{"corp.test"}, Options: []string{"timeout:1"}}
	r := spec.Resolver{Cluster: []string{"10.96.0.10"}, Domain: "cluster.local", Host: host}
	cluster := &runtimeapi.DNSConfig{
		Servers:  []string{"10.96.0.10"},
		Searches: []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.test"},
		Options:  []string{"ndots:5"},
	}
	two := "2"
	for name, c := range map[string]struct {
		spec corev1.PodSpec
		want *runtimeapi.DNSConfig
	}{
		"ClusterFirst":                          {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, cluster},
		"ClusterFirst on the host's network":    {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, host},
		"ClusterFirstWithHostNet":               {corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true}, cluster},
		"Default is the host's":                 {corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, host},
		"None is what the pod says and no more": {corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{Nameservers: []string{"9.9.9.9"}}}, &runtimeapi.DNSConfig{Servers: []string{"9.9.9.9"}}},
		"dnsConfig replaces options by name": {
			corev1.PodSpec{DNSPolicy: corev1.DNSDefault, DNSConfig: &corev1.PodDNSConfig{
				Searches: []string{"more.test"}, Options: []corev1.PodDNSConfigOption{{Name: "timeout", Value: &two}, {Name: "edns0"}},
			}},
			&runtimeapi.DNSConfig{Servers: host.Servers, Searches: []string{"corp.test", "more.test"}, Options: []string{"timeout:2", "edns0"}},
		},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: c.spec}
		got := spec.DNS(pod, r)
		for _, f := range []struct{ got, want []string }{{got.Servers, c.want.Servers}, {got.Searches, c.want.Searches}, {got.Options, c.want.Options}} {
			if d := cmp.Diff(strings.Join(f.want, " "), strings.Join(f.got, " ")); d != "" {
				t.Errorf("%s (-want +got): %s", name, d)
			}
		}
	}
}

func TestParseResolvConfKeepsTheLastSearch(t *testing.T) {
	got, err := spec.ParseResolvConf(strings.NewReader("# c\nnameserver 1.1.1.1\nsearch a b\nsearch c\noptions ndots:2 rotate\nnonsense\n"))
	if err != nil || strings.Join(got.Searches, ",") != "c" || strings.Join(got.Options, ",") != "ndots:2,rotate" || got.Servers[0] != "1.1.1.1" {
		t.Errorf("%v %v", got, err)
	}
}

func list(cpu, mem string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if mem != "" {
		l[corev1.ResourceMemory] = resource.MustParse(mem)
	}
	return l
}

func TestResourcesBecomeCgroupValues(t *testing.T) {
	const gib = 1 << 30
	for name, c := range map[string]struct {
		requests, limits     corev1.ResourceList
		class                corev1.PodQOSClass
		shares, quota, score int64
	}{
		"nothing":                      {nil, nil, corev1.PodQOSBestEffort, 2, 0, 1000},
		"request only":                 {list("500m", "512Mi"), nil, corev1.PodQOSBurstable, 512, 0, 500},
		"limit stands for the request": {nil, list("250m", ""), corev1.PodQOSBurstable, 256, 25000, 999},
		"guaranteed":                   {list("1", "1Gi"), list("1", "1Gi"), corev1.PodQOSGuaranteed, 1024, 100000, -997},
		"a quota has a least value":    {nil, list("1m", ""), corev1.PodQOSBurstable, 2, 1000, 999},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Resources: corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits}}}}}
		r := spec.ContainerResources(pod, &pod.Spec.Containers[0], gib, false)
		if q := spec.QOS(pod); q != c.class || r.CpuShares != c.shares || r.CpuQuota != c.quota || r.OomScoreAdj != c.score {
			t.Errorf("%s: %s %+v", name, q, r)
		}
	}
}

func TestCgroupParentIsByClass(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	if got := spec.CgroupParent("peer1", pod); got != "/peer1/kubepods/besteffort/podu" {
		t.Error(got)
	}
}

func TestResourceFieldRoundsUpAndDefaultsToTheNode(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Resources: corev1.ResourceRequirements{Limits: list("1200m", "")}}}}}
	for sel, want := range map[corev1.ResourceFieldSelector]string{
		{Resource: "limits.cpu"}:      "2",
		{Resource: "requests.memory"}: "0",
		{Resource: "limits.memory"}:   "2048",
	} {
		got, err := spec.Resource(pod, "a", &sel, list("", "2048"))
		if err != nil || got != want {
			t.Errorf("%s = %s %v, want %s", sel.Resource, got, err, want)
		}
	}
	if _, err := spec.Resource(pod, "b", &corev1.ResourceFieldSelector{Resource: "limits.cpu"}, nil); err == nil {
		t.Error("a container that is not there has resources")
	}
}

func TestRunAsNonRootRefusesRoot(t *testing.T) {
	yes, zero, some := true, int64(0), int64(7)
	for name, c := range map[string]struct {
		user *int64
		img  spec.ImageUser
		ok   bool
	}{
		"image runs as root":       {nil, spec.ImageUser{UID: &zero}, false},
		"image runs as a user":     {nil, spec.ImageUser{UID: &some}, true},
		"image names a user":       {nil, spec.ImageUser{Name: "app"}, false},
		"spec says root":           {&zero, spec.ImageUser{UID: &some}, false},
		"spec says a user instead": {&some, spec.ImageUser{UID: &zero}, true},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", SecurityContext: &corev1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: c.user}}}}}
		_, err := spec.MakeContainer(spec.ContainerInput{Pod: pod, Container: &pod.Spec.Containers[0], User: c.img, Env: &spec.Env{}})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServiceVars(t *testing.T) {
	got := spec.ServiceVars([]*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Name: "my-db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Name: "sql", Port: 5432, Protocol: corev1.ProtocolTCP}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "headless"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 1}}}},
	})
	want := map[string]string{
		"MY_DB_SERVICE_HOST": "10.0.0.1", "MY_DB_SERVICE_PORT": "5432", "MY_DB_SERVICE_PORT_SQL": "5432",
		"MY_DB_PORT": "tcp://10.0.0.1:5432", "MY_DB_PORT_5432_TCP": "tcp://10.0.0.1:5432", "MY_DB_PORT_5432_TCP_PROTO": "tcp",
		"MY_DB_PORT_5432_TCP_PORT": "5432", "MY_DB_PORT_5432_TCP_ADDR": "10.0.0.1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestHostsFile(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "db-0", Namespace: "ns"},
		Spec:       corev1.PodSpec{Hostname: "db-0", Subdomain: "db", HostAliases: []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}}},
	}
	got := string(spec.Hosts(pod, []string{"10.1.0.2", "fd00::2"}, nil, "cluster.local"))
	for _, want := range []string{"10.1.0.2\tdb-0.db.ns.svc.cluster.local\tdb-0\n", "fd00::2\tdb-0.db", "1.2.3.4\ta\tb\n", "127.0.0.1\tlocalhost\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

package endpointslicemirroring_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skein.dev/skein/controllers/endpointslicemirroring"
)

func endpoints(port int32, ips ...string) *endpointslicemirroring.Endpoints {
	ep := &endpointslicemirroring.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default", UID: "u", Labels: map[string]string{"a": "b"}}}
	ep.Subsets = append(ep.Subsets, corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "web", Port: port, Protocol: corev1.ProtocolTCP}}}) //nolint:staticcheck // as above
	for _, ip := range ips {
		ep.Subsets[0].Addresses = append(ep.Subsets[0].Addresses, corev1.EndpointAddress{IP: ip})
	}
	return ep
}

func TestSlicesMirrorBothFamilies(t *testing.T) {
	got := endpointslicemirroring.Slices(endpoints(80, "10.0.0.1", "fd00::1", "10.0.0.2"))
	if len(got) != 2 || got[0].AddressType != discoveryv1.AddressTypeIPv4 || len(got[0].Endpoints) != 2 || len(got[1].Endpoints) != 1 {
		t.Fatalf("%+v", got)
	}
	if l := got[0].Labels; l[discoveryv1.LabelServiceName] != "s" || l["a"] != "b" || l[discoveryv1.LabelManagedBy] == "" {
		t.Errorf("labels %v", l)
	}
}

func TestDiffKeepsWhatCanBeKept(t *testing.T) {
	have := endpointslicemirroring.Slices(endpoints(80, "10.0.0.1"))
	have[0].Name = "s-1"
	if ch := endpointslicemirroring.Diff(have, endpointslicemirroring.Slices(endpoints(80, "10.0.0.1"))); len(ch.Create)+len(ch.Update)+len(ch.Delete) != 0 {
		t.Errorf("no change is written: %+v", ch)
	}
	if ch := endpointslicemirroring.Diff(have, endpointslicemirroring.Slices(endpoints(80, "10.0.0.2"))); len(ch.Update) != 1 || ch.Update[0].Name != "s-1" || len(ch.Create) != 0 {
		t.Errorf("another address: %+v", ch)
	}
	if ch := endpointslicemirroring.Diff(have, endpointslicemirroring.Slices(endpoints(81, "10.0.0.1"))); len(ch.Create) != 1 || len(ch.Delete) != 1 {
		t.Errorf("another port: %+v", ch)
	}
	if ch := endpointslicemirroring.Diff(have, nil); len(ch.Delete) != 1 {
		t.Errorf("nothing to mirror: %+v", ch)
	}
}

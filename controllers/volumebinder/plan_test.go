package volumebinder_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skein.dev/skein/controllers/volumebinder"
)

func volume(name, size, class string, edit ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, StorageClassName: class,
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
	}}
	v.Status.Phase = corev1.VolumeAvailable
	for _, f := range edit {
		f(v)
	}
	return v
}

func claimedBy(uid string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c", UID: types.UID(uid)}
	}
}

func claim(class string, edit ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default", UID: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}},
	}}
	for _, f := range edit {
		f(c)
	}
	return c
}

func names(v string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = v }
}

func complete(c *corev1.PersistentVolumeClaim) {
	c.Annotations = map[string]string{"pv.kubernetes.io/bind-completed": "yes"}
}

func noClass(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }

func many(c *corev1.PersistentVolumeClaim) {
	c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
}

func TestDecideClaim(t *testing.T) {
	wait := storagev1.VolumeBindingWaitForFirstConsumer
	classes := map[string]*storagev1.StorageClass{
		"dyn": {Provisioner: "example.com/p"}, "hand": {Provisioner: "kubernetes.io/no-provisioner"},
		"late": {Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: &wait},
	}
	for _, row := range []struct {
		name     string
		claim    *corev1.PersistentVolumeClaim
		volumes  []*corev1.PersistentVolume
		fallback string
		bind     string
		phase    corev1.PersistentVolumeClaimPhase
		reason   string
		other    string // class or provisioner
	}{
		{name: "the smallest that suffices", claim: claim("hand"), volumes: []*corev1.PersistentVolume{volume("big", "9Gi", "hand"), volume("fit", "3Gi", "hand"), volume("small", "1Gi", "hand")}, bind: "fit", phase: corev1.ClaimBound},
		{name: "of its class", claim: claim("hand"), volumes: []*corev1.PersistentVolume{volume("x", "3Gi", "other")}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		{name: "with its access modes", claim: claim("hand", many), volumes: []*corev1.PersistentVolume{volume("x", "3Gi", "hand")}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		{name: "what is kept for it, first", claim: claim("hand"), volumes: []*corev1.PersistentVolume{volume("a", "2Gi", "hand"), volume("kept", "9Gi", "hand", claimedBy(""))}, bind: "kept", phase: corev1.ClaimBound},
		{name: "not another's", claim: claim("hand"), volumes: []*corev1.PersistentVolume{volume("a", "2Gi", "hand", claimedBy("x"))}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		{name: "late classes wait for a pod", claim: claim("late"), volumes: []*corev1.PersistentVolume{volume("a", "2Gi", "late")}, phase: corev1.ClaimPending, reason: "WaitForFirstConsumer"},
		{name: "until the scheduler has chosen", claim: claim("late"), volumes: []*corev1.PersistentVolume{volume("a", "2Gi", "late", claimedBy("c"))}, bind: "a", phase: corev1.ClaimBound},
		{name: "a provisioner is asked", claim: claim("dyn"), phase: corev1.ClaimPending, reason: "ExternalProvisioning", other: "example.com/p"},
		{name: "the default class is given later, too", claim: claim("", noClass), fallback: "dyn", phase: corev1.ClaimPending, other: "dyn"},
		{name: "but not to who wants none", claim: claim(""), fallback: "dyn", phase: corev1.ClaimPending, reason: "FailedBinding"},
		{name: "a class that is not there", claim: claim("nope"), phase: corev1.ClaimPending, reason: "ProvisioningFailed"},
		{name: "the volume it names", claim: claim("hand", names("v")), volumes: []*corev1.PersistentVolume{volume("a", "2Gi", "hand"), volume("v", "5Gi", "hand")}, bind: "v", phase: corev1.ClaimBound},
		{name: "if that is large enough", claim: claim("hand", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "1Gi", "hand")}, phase: corev1.ClaimPending, reason: "VolumeMismatch"},
		{name: "and is free", claim: claim("hand", names("v")), volumes: []*corev1.PersistentVolume{volume("v", "5Gi", "hand", claimedBy("x"))}, phase: corev1.ClaimPending, reason: "FailedBinding"},
		{name: "and is there", claim: claim("hand", names("v")), phase: corev1.ClaimPending},
		{name: "a bound claim stays bound", claim: claim("hand", names("v"), complete), volumes: []*corev1.PersistentVolume{volume("v", "5Gi", "hand", claimedBy("c"))}, bind: "v", phase: corev1.ClaimBound},
		{name: "or is lost", claim: claim("hand", names("v"), complete), volumes: []*corev1.PersistentVolume{volume("a", "5Gi", "hand")}, phase: corev1.ClaimLost, reason: "ClaimLost"},
		{name: "to another claim", claim: claim("hand", names("v"), complete), volumes: []*corev1.PersistentVolume{volume("v", "5Gi", "hand", claimedBy("x"))}, phase: corev1.ClaimLost, reason: "ClaimMisbound"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := volumebinder.DecideClaim(row.claim, row.volumes, volumebinder.Classes{
				ByName: func(n string) *storagev1.StorageClass { return classes[n] }, Default: row.fallback,
			})
			got := ""
			if p.Bind != nil {
				got = p.Bind.Name
			}
			if got != row.bind || p.Phase != row.phase || p.Reason != row.reason || p.Class+p.Provision != row.other {
				t.Errorf("bind %q phase %s reason %q other %q (%s)", got, p.Phase, p.Reason, p.Class+p.Provision, p.Message)
			}
		})
	}
}

func TestDecideVolume(t *testing.T) {
	failed := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeFailed }
	for _, row := range []struct {
		name   string
		volume *corev1.PersistentVolume
		claim  *corev1.PersistentVolumeClaim
		want   corev1.PersistentVolumePhase
		unbind bool
	}{
		{name: "free", volume: volume("v", "1Gi", ""), want: corev1.VolumeAvailable},
		{name: "kept for a claim", volume: volume("v", "1Gi", "", claimedBy("")), want: corev1.VolumeAvailable},
		{name: "bound", volume: volume("v", "1Gi", "", claimedBy("c")), claim: claim("", names("v")), want: corev1.VolumeBound},
		{name: "being bound", volume: volume("v", "1Gi", "", claimedBy("c")), claim: claim(""), want: corev1.VolumeAvailable},
		{name: "its claim is gone", volume: volume("v", "1Gi", "", claimedBy("c")), want: corev1.VolumeReleased},
		{name: "another claim has the name", volume: volume("v", "1Gi", "", claimedBy("old")), claim: claim("", names("v")), want: corev1.VolumeReleased},
		{name: "failure is for people", volume: volume("v", "1Gi", "", claimedBy("c"), failed), want: corev1.VolumeFailed},
		{name: "its claim took another volume", volume: volume("v", "1Gi", "", claimedBy("c")), claim: claim("", names("w")), want: corev1.VolumeAvailable, unbind: true},
	} {
		if p := volumebinder.DecideVolume(row.volume, row.claim); p.Phase != row.want || p.Unbind != row.unbind {
			t.Errorf("%s: %+v, want %s", row.name, p, row.want)
		}
	}
}

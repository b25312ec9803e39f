package admit

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
)

const (
	defaultAccount = "default"
	// accountMount is where programs look for their token.
	accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"
	accountName  = "kube-api-access-"
	rootCAName   = "kube-root-ca.crt"
	// tokenSeconds is an hour and a little, so that tools can tell these
	// tokens from those that users asked for, as upstream does.
	tokenSeconds = int64(3607)

	// A new namespace has its default account a moment later.
	accountTries = 10
	accountPause = 100 * time.Millisecond
)

// serviceAccount gives each pod an account and the means to use it.
func (c Config) serviceAccount(ctx context.Context, a admission.Attributes) error {
	p := newPod(a)
	if p == nil {
		return nil
	}
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		if p.Spec.ServiceAccountName != "" {
			return refuse(a, "a mirror pod may not reference service accounts")
		}
		return nil
	}
	if p.Spec.ServiceAccountName == "" {
		p.Spec.ServiceAccountName = defaultAccount
	}
	p.Spec.DeprecatedServiceAccount = p.Spec.ServiceAccountName
	sa, err := c.account(ctx, a.GetNamespace(), p.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if sa == nil {
		return refuse(a, "error looking up service account %s/%s: serviceaccount %q not found",
			a.GetNamespace(), p.Spec.ServiceAccountName, p.Spec.ServiceAccountName)
	}
	if wantsToken(p, sa) {
		mountToken(p)
	}
	if len(p.Spec.ImagePullSecrets) == 0 {
		p.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return nil
}

func (c Config) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	tries := 2
	if name == defaultAccount {
		tries = accountTries
	}
	for try := range tries {
		if sa := c.Reader.ServiceAccount(namespace, name); sa != nil {
			return sa, nil
		}
		if err := c.Reader.CatchUp(ctx); err != nil {
			return nil, err
		}
		if try == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(accountPause):
		}
	}
	return c.Reader.ServiceAccount(namespace, name), nil
}

func wantsToken(p *corev1.Pod, sa *corev1.ServiceAccount) bool {
	switch {
	case p.Spec.AutomountServiceAccountToken != nil:
		return *p.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		return *sa.AutomountServiceAccountToken
	}
	return true
}

// mountToken adds the token's volume and mounts it where nothing else is.
func mountToken(p *corev1.Pod) {
	name := names.SimpleNameGenerator.GenerateName(accountName)
	used := false
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			mounts := &list[i].VolumeMounts
			if slices.ContainsFunc(*mounts, func(m corev1.VolumeMount) bool { return m.MountPath == accountMount }) {
				continue
			}
			*mounts = append(*mounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: accountMount})
			used = true
		}
	}
	if used {
		p.Spec.Volumes = append(p.Spec.Volumes, tokenVolume(name))
	}
}

func tokenVolume(name string) corev1.Volume {
	seconds, mode := tokenSeconds, corev1.ProjectedVolumeSourceDefaultMode
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAName},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}}
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skein.dev/skein/kubelet/spec"
)

func (s *Set) configMap(ctx context.Context, ns, name string, items []corev1.KeyToPath, m os.FileMode, optional bool) (files, error) {
	cm, err := s.cfg.Objects.ConfigMap(ctx, ns, name)
	if apierrors.IsNotFound(err) && optional {
		return files{}, nil
	}
	if err != nil {
		return nil, err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, cm.BinaryData)
	f, err := pick(data, items, m, optional)
	if err != nil {
		return nil, fmt.Errorf("configmap %q: %w", name, err)
	}
	return f, nil
}

func (s *Set) secret(ctx context.Context, ns, name string, items []corev1.KeyToPath, m os.FileMode, optional bool) (files, error) {
	sec, err := s.cfg.Objects.Secret(ctx, ns, name)
	if apierrors.IsNotFound(err) && optional {
		return files{}, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := pick(sec.Data, items, m, optional)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", name, err)
	}
	return f, nil
}

// pick takes the listed keys, or all when none is listed.
func pick(data map[string][]byte, items []corev1.KeyToPath, m os.FileMode, optional bool) (files, error) {
	f := files{}
	if len(items) == 0 {
		for k, v := range data {
			f[k] = file{data: v, mode: m}
		}
		return f, nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent config key: %s", it.Key)
		}
		fm := m
		if it.Mode != nil {
			fm = mode(it.Mode)
		}
		f[it.Path] = file{data: v, mode: fm}
	}
	return f, nil
}

func (s *Set) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, m os.FileMode) (files, error) {
	f := files{}
	for i := range items {
		it := &items[i]
		fm := m
		if it.Mode != nil {
			fm = mode(it.Mode)
		}
		var v string
		var err error
		switch {
		case it.FieldRef != nil:
			v, err = spec.Field(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			v, err = spec.Resource(pod, "", it.ResourceFieldRef, s.cfg.Allocatable())
		default:
			err = errors.New("no source")
		}
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", it.Path, err)
		}
		f[it.Path] = file{data: []byte(v), mode: fm}
	}
	return f, nil
}

func (s *Set) projected(ctx context.Context, pod *corev1.Pod, volume string, p *corev1.ProjectedVolumeSource) (files, time.Time, error) {
	out := files{}
	m := mode(p.DefaultMode)
	var next time.Time
	for i := range p.Sources {
		src := &p.Sources[i]
		var f files
		var err error
		switch {
		case src.ConfigMap != nil:
			f, err = s.configMap(ctx, pod.Namespace, src.ConfigMap.Name, src.ConfigMap.Items, m, isTrue(src.ConfigMap.Optional))
		case src.Secret != nil:
			f, err = s.secret(ctx, pod.Namespace, src.Secret.Name, src.Secret.Items, m, isTrue(src.Secret.Optional))
		case src.DownwardAPI != nil:
			f, err = s.downward(pod, src.DownwardAPI.Items, m)
		case src.ServiceAccountToken != nil:
			var again time.Time
			var data []byte
			data, again, err = s.token(ctx, pod, volume, src.ServiceAccountToken)
			f = files{src.ServiceAccountToken.Path: tokenFile(pod, data, m)}
			next = earlier(next, again)
		case src.ClusterTrustBundle != nil && s.cfg.Certificates != nil:
			f, err = s.anchorsFile(ctx, pod, src.ClusterTrustBundle, m)
		case src.PodCertificate != nil && s.cfg.Certificates != nil:
			var again time.Time
			f, again, err = s.certificateFiles(ctx, pod, volume, i, src.PodCertificate, m)
			next = earlier(next, again)
		default:
			err = errors.New("this node does not know a source of the projected volume")
		}
		if err != nil {
			return nil, time.Time{}, err
		}
		maps.Copy(out, f)
	}
	return out, next, nil
}

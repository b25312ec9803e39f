package kinds

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// placed is a file that a volume gets, and where from.
type placed struct{ path, source string }

// String is how warnings name the file.
func (f placed) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// paths warns of files of one volume that are at the same place, or one below
// the other.
func (w *podWarner) paths(list []corev1.Volume) {
	for i := range list {
		v := &list[i]
		if v.ConfigMap != nil {
			w.overlaps(v.Name, fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), keyFiles("", v.ConfigMap.Items))
		}
		if v.Secret != nil {
			w.overlaps(v.Name, fmt.Sprintf("Secret %q", v.Secret.SecretName), keyFiles("", v.Secret.Items))
		}
		if v.DownwardAPI != nil {
			w.overlaps(v.Name, "DownwardAPI", downwardFiles("", v.DownwardAPI.Items))
		}
		if v.Projected == nil {
			continue
		}
		var files []placed
		for _, s := range v.Projected.Sources {
			if s == (corev1.VolumeProjection{}) {
				w.list = append(w.list, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
			}
			files = append(files, projectedFiles(&s)...)
		}
		w.overlaps(v.Name, "Projected", files)
	}
}

func (w *podWarner) overlaps(volume, kind string, files []placed) {
	for i := range files {
		f := &files[i]
		if f.path = strings.TrimRight(f.path, "/"); f.path == "" {
			continue
		}
		for _, other := range files[:i] {
			if other.path != "" && (strings.HasPrefix(other.path+"/", f.path+"/") || strings.HasPrefix(f.path+"/", other.path+"/")) {
				w.list = append(w.list, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, kind, *f, other))
			}
		}
	}
}

func keyFiles(source string, items []corev1.KeyToPath) (files []placed) {
	for _, item := range items {
		files = append(files, placed{item.Path, source})
	}
	return files
}

func downwardFiles(source string, items []corev1.DownwardAPIVolumeFile) (files []placed) {
	for _, item := range items {
		files = append(files, placed{item.Path, source})
	}
	return files
}

// projectedFiles are those of one source, of the first kind that says where
// its files go.
func projectedFiles(s *corev1.VolumeProjection) []placed {
	switch {
	case s.ConfigMap != nil && s.ConfigMap.Items != nil:
		return keyFiles(fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name), s.ConfigMap.Items)
	case s.Secret != nil && s.Secret.Items != nil:
		return keyFiles(fmt.Sprintf("Secret %q", s.Secret.Name), s.Secret.Items)
	case s.DownwardAPI != nil && s.DownwardAPI.Items != nil:
		return downwardFiles("DownwardAPI", s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		return []placed{{s.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case s.ClusterTrustBundle != nil:
		b := s.ClusterTrustBundle
		return []placed{{b.Path, fmt.Sprintf("ClusterTrustBundle %q", valueOr(b.Name, valueOr(b.SignerName, "")))}}
	case s.PodCertificate != nil:
		c := s.PodCertificate
		return []placed{
			{c.CertificateChainPath, "PodCertificate chain"},
			{c.KeyPath, "PodCertificate key"},
			{c.CredentialBundlePath, "PodCertificate credential bundle"},
		}
	}
	return nil
}

package validation

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// noBacksteps refuses paths that climb.
func (p *problems) noBacksteps(at *field.Path, value string) {
	if slices.Contains(strings.Split(value, "/"), "..") {
		p.invalid(at, value, "must not contain '..'")
	}
}

// descending demands a relative path that does not climb.
func (p *problems) descending(at *field.Path, value string) {
	if path.IsAbs(value) {
		p.invalid(at, value, "must be a relative path")
	}
	p.noBacksteps(at, value)
}

// unreserved is descending for files whose directory the kubelet writes.
func (p *problems) unreserved(at *field.Path, value string) {
	p.descending(at, value)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		p.invalid(at, value, "must not start with '..'")
	}
}

func (c *podCheck) checkMounts(at *field.Path, ctr *corev1.Container) {
	seen := map[string]bool{}
	for i := range ctr.VolumeMounts {
		here, m := at.Index(i), &ctr.VolumeMounts[i]
		if m.Name == "" {
			c.required(here.Child("name"), "")
		}
		if c.volumes[m.Name] == nil {
			c.add(field.NotFound(here.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			c.required(here.Child("mountPath"), "")
		}
		if seen[m.MountPath] {
			c.invalid(here.Child("mountPath"), m.MountPath, "must be unique")
		}
		seen[m.MountPath] = true
		for _, d := range ctr.VolumeDevices {
			if d.Name == m.Name {
				c.invalid(here.Child("name"), m.Name, "must not already exist in volumeDevices")
				break
			}
		}
		if slices.Contains(lastPaths(ctr.VolumeDevices, device), m.MountPath) {
			c.invalid(here.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices")
		}
		c.checkMountOptions(at, here, m, ctr)
	}
}

// checkMountOptions reports some fields at the list, as upstream does.
func (c *podCheck) checkMountOptions(list, at *field.Path, m *corev1.VolumeMount, ctr *corev1.Container) {
	if m.SubPath != "" {
		c.descending(list.Child("subPath"), m.SubPath)
	}
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			c.invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
		}
		c.descending(list.Child("subPathExpr"), m.SubPathExpr)
	}
	if mode := m.MountPropagation; mode != nil {
		where := list.Child("mountPropagation")
		oneOf(c.problems, where, *mode, corev1.MountPropagationBidirectional,
			corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
		privileged := ctr.SecurityContext != nil && deref(ctr.SecurityContext.Privileged)
		c.forbid(where, *mode == corev1.MountPropagationBidirectional && !privileged,
			"Bidirectional mount propagation is available only to privileged containers")
	}
	if m.RecursiveReadOnly == nil {
		return
	}
	where := list.Child("recursiveReadOnly")
	switch mode := *m.RecursiveReadOnly; mode {
	case corev1.RecursiveReadOnlyDisabled:
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		c.forbid(where, !m.ReadOnly, "may only be specified when readOnly is true")
		c.forbid(where, m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone,
			"may only be specified when mountPropagation is None or not specified")
	default:
		oneOf(c.problems, where, mode, corev1.RecursiveReadOnlyDisabled,
			corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	}
}

func device(d corev1.VolumeDevice) (name, path string) { return d.Name, d.DevicePath }

func mount(m corev1.VolumeMount) (name, path string) { return m.Name, m.MountPath }

// lastPaths are the paths of a list, the last one for each name.
func lastPaths[T any](list []T, of func(T) (name, path string)) []string {
	byName := map[string]string{}
	for _, one := range list {
		name, p := of(one)
		byName[name] = p
	}
	var paths []string
	for _, name := range sorted(byName) {
		paths = append(paths, byName[name])
	}
	return paths
}

func (c *podCheck) checkDevices(at *field.Path, ctr *corev1.Container) {
	paths, names := map[string]bool{}, map[string]bool{}
	for i := range ctr.VolumeDevices {
		here, d := at.Index(i), &ctr.VolumeDevices[i]
		name, where := here.Child("name"), here.Child("devicePath")
		if d.Name == "" {
			c.required(name, "")
		}
		if names[d.Name] {
			c.invalid(name, d.Name, "must be unique")
		}
		source := c.volumes[d.Name]
		if source == nil {
			c.add(field.NotFound(name, d.Name))
		} else if source.PersistentVolumeClaim == nil && source.Ephemeral == nil {
			c.invalid(name, d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		if d.DevicePath == "" {
			c.required(where, "")
		}
		if paths[d.DevicePath] {
			c.invalid(where, d.DevicePath, "must be unique")
		}
		if slices.Contains(strings.Split(d.DevicePath, "/"), "..") {
			c.invalid(where, d.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths[d.DevicePath] = true
		}
		if slices.ContainsFunc(ctr.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == d.Name }) {
			c.invalid(name, d.Name, "must not already exist in volumeMounts")
		}
		if slices.Contains(lastPaths(ctr.VolumeMounts, mount), d.DevicePath) {
			c.invalid(where, d.DevicePath, "must not already exist as a path in volumeMounts")
		}
		names[d.Name] = d.Name != ""
	}
}

package validation

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// envFields are what a pod may read of itself through its environment.
func envFields() []string {
	return []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
}

// fileFields are what a pod may read of itself through files.
func fileFields() []string {
	return []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
}

// resourceFields are the resources that a container may read of itself, in
// the order in which errors name them.
func resourceFields() []string {
	return []string{
		"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory",
	}
}

func (c *podCheck) checkEnv(path *field.Path, vars []corev1.EnvVar) {
	for i := range vars {
		at, v := path.Index(i), &vars[i]
		c.requireFormat(at.Child("name"), v.Name, validation.IsRelaxedEnvVarName)
		if v.ValueFrom != nil {
			c.checkEnvSource(at.Child("valueFrom"), v)
		}
	}
}

func (c *podCheck) checkEnvSource(path *field.Path, v *corev1.EnvVar) {
	from, sources := v.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		c.checkFieldRef(path.Child("fieldRef"), from.FieldRef, envFields())
	}
	if from.ResourceFieldRef != nil {
		sources++
		c.checkResourceRef(path.Child("resourceFieldRef"), from.ResourceFieldRef, false)
	}
	if r := from.ConfigMapKeyRef; r != nil {
		sources++
		c.checkKeyRef(path.Child("configMapKeyRef"), r.Name, r.Key)
	}
	if r := from.SecretKeyRef; r != nil {
		sources++
		c.checkKeyRef(path.Child("secretKeyRef"), r.Name, r.Key)
	}
	if r := from.FileKeyRef; r != nil {
		sources++
		at := path.Child("fileKeyRef")
		c.requireFormat(at.Child("key"), r.Key, validation.IsRelaxedEnvVarName)
		c.requireFormat(at.Child("volumeName"), r.VolumeName, validation.IsDNS1123Label)
		if r.Path == "" {
			c.required(at.Child("path"), "")
		} else {
			c.noBacksteps(at.Child("path"), r.Path)
		}
	}
	switch {
	case sources == 0:
		c.invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
	case v.Value != "":
		c.invalid(path, "", "may not be specified when `value` is not empty")
	case sources > 1:
		c.invalid(path, "", "may not have more than one field specified at a time")
	}
}

func (c *podCheck) checkKeyRef(path *field.Path, name, key string) {
	c.name(path.Child("name"), name, apimachinery.NameIsDNSSubdomain)
	c.requireFormat(path.Child("key"), key, validation.IsConfigMapKey)
}

func (c *podCheck) checkEnvFrom(path *field.Path, list []corev1.EnvFromSource) {
	for i := range list {
		at, from, sources := path.Index(i), &list[i], 0
		if from.Prefix != "" {
			c.problems.check(at.Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName)
		}
		generated := func(name string) []string { return apimachinery.NameIsDNSSubdomain(name, true) }
		if from.ConfigMapRef != nil {
			sources++
			c.requireFormat(at.Child("configMapRef", "name"), from.ConfigMapRef.Name, generated)
		}
		if from.SecretRef != nil {
			sources++
			c.requireFormat(at.Child("secretRef", "name"), from.SecretRef.Name, generated)
		}
		switch sources {
		case 0:
			c.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
		case 1:
		default:
			c.invalid(path, "", "may not have more than one field specified at a time")
		}
	}
}

// checkFieldRef validates what a pod reads of itself. Only labels and
// annotations can be read one at a time.
func (c *podCheck) checkFieldRef(path *field.Path, f *corev1.ObjectFieldSelector, allowed []string) {
	at := path.Child("fieldPath")
	if f.APIVersion == "" {
		c.required(path.Child("apiVersion"), "")
		return
	}
	if f.FieldPath == "" {
		c.required(at, "")
		return
	}
	label, err := downwardLabel(f.APIVersion, f.FieldPath)
	if err != "" {
		c.invalid(at, f.FieldPath, "error converting fieldPath: "+err)
		return
	}
	base, key, subscripted := splitSubscript(label)
	switch {
	case !subscripted:
		if !slices.Contains(allowed, label) {
			c.add(field.NotSupported(at, label, allowed))
		}
	case base == "metadata.annotations":
		c.problems.check(path, strings.ToLower(key), validation.IsQualifiedName)
	case base == "metadata.labels":
		c.problems.check(path, key, validation.IsQualifiedName)
	default:
		c.invalid(path, base, "does not support subscript")
	}
}

// downwardLabel resolves old names of fields and refuses unknown ones.
func downwardLabel(version, label string) (resolved, complaint string) {
	if version != "v1" {
		return "", "unsupported pod version: " + version
	}
	if base, _, ok := splitSubscript(label); ok {
		if base == "metadata.annotations" || base == "metadata.labels" {
			return label, ""
		}
		return "", "field label does not support subscript: " + label
	}
	switch label {
	case "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
		"spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName",
		"status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs":
		return label, ""
	case "spec.host":
		return "spec.nodeName", ""
	default:
		return "", "field label not supported: " + label
	}
}

// splitSubscript splits base['key'].
func splitSubscript(label string) (base, key string, ok bool) {
	inner, ok := strings.CutSuffix(label, "']")
	if !ok {
		return label, "", false
	}
	base, key, ok = strings.Cut(inner, "['")
	if !ok || base == "" {
		return label, "", false
	}
	return base, key, true
}

func (c *podCheck) checkResourceRef(path *field.Path, r *corev1.ResourceFieldSelector, file bool) {
	huge := strings.HasPrefix(r.Resource, "requests.hugepages-") || strings.HasPrefix(r.Resource, "limits.hugepages-")
	switch {
	case file && r.ContainerName == "":
		c.required(path.Child("containerName"), "")
	case r.Resource == "":
		c.required(path.Child("resource"), "")
	case !huge && !slices.Contains(resourceFields(), r.Resource):
		c.add(field.NotSupported(path.Child("resource"), r.Resource, resourceFields()))
	}
	c.checkDivisor(path.Child("divisor"), r, huge)
}

func (c *podCheck) checkDivisor(path *field.Path, r *corev1.ResourceFieldSelector, huge bool) {
	if r.Divisor.Cmp(resource.Quantity{}) == 0 {
		return
	}
	divisor := r.Divisor.String()
	amounts := []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
	bytes := func(what string) {
		if !slices.Contains(amounts, divisor) {
			c.invalid(path, r.Resource, fmt.Sprintf("only divisor's values %s are supported with the %s resource", strings.Join(amounts, ", "), what))
		}
	}
	_, of, _ := strings.Cut(r.Resource, ".")
	switch {
	case huge:
		bytes("hugepages")
	case of == "cpu":
		if divisor != "1m" && divisor != "1" {
			c.invalid(path, r.Resource, "only divisor's values 1m and 1 are supported with the cpu resource")
		}
	case of == "memory":
		bytes("memory")
	case of == "ephemeral-storage":
		bytes("local ephemeral storage")
	}
}

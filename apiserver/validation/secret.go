package validation

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimachinery "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const fixedByImmutable = "field is immutable when `immutable` is set"

// Secret validates a secret: its keys, its size, and what its type requires.
func Secret(s *corev1.Secret) field.ErrorList {
	p := meta(&s.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path := field.NewPath("data")
	if keys(&p, path, s.Data) > corev1.MaxSecretSize {
		p.add(field.TooLong(path, "", corev1.MaxSecretSize))
	}
	has := func(key string) bool { _, ok := s.Data[key]; return ok }
	need := func(key string) { p.required(path.Key(key), "") }
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			p.required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), "")
		}
	case corev1.SecretTypeDockercfg:
		registryCredentials(&p, path, s.Data, corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		registryCredentials(&p, path, s.Data, corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		if !has(corev1.BasicAuthUsernameKey) && !has(corev1.BasicAuthPasswordKey) {
			need(corev1.BasicAuthUsernameKey)
			need(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			need(corev1.SSHAuthPrivateKey)
		}
	case corev1.SecretTypeTLS:
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if !has(key) {
				need(key)
			}
		}
	default:
	}
	return p.list
}

// keys checks the names of data and returns the size of its values.
func keys[V ~string | ~[]byte](p *problems, path *field.Path, data map[string]V) int {
	size := 0
	for _, key := range sorted(data) {
		p.check(path.Key(key), key, validation.IsConfigMapKey)
		size += len(data[key])
	}
	return size
}

func registryCredentials(p *problems, path *field.Path, data map[string][]byte, key string) {
	content, ok := data[key]
	if !ok {
		p.required(path.Key(key), "")
		return
	}
	if err := json.Unmarshal(content, &map[string]any{}); err != nil {
		p.invalid(path.Key(key), "<secret contents redacted>", err.Error())
	}
}

// SecretUpdate validates a change of a secret.
func SecretUpdate(s, old *corev1.Secret) field.ErrorList {
	p := metaUpdate(&s.ObjectMeta, &old.ObjectMeta)
	p.immutable(field.NewPath("type"), s.Type, old.Type)
	if deref(old.Immutable) {
		p.sealed("immutable", deref(s.Immutable))
		p.sealed("data", equality.Semantic.DeepEqual(s.Data, old.Data))
	}
	return append(p.list, Secret(s)...)
}

// sealed demands that a field of a sealed object has not changed.
func (p *problems) sealed(name string, same bool) {
	if !same {
		p.forbidden(field.NewPath(name), fixedByImmutable)
	}
}

// ConfigMap validates a config map: its keys and its size.
func ConfigMap(c *corev1.ConfigMap) field.ErrorList {
	p := meta(&c.ObjectMeta, apimachinery.NameIsDNSSubdomain)
	path := field.NewPath("data")
	size := 0
	for _, key := range sorted(c.Data) {
		p.check(path.Key(key), key, validation.IsConfigMapKey)
		if _, twice := c.BinaryData[key]; twice {
			p.invalid(path.Key(key), key, "duplicate of key present in binaryData")
		}
		size += len(c.Data[key])
	}
	size += keys(&p, field.NewPath("binaryData"), c.BinaryData)
	if size > corev1.MaxSecretSize {
		p.add(field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return p.list
}

// ConfigMapUpdate validates a change of a config map.
func ConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	p := metaUpdate(&c.ObjectMeta, &old.ObjectMeta)
	if deref(old.Immutable) {
		p.sealed("immutable", deref(c.Immutable))
		p.sealed("data", equality.Semantic.DeepEqual(c.Data, old.Data))
		p.sealed("binaryData", equality.Semantic.DeepEqual(c.BinaryData, old.BinaryData))
	}
	return append(p.list, ConfigMap(c)...)
}

// ServiceAccount validates a service account.
func ServiceAccount(a *corev1.ServiceAccount) field.ErrorList {
	return meta(&a.ObjectMeta, apimachinery.ValidateServiceAccountName).list
}

// ServiceAccountUpdate validates a change of a service account.
func ServiceAccountUpdate(a, old *corev1.ServiceAccount) field.ErrorList {
	return append(metaUpdate(&a.ObjectMeta, &old.ObjectMeta).list, ServiceAccount(a)...)
}

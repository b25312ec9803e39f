package spec

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Objects reads what a pod refers to. Both methods return apimachinery's
// NotFound for what is not there, and objects that the caller only reads.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Env is a container's environment in order, without duplicates.
type Env struct {
	names  []string
	values map[string]string
}

func (e *Env) set(name, value string) {
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// EnvInput is what an environment is made from.
type EnvInput struct {
	Pod         *corev1.Pod // with the addresses it has now
	Container   *corev1.Container
	Services    []*corev1.Service // of the pod's namespace, and default/kubernetes
	Objects     Objects
	Allocatable corev1.ResourceList
}

// MakeEnv computes the environment: envFrom, then env, then the variables of
// services that are not set yet.
func MakeEnv(ctx context.Context, in EnvInput) (*Env, error) {
	e := &Env{}
	if err := e.addFrom(ctx, in); err != nil {
		return nil, err
	}
	services := ServiceVars(in.Services)
	known := maps.Clone(services)
	maps.Copy(known, e.values)
	for i := range in.Container.Env {
		v := &in.Container.Env[i]
		value, skip, err := in.value(ctx, v, known)
		if err != nil {
			return nil, err
		}
		if skip {
			continue
		}
		e.set(v.Name, value)
		known[v.Name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, ok := e.values[name]; !ok {
			e.set(name, services[name])
		}
	}
	return e, nil
}

func (e *Env) addFrom(ctx context.Context, in EnvInput) error {
	for _, from := range in.Container.EnvFrom {
		data := map[string]string{}
		switch {
		case from.ConfigMapRef != nil:
			cm, err := in.Objects.ConfigMap(ctx, in.Pod.Namespace, from.ConfigMapRef.Name)
			if missing(err, from.ConfigMapRef.Optional) {
				continue
			}
			if err != nil {
				return fmt.Errorf("configmap %q: %w", from.ConfigMapRef.Name, err)
			}
			data = cm.Data
		case from.SecretRef != nil:
			s, err := in.Objects.Secret(ctx, in.Pod.Namespace, from.SecretRef.Name)
			if missing(err, from.SecretRef.Optional) {
				continue
			}
			if err != nil {
				return fmt.Errorf("secret %q: %w", from.SecretRef.Name, err)
			}
			for k, b := range s.Data {
				data[k] = string(b)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(data)) {
			if name := from.Prefix + k; !strings.ContainsAny(name, "=\x00") && name != "" {
				e.set(name, data[k])
			}
		}
	}
	return nil
}

func missing(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

// value resolves one variable; skip is true for an optional one that has no
// source.
func (in EnvInput) value(ctx context.Context, v *corev1.EnvVar, known map[string]string) (value string, skip bool, err error) {
	src := v.ValueFrom
	if src == nil {
		return Expand(v.Value, known), false, nil
	}
	switch {
	case src.FieldRef != nil:
		value, err = Field(in.Pod, src.FieldRef.FieldPath)
	case src.ResourceFieldRef != nil:
		value, err = Resource(in.Pod, in.Container.Name, src.ResourceFieldRef, in.Allocatable)
	case src.ConfigMapKeyRef != nil:
		ref := src.ConfigMapKeyRef
		cm, err := in.Objects.ConfigMap(ctx, in.Pod.Namespace, ref.Name)
		if err != nil {
			return "", missing(err, ref.Optional), unless(missing(err, ref.Optional), fmt.Errorf("configmap %q: %w", ref.Name, err))
		}
		s, ok := cm.Data[ref.Key]
		if !ok {
			opt := ref.Optional != nil && *ref.Optional
			return "", opt, unless(opt, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, in.Pod.Namespace, ref.Name))
		}
		value = s
	case src.SecretKeyRef != nil:
		ref := src.SecretKeyRef
		sec, err := in.Objects.Secret(ctx, in.Pod.Namespace, ref.Name)
		if err != nil {
			return "", missing(err, ref.Optional), unless(missing(err, ref.Optional), fmt.Errorf("secret %q: %w", ref.Name, err))
		}
		b, ok := sec.Data[ref.Key]
		if !ok {
			opt := ref.Optional != nil && *ref.Optional
			return "", opt, unless(opt, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, in.Pod.Namespace, ref.Name))
		}
		value = string(b)
	default:
		err = fmt.Errorf("variable %s has a source that this kubelet does not know", v.Name)
	}
	return value, false, err
}

func unless(ok bool, err error) error {
	if ok {
		return nil
	}
	return err
}

// ServiceVars are the variables by which pods have found services since
// before there was DNS. Headless services have none.
func ServiceVars(services []*corev1.Service) map[string]string {
	vars := map[string]string{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		name := envName(s.Name)
		ip := s.Spec.ClusterIP
		vars[name+"_SERVICE_HOST"] = ip
		vars[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for i, p := range s.Spec.Ports {
			port, proto := strconv.Itoa(int(p.Port)), string(p.Protocol)
			if proto == "" {
				proto = string(corev1.ProtocolTCP)
			}
			url := strings.ToLower(proto) + "://" + net.JoinHostPort(ip, port)
			if p.Name != "" {
				vars[name+"_SERVICE_PORT_"+envName(p.Name)] = port
			}
			if i == 0 {
				vars[name+"_PORT"] = url
			}
			prefix := name + "_PORT_" + port + "_" + strings.ToUpper(proto)
			vars[prefix] = url
			vars[prefix+"_PROTO"] = strings.ToLower(proto)
			vars[prefix+"_PORT"] = port
			vars[prefix+"_ADDR"] = ip
		}
	}
	return vars
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

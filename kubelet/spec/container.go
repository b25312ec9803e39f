package spec

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
)

// ContainerInput is what one container is rendered from.
type ContainerInput struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Attempt   int
	// ImageRef is the image as the runtime has it.
	ImageRef string
	User     ImageUser
	Env      *Env
	Mounts   []*runtimeapi.Mount
	Node     Node
	// Target is the id of the container whose processes this one sees, as
	// an ephemeral container may wish.
	Target string
}

// MakeContainer renders a container. Its errors are the user's: they become
// CreateContainerConfigError.
func MakeContainer(in ContainerInput) (*runtimeapi.ContainerConfig, error) {
	c := in.Container
	sc, err := containerSecurity(in.Pod, c, in.User, in.Node.SeccompRoot)
	if err != nil {
		return nil, err
	}
	if in.Target != "" {
		sc.NamespaceOptions.Pid, sc.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, in.Target
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(in.Attempt)},
		Image:       &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		WorkingDir:  c.WorkingDir,
		Envs:        in.Env.pairs(),
		Mounts:      in.Mounts,
		Labels:      podLabels(in.Pod, in.Node.Name),
		Annotations: annotations(in),
		LogPath:     path.Join(c.Name, strconv.Itoa(in.Attempt)+".log"),
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       ContainerResources(in.Pod, c, in.Node.Memory, in.Node.Unified),
			SecurityContext: sc,
		},
	}
	if len(c.Command) > 0 {
		cfg.Command = expandAll(c.Command, in.Env.values)
	}
	if len(c.Args) > 0 {
		cfg.Args = expandAll(c.Args, in.Env.values)
	}
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		cfg.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value[string(*l.StopSignal)])
	}
	cfg.Labels[cri.LabelContainerName] = c.Name
	return cfg, nil
}

// pairs is the environment as CRI has it.
func (e *Env) pairs() []*runtimeapi.KeyValue {
	out := make([]*runtimeapi.KeyValue, 0, len(e.names))
	for _, n := range e.names {
		out = append(out, &runtimeapi.KeyValue{Key: n, Value: []byte(e.values[n])})
	}
	return out
}

// Get returns one variable.
func (e *Env) Get(name string) (string, bool) {
	v, ok := e.values[name]
	return v, ok
}

// Vars returns all variables, for expansion. The caller must not change them.
func (e *Env) Vars() map[string]string { return e.values }

// annotations carry what a restarted kubelet needs to adopt the container.
func annotations(in ContainerInput) map[string]string {
	c := in.Container
	a := map[string]string{
		cri.AnnotationHash:          lifecycle.Hash(c),
		cri.AnnotationRestartCount:  strconv.Itoa(in.Attempt),
		cri.AnnotationMessagePath:   c.TerminationMessagePath,
		cri.AnnotationMessagePolicy: string(c.TerminationMessagePolicy),
		cri.AnnotationGrace:         grace(in.Pod),
	}
	if l := c.Lifecycle; l != nil && l.PreStop != nil {
		if b, err := json.Marshal(l.PreStop); err == nil {
			a[cri.AnnotationPreStop] = string(b)
		}
	}
	return a
}

// Propagation converts the API's mode to CRI's.
func Propagation(p *corev1.MountPropagationMode) (runtimeapi.MountPropagation, error) {
	if p == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	}
	switch *p {
	case corev1.MountPropagationNone:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE, nil
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	default:
		return 0, fmt.Errorf("unknown mount propagation %q", *p)
	}
}

package validation

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// checkProbe validates a probe; one that kills may not need more than one success.
func (c *podCheck) checkProbe(path *field.Path, p *corev1.Probe, kills bool) {
	if p == nil {
		return
	}
	c.checkHandler(path, handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC})
	c.counts(path, []count{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	})
	at := path.Child("terminationGracePeriodSeconds")
	if n := p.TerminationGracePeriodSeconds; n != nil {
		c.positive(at, *n)
		if !kills {
			c.invalid(at, *n, "must not be set for readinessProbes")
		}
	}
	if kills && p.SuccessThreshold != 1 {
		c.invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")
	}
}

// handler is what probes and lifecycle hooks may do.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *podCheck) checkHandler(path *field.Path, h handler) {
	found := false
	one := func(name string, set bool, check func(*field.Path)) {
		switch {
		case !set:
		case found:
			c.forbidden(path.Child(name), "may not specify more than 1 handler type")
		default:
			found = true
			check(path.Child(name))
		}
	}
	one("exec", h.exec != nil, func(at *field.Path) {
		if len(h.exec.Command) == 0 {
			c.required(at.Child("command"), "")
		}
	})
	one("httpGet", h.http != nil, func(at *field.Path) { c.checkHTTPGet(at, h.http) })
	one("tcpSocket", h.tcp != nil, func(at *field.Path) { c.portOrName(at.Child("port"), h.tcp.Port) })
	one("grpc", h.grpc != nil, func(at *field.Path) { c.portOrName(at.Child("port"), intstr.FromInt32(h.grpc.Port)) })
	one("sleep", h.sleep != nil, func(at *field.Path) {
		grace := c.spec.TerminationGracePeriodSeconds
		if grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			c.invalid(at, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))
		}
	})
	if !found {
		c.required(path, "must specify a handler type")
	}
}

func (c *podCheck) checkHTTPGet(path *field.Path, h *corev1.HTTPGetAction) {
	if h.Path == "" {
		c.required(path.Child("path"), "")
	}
	c.portOrName(path.Child("port"), h.Port)
	oneOf(c.problems, path.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, header := range h.HTTPHeaders {
		c.problems.check(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName)
	}
}

func (c *podCheck) checkLifecycle(path *field.Path, l *corev1.Lifecycle) {
	hook := func(name string, h *corev1.LifecycleHandler) {
		if h != nil {
			c.checkHandler(path.Child(name), handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep})
		}
	}
	hook("postStart", l.PostStart)
	hook("preStop", l.PreStop)
	if l.StopSignal == nil {
		return
	}
	at := path.Child("stopSignal")
	switch os := c.spec.OS; {
	case os == nil:
		c.forbidden(at, "may not be set for containers with empty `spec.os.name`")
	case os.Name == corev1.Windows:
		oneOf(c.problems, at, *l.StopSignal, corev1.SIGKILL, corev1.SIGTERM)
	case os.Name == corev1.Linux:
		oneOf(c.problems, at, *l.StopSignal, linuxSignals()...)
	}
}

// linuxSignals are all signals by name, sorted.
func linuxSignals() []corev1.Signal {
	names := []corev1.Signal{
		corev1.SIGABRT, corev1.SIGALRM, corev1.SIGBUS, corev1.SIGCHLD, corev1.SIGCLD, corev1.SIGCONT, corev1.SIGFPE,
		corev1.SIGHUP, corev1.SIGILL, corev1.SIGINT, corev1.SIGIO, corev1.SIGIOT, corev1.SIGKILL, corev1.SIGPIPE,
		corev1.SIGPOLL, corev1.SIGPROF, corev1.SIGPWR, corev1.SIGQUIT, corev1.SIGSEGV, corev1.SIGSTKFLT, corev1.SIGSTOP,
		corev1.SIGSYS, corev1.SIGTERM, corev1.SIGTRAP, corev1.SIGTSTP, corev1.SIGTTIN, corev1.SIGTTOU, corev1.SIGURG,
		corev1.SIGUSR1, corev1.SIGUSR2, corev1.SIGVTALRM, corev1.SIGWINCH, corev1.SIGXCPU, corev1.SIGXFSZ,
		corev1.SIGRTMIN, corev1.SIGRTMAX,
	}
	for i := 1; i <= 15; i++ {
		names = append(names, corev1.Signal(fmt.Sprintf("%s+%d", corev1.SIGRTMIN, i)))
	}
	for i := 1; i <= 14; i++ {
		names = append(names, corev1.Signal(fmt.Sprintf("%s-%d", corev1.SIGRTMAX, i)))
	}
	slices.Sort(names)
	return names
}

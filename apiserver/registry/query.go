package registry

import (
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addQueries registers how the options of streaming subresources are read
// from a request's query, which the published API types leave out.
func addQueries(s *runtime.Scheme) error {
	for _, q := range []struct {
		out  runtime.Object
		read func(q query, out any)
	}{
		{&corev1.PodLogOptions{}, readLog},
		{&corev1.PodExecOptions{}, readExec},
		{&corev1.PodAttachOptions{}, readAttach},
		{&corev1.PodPortForwardOptions{}, readPortForward},
		{&corev1.PodProxyOptions{}, func(q query, out any) { out.(*corev1.PodProxyOptions).Path = q.text("path") }},
		{&corev1.NodeProxyOptions{}, func(q query, out any) { out.(*corev1.NodeProxyOptions).Path = q.text("path") }},
		{&corev1.ServiceProxyOptions{}, func(q query, out any) { out.(*corev1.ServiceProxyOptions).Path = q.text("path") }},
	} {
		err := s.AddConversionFunc((*url.Values)(nil), q.out, func(in, out any, _ conversion.Scope) error {
			values := query{Values: *in.(*url.Values)}
			q.read(values, out)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

type query struct{ url.Values }

func (q query) text(key string) string { return q.Get(key) }

// flag follows the API's rule: present and not "false" or "0" is true.
func (q query) flag(key string) bool {
	v, ok := q.Values[key]
	return ok && (len(v) == 0 || (v[0] != "false" && v[0] != "0"))
}

func (q query) number(key string) *int64 {
	n, err := strconv.ParseInt(q.Get(key), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

func readLog(q query, out any) {
	o := out.(*corev1.PodLogOptions)
	*o = corev1.PodLogOptions{
		Container: q.text("container"), Follow: q.flag("follow"), Previous: q.flag("previous"),
		SinceSeconds: q.number("sinceSeconds"), Timestamps: q.flag("timestamps"),
		TailLines: q.number("tailLines"), LimitBytes: q.number("limitBytes"),
		InsecureSkipTLSVerifyBackend: q.flag("insecureSkipTLSVerifyBackend"),
	}
	if s := q.text("stream"); s != "" {
		o.Stream = &s
	}
	var t metav1.Time
	if s := q.text("sinceTime"); s != "" && t.UnmarshalQueryParameter(s) == nil {
		o.SinceTime = &t
	}
}

func readExec(q query, out any) {
	*out.(*corev1.PodExecOptions) = corev1.PodExecOptions{
		Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"), TTY: q.flag("tty"),
		Container: q.text("container"), Command: q.Values["command"],
	}
}

func readAttach(q query, out any) {
	*out.(*corev1.PodAttachOptions) = corev1.PodAttachOptions{
		Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"), TTY: q.flag("tty"),
		Container: q.text("container"),
	}
}

func readPortForward(q query, out any) {
	o := out.(*corev1.PodPortForwardOptions)
	for _, p := range q.Values["ports"] {
		if n, err := strconv.ParseInt(p, 10, 32); err == nil {
			o.Ports = append(o.Ports, int32(n))
		}
	}
}

package podrest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
	"k8s.io/apiserver/pkg/registry/rest"
)

// logs serves pods/log.
type logs struct{ *Pods }

var (
	_ rest.GetterWithOptions = (*logs)(nil)
	_ rest.StorageMetadata   = (*logs)(nil)
)

// New implements rest.Storage.
func (*logs) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage.
func (*logs) Destroy() {}

// ProducesMIMETypes implements rest.StorageMetadata.
func (*logs) ProducesMIMETypes(string) []string { return []string{"text/plain"} }

// ProducesObject implements rest.StorageMetadata.
func (*logs) ProducesObject(string) any { return "" }

// NewGetOptions implements rest.GetterWithOptions.
func (*logs) NewGetOptions() (obj runtime.Object, path bool, name string) {
	return &corev1.PodLogOptions{}, false, ""
}

// OverrideMetricsVerb tells logs from reads of pods.
func (*logs) OverrideMetricsVerb(verb string) string {
	if verb == "GET" {
		return "CONNECT"
	}
	return verb
}

// Get implements rest.GetterWithOptions; the result streams.
func (l *logs) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	o, ok := options.(*corev1.PodLogOptions)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unknown options %T", options))
	}
	pod, err := l.get(ctx, name)
	if err != nil {
		return nil, err
	}
	container, err := choose(pod, o.Container)
	if err != nil {
		return nil, err
	}
	u, err := l.address(pod.Spec.NodeName, pod.Name)
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	logQuery(q, o)
	u.Path, u.RawQuery = strings.Join([]string{"", "containerLogs", pod.Namespace, pod.Name, container}, "/"), q.Encode()
	return &genericrest.LocationStreamer{
		Location: u, Transport: l.transport(), ContentType: "text/plain", Flush: o.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), name),
		RedirectChecker: genericrest.PreventRedirects,
	}, nil
}

func logQuery(q url.Values, o *corev1.PodLogOptions) {
	for name, on := range map[string]bool{"follow": o.Follow, "previous": o.Previous, "timestamps": o.Timestamps} {
		if on {
			q.Set(name, "true")
		}
	}
	for name, n := range map[string]*int64{"sinceSeconds": o.SinceSeconds, "tailLines": o.TailLines, "limitBytes": o.LimitBytes} {
		if n != nil {
			q.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	if o.SinceTime != nil {
		q.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	if o.Stream != nil {
		q.Set("stream", *o.Stream)
	}
}

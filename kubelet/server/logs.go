package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crilogs "k8s.io/cri-client/pkg/logs"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/spec"
)

// logQuery is what a request for logs asks.
type logQuery struct {
	options  crilogs.LogOptions
	previous bool
	stream   string
}

// parseLogs reads the query of PodLogOptions.
func parseLogs(q url.Values, now time.Time) (logQuery, error) {
	var out logQuery
	var errs []error
	flag := func(name string) bool {
		v := q.Get(name)
		if v == "" {
			return false
		}
		b, err := strconv.ParseBool(v)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return b
	}
	num := func(name string, least int64) *int64 {
		v := q.Get(name)
		if v == "" || v == "all" {
			return nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil && n < least {
			err = fmt.Errorf("must be at least %d", least)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return &n
	}
	out.previous = flag("previous")
	out.options.Follow, out.options.Timestamp = flag("follow"), flag("timestamps")
	out.options.TailLines, out.options.LimitBytes = num("tailLines", 0), num("limitBytes", 1)
	if n := num("sinceSeconds", 1); n != nil {
		out.options.Since = now.Add(-time.Duration(*n) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			errs = append(errs, fmt.Errorf("sinceTime: %w", err))
		}
		out.options.Since = t
	}
	out.stream = q.Get("stream")
	return out, errors.Join(errs...)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	query, err := parseLogs(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	pod, _, containers, err := s.target(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	name := r.PathValue("container")
	if spec.Container(pod, name) == nil {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, pod.Name), http.StatusNotFound)
		return
	}
	c, err := pick(pod, containers, name, query.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	st, err := s.cfg.Runtime.ContainerStatus(r.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	out := &flusher{w: w}
	w.Header().Set("Content-Type", "text/plain")
	stdout, stderr := io.Writer(out), io.Writer(out)
	switch query.stream {
	case corev1.LogStreamStdout:
		stderr = io.Discard
	case corev1.LogStreamStderr:
		stdout = io.Discard
	}
	err = crilogs.ReadLogs(r.Context(), st.Status.LogPath, c.ID, &query.options, statusOnly{client: s.cfg.Runtime}, stdout, stderr)
	if errors.Is(err, os.ErrNotExist) || err == nil || r.Context().Err() != nil {
		return
	}
	if !out.wrote {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// pick chooses the container whose logs are meant.
func pick(pod *corev1.Pod, containers []lifecycle.Container, name string, previous bool) (*lifecycle.Container, error) {
	var found []*lifecycle.Container
	for i := range containers {
		if c := &containers[i]; c.Name == name && c.State != lifecycle.Created {
			found = append(found, c)
		}
	}
	if previous {
		found = found[min(1, len(found)):]
		if len(found) == 0 {
			return nil, fmt.Errorf("previous terminated container %q in pod %q not found", name, pod.Name)
		}
	}
	if len(found) > 0 {
		return found[0], nil
	}
	reason := lifecycle.ReasonContainerCreating
	for _, st := range slices.Concat(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses) {
		if st.Name == name && st.State.Waiting != nil {
			reason = st.State.Waiting.Reason
		}
	}
	return nil, fmt.Errorf("container %q in pod %q is waiting to start: %s", name, pod.Name, reason)
}

// flusher sends each line at once, for those who follow.
type flusher struct {
	w     http.ResponseWriter
	wrote bool
}

// Write implements io.Writer.
func (f *flusher) Write(b []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(b)
	if fl, ok := f.w.(http.Flusher); ok {
		fl.Flush()
	}
	return n, err
}

// statusOnly is the one method that the log reader asks of a runtime.
type statusOnly struct {
	internalapi.RuntimeService
	client *cri.Client
}

// ContainerStatus tells a follower whether more can come.
func (s statusOnly) ContainerStatus(ctx context.Context, id string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	return s.client.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id, Verbose: verbose})
}

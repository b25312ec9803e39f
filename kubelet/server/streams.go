package server

import (
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/lifecycle"
)

// asked reports whether a stream is wanted. The API server calls the streams
// input, output and error; others use the names of kubectl.
func asked(q url.Values, names ...string) bool {
	for _, n := range names {
		if v := q.Get(n); v == "1" || v == "true" {
			return true
		}
	}
	return false
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	c, err := s.running(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	q := r.URL.Query()
	req := &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: q["command"], Tty: asked(q, "tty"),
		Stdin: asked(q, "input", "stdin"), Stdout: asked(q, "output", "stdout"), Stderr: asked(q, "error", "stderr"),
	}
	req.Stderr = req.Stderr && !req.Tty // a terminal has one output
	if len(req.Cmd) == 0 || (!req.Stdin && !req.Stdout && !req.Stderr) {
		http.Error(w, "you must specify a command and at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	resp, err := s.cfg.Runtime.RuntimeServiceClient.Exec(r.Context(), req)
	s.proxy(w, r, resp.GetUrl(), err)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	c, err := s.running(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	q := r.URL.Query()
	req := &runtimeapi.AttachRequest{
		ContainerId: c.ID, Tty: asked(q, "tty"),
		Stdin: asked(q, "input", "stdin"), Stdout: asked(q, "output", "stdout"), Stderr: asked(q, "error", "stderr"),
	}
	req.Stderr = req.Stderr && !req.Tty
	resp, err := s.cfg.Runtime.Attach(r.Context(), req)
	s.proxy(w, r, resp.GetUrl(), err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	_, sandboxes, _, err := s.target(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	live := ready(sandboxes)
	if live == nil {
		http.Error(w, "pod is not running", http.StatusNotFound)
		return
	}
	req := &runtimeapi.PortForwardRequest{PodSandboxId: live.ID}
	for _, p := range r.URL.Query()["port"] {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil {
			http.Error(w, "bad port "+p, http.StatusBadRequest)
			return
		}
		req.Port = append(req.Port, int32(n))
	}
	resp, err := s.cfg.Runtime.PortForward(r.Context(), req)
	s.proxy(w, r, resp.GetUrl(), err)
}

func ready(list []lifecycle.Sandbox) *lifecycle.Sandbox {
	for i := range list {
		if list[i].Ready {
			return &list[i]
		}
	}
	return nil
}

// responder answers what could not be passed on.
type responder struct{}

// Error implements proxy.ErrorResponder.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// proxy hands the connection to the runtime's streaming server.
func (s *Server) proxy(w http.ResponseWriter, r *http.Request, target string, err error) {
	if err != nil {
		http.Error(w, status.Convert(err).Message(), http.StatusInternalServerError)
		return
	}
	u, err := url.Parse(target)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	proxy.NewUpgradeAwareHandler(u, nil, false, true, responder{}).ServeHTTP(w, r)
}

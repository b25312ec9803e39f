package apiserver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"skein.dev/skein/api/role"
)

// inProcessHost names the server to in-process clients; nothing listens there.
const inProcessHost = "https://skein.in-process"

// ClientConfig returns a client configuration that goes straight into this
// server's handler chain as the user name (a component such as
// system:kube-scheduler, system:node:a or a service account), with that user's
// permissions and no others. The fence of a request's context goes with it. It works as soon as
// New has returned, but some answers need Run.
func (s *Server) ClientConfig(name string) *rest.Config {
	t := &inProcess{server: s, user: inProcessUser(name)}
	return &rest.Config{
		Host: inProcessHost, Transport: t, QPS: -1, WarningHandler: rest.NoWarnings{}, UserAgent: "skein/" + name, DisableCompression: true,
		ContentConfig: rest.ContentConfig{
			ContentType:        "application/vnd.kubernetes.protobuf",
			AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
	}
}

// inProcessUser is who a name stands for, in the groups that its credentials
// would put it in.
func inProcessUser(name string) user.Info {
	u := &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}
	switch namespace, _, err := serviceaccount.SplitUsername(name); {
	case err == nil:
		u.Groups = append(u.Groups, serviceaccount.MakeGroupNames(namespace)...)
	case name == selfUser:
		u.Groups = append(u.Groups, user.SystemPrivilegedGroup)
	case len(name) > len(nodePrefix) && strings.HasPrefix(name, nodePrefix):
		u.Groups = append(u.Groups, user.NodesGroup)
	}
	return u
}

const (
	nodePrefix = "system:node:"
	// selfUser is the API server itself.
	selfUser = "system:apiserver"
)

// inProcess is a transport that ends in the handler chain. It implements
// http.RoundTripper.
type inProcess struct {
	server *Server
	user   user.Info
}

type userKey struct{}

// authenticateInProcess knows the requests that came through an inProcess.
func authenticateInProcess(r *http.Request) (*authenticator.Response, bool, error) {
	u, ok := r.Context().Value(userKey{}).(user.Info)
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: u}, true, nil
}

// RoundTrip implements http.RoundTripper. Like a network it lets nothing of
// the caller's context through but its end and its fence.
func (t *inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	base := context.WithValue(t.server.base, userKey{}, t.user)
	ctx, cancel := context.WithCancelCause(base)
	stop := context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })

	in := r.Clone(ctx)
	if f, ok := role.From(r.Context()); ok {
		in.Header.Set(role.Header, f.String())
	}
	in.RequestURI, in.RemoteAddr, in.Host = r.URL.RequestURI(), "127.0.0.1:0", r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if in.Header == nil {
		in.Header = http.Header{}
	}
	w := newAnswer(in, func() { stop(); cancel(context.Canceled) })
	go func() {
		defer func() {
			// The chain recovers panics; what still comes is its way to cut a connection.
			if recover() != nil {
				w.finish(io.ErrUnexpectedEOF)
			}
		}()
		t.server.handler.ServeHTTP(w, in)
		w.finish(io.EOF)
		_ = in.Body.Close()
	}()
	select {
	case <-w.started:
		return w.response(r), nil
	case <-r.Context().Done():
		_ = w.Close() // a handler that has begun to answer must not wait for a reader
		return nil, r.Context().Err()
	}
}

// maxUnread is how much of an answer waits for its reader.
const maxUnread = 1 << 20

// answer is the response writer of one in-process request and the body that
// its client reads. It implements http.ResponseWriter, http.Flusher and
// io.ReadCloser.
type answer struct {
	req     *http.Request
	release func()
	started chan struct{}
	once    sync.Once

	mu     sync.Mutex // guards the fields below
	moved  *sync.Cond
	header http.Header
	status int
	buf    []byte
	end    error // what the reader gets after buf; nil: more may come
	closed bool  // the reader is gone
}

func newAnswer(req *http.Request, release func()) *answer {
	a := &answer{req: req, release: release, started: make(chan struct{}), header: http.Header{}}
	a.moved = sync.NewCond(&a.mu)
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		return
	}
	a.once.Do(func() {
		a.status = status
		a.header = a.header.Clone()
		close(a.started)
	})
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.buf) >= maxUnread && !a.closed {
		a.moved.Wait()
	}
	if a.closed {
		return 0, errors.New("in-process response: the reader is gone")
	}
	a.buf = append(a.buf, p...)
	a.moved.Broadcast()
	return len(p), nil
}

// Flush implements http.Flusher: what is written can be read already.
func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }

// CloseNotify implements the interface that older streaming code asks for.
func (a *answer) CloseNotify() <-chan bool {
	gone := make(chan bool, 1)
	context.AfterFunc(a.req.Context(), func() { gone <- true })
	return gone
}

func (a *answer) finish(end error) {
	a.WriteHeader(http.StatusOK)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end == nil {
		a.end = end
	}
	a.moved.Broadcast()
}

func (a *answer) response(r *http.Request) *http.Response {
	return &http.Response{
		Status: http.StatusText(a.status), StatusCode: a.status, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: a.header, Body: a, ContentLength: -1, Request: r,
	}
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.buf) == 0 && a.end == nil && !a.closed {
		a.moved.Wait()
	}
	if a.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if len(a.buf) == 0 {
		return 0, a.end
	}
	n := copy(p, a.buf)
	if a.buf = a.buf[n:]; len(a.buf) == 0 {
		a.buf = slices.Clip(a.buf[:0])
	}
	a.moved.Broadcast()
	return n, nil
}

// Close implements io.Closer and ends the request.
func (a *answer) Close() error {
	a.mu.Lock()
	a.closed = true
	a.moved.Broadcast()
	a.mu.Unlock()
	a.release()
	return nil
}

package apiserver

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	auditlog "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
)

// auditing is what is switched on of it; its zero value is off.
type auditing struct {
	policy  audit.PolicyRuleEvaluator
	backend audit.Backend
	log     *auditFile // nil: no log is written
}

func (a *auditing) on() bool { return a.policy != nil && a.backend != nil }

// audit reads what is to be audited and where it goes. The library makes all
// of it but the log, whose failures it would keep to itself.
func (s *Server) makeAuditing() error {
	if s.cfg.Audit == nil || s.cfg.Audit.PolicyFile == "" {
		return nil
	}
	o := *s.cfg.Audit
	if err := utilerrors.NewAggregate(o.Validate()); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	log := o.LogOptions
	o.LogOptions.Path = ""
	var made genericapiserver.Config
	if err := o.ApplyTo(&made); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	s.audit.policy, s.audit.backend = made.AuditPolicyRuleEvaluator, made.AuditBackend
	if log.Path == "" {
		return nil
	}
	file, err := openAuditFile(&log)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	file.failed = func(err error) {
		s.cfg.Log.WarnContext(s.base, "audit log cannot be written", "path", log.Path, "error", err)
	}
	file.mended = func() {
		s.cfg.Log.InfoContext(s.base, "audit log is written again", "path", log.Path)
	}
	s.audit.log = file
	backend := file.backend(&log)
	if s.audit.backend != nil {
		backend = audit.Union(backend, s.audit.backend)
	}
	s.audit.backend = backend
	return nil
}

// runAuditing starts the back ends; stop ends them after the last request.
func (s *Server) runAuditing() (stop func(), err error) {
	if !s.audit.on() {
		return func() {}, nil
	}
	done := make(chan struct{})
	if err := s.audit.backend.Run(done); err != nil {
		return nil, fmt.Errorf("start audit: %w", err)
	}
	return func() {
		close(done)
		s.audit.backend.Shutdown()
		if s.audit.log != nil {
			_ = s.audit.log.out.Close()
		}
	}, nil
}

// init is the outermost filter. While nobody audits it tells the library so:
// without a word it collects for an auditor who may come. Reads can do without
// the word, but some of its code for writes takes it for granted.
func (a *auditing) init(h http.Handler) http.Handler {
	if a.on() {
		return genericapifilters.WithAuditInit(h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			ctx := audit.WithAuditContext(r.Context())
			_ = audit.AuditContextFrom(ctx).Init(audit.RequestAuditConfig{Level: auditinternal.LevelNone}, nil) // fails only the second time
			r = r.WithContext(ctx)
		}
		h.ServeHTTP(w, r)
	})
}

// auditFile writes the audit log. A disk that is full is a state: it is told
// once, requests go on unless the mode is blocking-strict, and the log goes on
// with a line of its own when there is room again. It implements io.Writer.
type auditFile struct {
	out    io.WriteCloser
	failed func(error)
	mended func()
	mu     sync.Mutex // guards the fields below
	err    error
	cut    bool // the last line is not whole
}

func openAuditFile(o *options.AuditLogOptions) (*auditFile, error) {
	if o.Path == "-" {
		return &auditFile{out: stdout{os.Stdout}}, nil
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the log: %w", err)
	}
	f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if o.MaxSize == 0 {
		return &auditFile{out: f}, nil
	}
	_ = f.Close() // it exists with the right mode, which rotation keeps
	return &auditFile{out: &lumberjack.Logger{
		Filename: o.Path, MaxAge: o.MaxAge, MaxBackups: o.MaxBackups, MaxSize: o.MaxSize, Compress: o.Compress,
	}}, nil
}

// stdout is not ours to close.
type stdout struct{ io.Writer }

func (stdout) Close() error { return nil }

// Write implements io.Writer.
func (f *auditFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		line = append([]byte("\n"), line...)
	}
	n, err := f.out.Write(line)
	f.cut = n > 0 && n < len(line) || n == 0 && f.cut
	switch {
	case err != nil && f.err == nil:
		f.failed(err)
	case err == nil && f.err != nil:
		f.mended()
	}
	f.err = err
	return n, err
}

// state is the error of the last line, for who looks at the server's parts.
func (f *auditFile) state(*http.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return fmt.Errorf("audit events are being lost: %w", f.err)
	}
	return nil
}

// backend is the library's on this file.
func (f *auditFile) backend(o *options.AuditLogOptions) audit.Backend {
	gv, err := schema.ParseGroupVersion(o.GroupVersionString)
	if err != nil { // has been validated
		gv = schema.GroupVersion{Group: "audit.k8s.io", Version: "v1"}
	}
	b := auditlog.NewBackend(f, o.Format, gv)
	switch o.BatchOptions.Mode {
	case options.ModeBlocking:
		b = tolerant{b}
	case options.ModeBatch:
		b = buffered.NewBackend(b, o.BatchOptions.BatchConfig)
	}
	if o.TruncateOptions.Enabled {
		b = truncate.NewBackend(b, o.TruncateOptions.TruncateConfig, gv)
	}
	return b
}

// tolerant lets requests go on whose events were lost.
type tolerant struct{ audit.Backend }

// ProcessEvents implements audit.Sink.
func (t tolerant) ProcessEvents(events ...*auditinternal.Event) bool {
	t.Backend.ProcessEvents(events...)
	return true
}

package apiserver

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleFor is how long a file must be left alone before it is read: editors
// write in steps.
const settleFor = 200 * time.Millisecond

// followFiles takes up changes of the configuration files of who may come in,
// who may do what and how objects are kept, until ctx ends. What is wrong with a new content is
// logged, and the one before holds.
func (s *Server) followFiles(ctx context.Context) error {
	reload := map[string]func(context.Context, []byte) error{}
	if s.cfg.AuthenticationFile != "" {
		reload[s.cfg.AuthenticationFile] = s.outside.reload
	}
	if s.cfg.AuthorizationFile != "" {
		reload[s.cfg.AuthorizationFile] = s.chosen.reload
	}
	if s.encryption != nil {
		// Its key services are asked for as long as there are requests.
		reload[s.cfg.EncryptionFile] = func(context.Context, []byte) error { return s.encryption.reload(s.base) }
	}
	if len(reload) == 0 {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	defer func() { _ = w.Close() }()
	for file := range reload {
		// The folder: editors and mounted ConfigMaps replace the file itself.
		if err := w.Add(filepath.Dir(file)); err != nil {
			return fmt.Errorf("watch configuration: %w", err)
		}
	}
	for quiet(ctx, w) {
		for file, take := range reload {
			s.takeUp(ctx, file, take)
		}
		select {
		case <-ctx.Done():
		case <-w.Events:
		case err := <-w.Errors:
			s.cfg.Log.WarnContext(ctx, "changes of configuration files may be missed", "error", err)
		}
	}
	return nil
}

// takeUp reads a file and, if it is not as it was last time, takes it.
func (s *Server) takeUp(ctx context.Context, file string, take func(context.Context, []byte) error) {
	raw, err := os.ReadFile(file)
	if err != nil || bytes.Equal(raw, s.loaded[file]) {
		return // while it is being replaced there is none
	}
	s.loaded[file] = raw
	if err := take(ctx, raw); err != nil {
		s.cfg.Log.ErrorContext(ctx, "new configuration is not taken, the one before holds", "file", file, "error", err)
		return
	}
	s.cfg.Log.InfoContext(ctx, "new configuration is taken", "file", file)
}

// quiet waits until nothing has happened for a moment; false: ctx has ended.
func quiet(ctx context.Context, w *fsnotify.Watcher) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-w.Events:
		case <-time.After(settleFor):
			return true
		}
	}
}

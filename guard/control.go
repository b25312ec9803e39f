package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Act is a wish on the control socket.
type Act string

// The wishes that a guard grants.
const (
	// Look changes nothing.
	Look Act = "look"
	// RestartDaemon ends the daemon and starts it again.
	RestartDaemon Act = "restart-daemon"
	// StopDaemon ends the daemon and the guard; containerd lives on.
	StopDaemon Act = "stop-daemon"
	// StopAll ends containerd too. Containers live on all the same: ending
	// them is the daemon's, before this.
	StopAll Act = "stop-all"
)

type request struct {
	Act Act `json:"act"`
}

type reply struct {
	Report
	Error string `json:"error,omitempty"`
}

// SocketPath is where the guard with that state directory listens.
func SocketPath(stateDir string) string { return filepath.Join(stateDir, "guard.sock") }

// ErrNotRunning says that no guard listens in the state directory.
var ErrNotRunning = errors.New("no guard is running")

// Ask sends a wish to the guard of stateDir and returns its report, taken
// when the wish was accepted. It does not wait until the wish has come true:
// for that see [Wait].
func Ask(ctx context.Context, stateDir string, act Act) (Report, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", SocketPath(stateDir))
	if err != nil {
		return Report{}, fmt.Errorf("ask guard in %s: %w: %w", stateDir, ErrNotRunning, err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(request{Act: act}); err != nil {
		return Report{}, fmt.Errorf("ask guard in %s: %w", stateDir, err)
	}
	var r reply
	if err := readAnswer(ctx, conn, &r); err != nil {
		return Report{}, fmt.Errorf("ask guard in %s: %w", stateDir, err)
	}
	if r.Error != "" {
		return Report{}, errors.New(r.Error)
	}
	return r.Report, nil
}

// Wait blocks until no guard runs on stateDir.
func Wait(ctx context.Context, stateDir string) error {
	for {
		f, err := lock(stateDir)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, ErrRunning) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the guard in %s: %w", stateDir, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// listenControl replaces a socket that an earlier guard left: the lock says
// that none is using it.
func listenControl(ctx context.Context, dir string) (net.Listener, error) {
	path := SocketPath(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect control socket: %w", err), l.Close())
	}
	return l, nil
}

func (s *Supervisor) serveControl(ctx context.Context, l net.Listener) error {
	return serve(ctx, l, func(ctx context.Context, conn net.Conn) {
		var req request
		if readAnswer(ctx, conn, &req) != nil {
			return
		}
		r := reply{Report: s.report()}
		if err := s.grant(req.Act); err != nil {
			r.Error = err.Error()
		}
		_ = json.NewEncoder(conn).Encode(r) // who hung up does not want it
	})
}

func (s *Supervisor) grant(act Act) error {
	switch act {
	case Look:
		return nil
	case RestartDaemon:
		return s.daemon.restart()
	case StopAll:
		s.stopEngine.Store(true)
		fallthrough
	case StopDaemon:
		s.wishStop()
		return nil
	default:
		return fmt.Errorf("guard: unknown wish %q", act)
	}
}

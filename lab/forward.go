package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstFD is the descriptor of the forwarder's first listener.
const firstFD = 3

// dialTime bounds how long a peer may take to accept a forwarded connection.
const dialTime = 2 * time.Second

// ensureForwarder starts the lab's forwarder unless it runs. The sockets are
// opened here, so that a taken port is reported to the user.
func (l *Lab) ensureForwarder(ctx context.Context, s *state) error {
	group := "/" + l.name + "/forwarder"
	want := portsOf(s)
	have, err := os.ReadFile(filepath.Join(l.cfg.Dir, "forwards"))
	pids, perr := processes(group)
	if perr != nil {
		return perr
	}
	if err == nil && string(have) == want && len(pids) > 0 {
		return nil
	}
	if err := killAll(ctx, group); err != nil {
		return err
	}
	cmd := exec.Command(l.cfg.Forwarder[0], l.cfg.Forwarder[1:]...) //nolint:noctx // it outlives this command
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	log, err := os.OpenFile(filepath.Join(l.cfg.Dir, "forwarder.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	for _, f := range s.forwards() {
		file, err := listenFile(ctx, f.port)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	err = onThread(func() error {
		v2, err := joinThread(group)
		if err != nil {
			return err
		}
		if v2 != nil {
			defer func() { _ = v2.Close() }()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(v2.Fd())
		}
		return cmd.Start()
	})
	if err != nil {
		return fmt.Errorf("start forwarder: %w", err)
	}
	go func() { _ = cmd.Wait() }() // so that it leaves no zombie while this process lives
	if err := os.WriteFile(filepath.Join(l.cfg.Dir, "forwards"), []byte(want), 0o600); err != nil {
		return fmt.Errorf("note forwarder: %w", err)
	}
	return nil
}

func portsOf(s *state) string {
	var out strings.Builder
	for _, f := range s.forwards() {
		_, _ = fmt.Fprintf(&out, "%d %s %d\n", f.port, f.peer, f.target)
	}
	return out.String()
}

func listenFile(ctx context.Context, port int) (*os.File, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", loopback(port))
	if err != nil {
		return nil, fmt.Errorf("forward a port of the lab: %w: another program has it: `skein lab down` and up chooses others", err)
	}
	defer func() { _ = ln.Close() }()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("forward a port of the lab: %w", err)
	}
	return f, nil
}

// Forward is the forwarder's whole life: it passes connections to the
// loopback ports of the lab in dir on to the peers until ctx ends. It is to be
// called in the process that a lab has started as its Forwarder.
func Forward(ctx context.Context, dir string) error {
	s, err := readState(dir)
	if err != nil {
		return err
	}
	var open []listener
	defer func() { closeAll(open) }()
	for i, f := range s.forwards() {
		file := os.NewFile(uintptr(firstFD+i), "listener "+strconv.Itoa(f.port))
		ln, err := net.FileListener(file)
		if err != nil {
			return fmt.Errorf("forward port %d: %w: the lab itself starts this command", f.port, err)
		}
		open = append(open, listener{ln, f})
		if err := file.Close(); err != nil {
			return fmt.Errorf("forward port %d: %w", f.port, err)
		}
	}
	serve(ctx, dir, open)
	return nil
}

// listener is a loopback port that is listened on, and where it leads.
type listener struct {
	net.Listener

	to forward
}

func closeAll(open []listener) {
	for _, ln := range open {
		_ = ln.Close()
	}
}

// serve forwards what comes in at the listeners until ctx ends, and closes
// them.
func serve(ctx context.Context, dir string, open []listener) {
	var work sync.WaitGroup
	for _, ln := range open {
		work.Go(func() { accept(ctx, dir, ln, ln.to, &work) })
	}
	<-ctx.Done()
	closeAll(open)
	work.Wait()
}

func accept(ctx context.Context, dir string, ln net.Listener, f forward, work *sync.WaitGroup) {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if pause(ctx) != nil {
				return
			}
			continue
		}
		work.Go(func() {
			defer func() { _ = c.Close() }()
			to, err := reach(ctx, dir, f)
			if err != nil {
				return // the client sees its connection closed, as by a dead peer
			}
			defer func() { _ = to.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = to.Close() })
			defer stop()
			join(c, to)
		})
	}
}

// reach connects to the forward's peer, or for any peer to the first that
// accepts, those that are cut off last.
func reach(ctx context.Context, dir string, f forward) (net.Conn, error) {
	s, err := readState(dir)
	if err != nil {
		return nil, err
	}
	var candidates, cut []Peer
	for _, p := range s.Peers {
		switch {
		case f.peer != "" && p.Name != f.peer:
		case f.peer == "" && p.Cut != 0:
			cut = append(cut, p)
		default:
			candidates = append(candidates, p)
		}
	}
	var errs []error
	for _, p := range append(candidates, cut...) {
		c, err := dialWithin(ctx, pin(dir, p.Name), net.JoinHostPort(p.Address.String(), strconv.Itoa(f.target)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialWithin connects from inside a namespace: a socket stays in that of the
// thread that made it. The address is the peer's own there, so a partition is
// no obstacle.
func dialWithin(ctx context.Context, ns, addr string) (c net.Conn, err error) {
	err = onThread(func() error {
		if err := enter(ns, unix.CLONE_NEWNET); err != nil {
			return err
		}
		d := net.Dialer{Timeout: dialTime}
		var err error
		c, err = d.DialContext(ctx, "tcp", addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	return c, nil
}

// join copies both ways until both directions have ended.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	both.Go(func() { pass(a, b) })
	both.Go(func() { pass(b, a) })
	both.Wait()
}

func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if err != nil { // broken: let the other direction end, too
		_ = to.Close()
		_ = from.Close()
		return
	}
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"skein.dev/skein/daemon"
	"skein.dev/skein/guard"
)

// readyWithin bounds the wait for a peer that starts.
const readyWithin = 3 * time.Minute

// launch starts the guard, which starts the rest, and waits until the peer is
// Ready. Detached it then returns; otherwise it stays until the guard ends or
// the user interrupts, and then stops the peer.
func launch(ctx context.Context, c Config, cfg daemon.Config, detach bool) error {
	if _, err := guard.Ask(ctx, cfg.StateDir, guard.Look); err == nil {
		return withHint(fmt.Errorf("peer %s: it runs already", cfg.Name), "`skein status` shows the mesh, `skein stop` stops the peer")
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find my own program: %w", err)
	}
	l, err := daemon.Prepare(ctx, cfg, exe)
	if err != nil {
		return err
	}
	path := filepath.Join(cfg.DataDir, daemon.GuardFile)
	if err := l.Config.Save(path); err != nil {
		return err
	}
	begin := time.Now()
	// Its own session: an interrupt at the terminal reaches us alone, and we
	// stop the parts in order.
	cmd := exec.Command(l.Guard, path) //nolint:noctx // it outlives this command
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	log, err := openLog(cfg)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(c.Streams.ErrOut, format+"\n", args...) }
	if err := waitReady(ctx, cfg, ended, say); err != nil {
		return err
	}
	say("peer %s is Ready after %.1f s; kubeconfig: %s", cfg.Name, time.Since(begin).Seconds(), cfg.Kubeconfig)
	if detach {
		return nil
	}
	select {
	case err := <-ended:
		return guardEnded(cfg, err)
	case <-ctx.Done():
		say("stopping; the containers go on")
		return stopPeer(context.WithoutCancel(ctx), cfg, false)
	}
}

func openLog(cfg daemon.Config) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(cfg.DataDir, daemon.GuardLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// guardEnded is the error of a guard that ended by itself: its last words,
// which are the daemon's if that refused to run.
func guardEnded(cfg daemon.Config, err error) error {
	if err == nil {
		return nil
	}
	raw, readErr := os.ReadFile(filepath.Join(cfg.DataDir, daemon.GuardLog))
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	words := strings.TrimPrefix(lines[len(lines)-1], "skein: ")
	if readErr != nil || words == "" {
		words = err.Error()
	}
	return withHint(fmt.Errorf("peer %s: it does not run: %s", cfg.Name, words), "more is in "+filepath.Join(cfg.DataDir, daemon.LogFile))
}

// waitReady tells each step as it is reached.
func waitReady(ctx context.Context, cfg daemon.Config, ended <-chan error, say func(string, ...any)) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	rest, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	rest.QPS = -1
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	step, last := "the store and the API", error(nil)
	say("peer %s starts: waiting for %s", cfg.Name, step)
	for {
		select {
		case err := <-ended:
			return guardEnded(cfg, err)
		case <-ctx.Done():
			return withHint(fmt.Errorf("peer %s: not Ready: waiting for %s: %w", cfg.Name, step, errors.Join(last, ctx.Err())),
				"the reason is in "+filepath.Join(cfg.DataDir, daemon.LogFile))
		case <-tick.C:
		}
		if cfg.APIOnly() {
			if _, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); last == nil {
				return nil
			}
			continue
		}
		node, err := client.CoreV1().Nodes().Get(ctx, cfg.Name, metav1.GetOptions{ResourceVersion: "0"})
		last = err
		if err != nil {
			continue
		}
		if step != "the node" {
			step = "the node"
			say("peer %s: the API answers; waiting for %s", cfg.Name, step)
		}
		if nodeReady(node) {
			return nil
		}
	}
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// stopPeer stops guard and daemon, and with all set containerd and the
// containers too. A peer that does not run is stopped.
func stopPeer(ctx context.Context, cfg daemon.Config, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	act := guard.StopDaemon
	if all {
		act = guard.StopAll
	}
	_, err := guard.Ask(ctx, cfg.StateDir, act)
	switch {
	case err == nil:
		err = guard.Wait(ctx, cfg.StateDir)
	case errors.Is(err, guard.ErrNotRunning):
		err = nil
	}
	if err != nil || !all {
		return err
	}
	return daemon.EndContainers(ctx, cfg)
}

package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/skein/guard"
)

// bench is a state directory with a guard's configuration.
type bench struct {
	dir string
	cfg guard.Config
	err bytes.Buffer // what the guards wrote
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sk-grd-") //nolint:usetesting // t.TempDir is too long a path for a socket
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	b := &bench{dir: dir}
	command := func(name string) guard.Command {
		return guard.Command{Path: self, Argv: []string{"guarded"}, Env: []string{}, Log: filepath.Join(dir, name+".log")}
	}
	engine := command(guard.Engine)
	b.cfg = guard.Config{
		StateDir: filepath.Join(dir, "state"), Engine: &engine, Daemon: command(guard.Daemon), Listen: "127.0.0.1:0",
		Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), Pool: filepath.Join(dir, "pool"),
		Grace: 10 * time.Second,
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guards wrote:\n%s", b.err.String())
		}
		must(t, os.RemoveAll(dir))
	})
	return b
}

// start starts a guard and returns it with its report once all its processes
// have run.
func (b *bench) start(t *testing.T) (*exec.Cmd, guard.Report) {
	t.Helper()
	cmd := b.spawn(t)
	t.Cleanup(func() {
		if _, err := b.ask(guard.StopAll); err == nil {
			must(t, guard.Wait(context.Background(), b.cfg.StateDir))
		}
		_ = cmd.Wait() // a test may have waited already
	})
	return cmd, b.until(t, "all run", func(r guard.Report) bool {
		for _, g := range r.Guards {
			if g.State != guard.Running || !slices.Contains(b.pids(t, g.Name), g.PID) {
				return false
			}
		}
		return r.PID == cmd.Process.Pid
	})
}

func (b *bench) spawn(t *testing.T) *exec.Cmd {
	t.Helper()
	config := filepath.Join(b.dir, "guard.json")
	must(t, b.cfg.Save(config))
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"guard-under-test", config}
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = &b.err
	must(t, cmd.Start())
	return cmd
}

func (b *bench) ask(act guard.Act) (guard.Report, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return guard.Ask(ctx, b.cfg.StateDir, act)
}

// until polls the guard's report until it holds.
func (b *bench) until(t *testing.T, what string, holds func(guard.Report) bool) guard.Report {
	t.Helper()
	var last guard.Report
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		r, err := b.ask(guard.Look)
		if err == nil && holds(r) {
			return r
		}
		last = r
	}
	t.Fatalf("never came true: %s; last report %+v\n%s", what, last, b.err.String())
	return last
}

func of(r guard.Report, name string) guard.Guard {
	for _, g := range r.Guards {
		if g.Name == name {
			return g
		}
	}
	return guard.Guard{}
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// gone waits until the process is no more; it is no child of the test's.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %d still lives", pid)
}

func TestACrashedDaemonIsStartedAgainAndTheEngineLeftAlone(t *testing.T) {
	b := newBench(t)
	_, before := b.start(t)
	must(t, unix.Kill(of(before, guard.Daemon).PID, unix.SIGKILL))
	after := b.until(t, "daemon has a new pid", func(r guard.Report) bool {
		d := of(r, guard.Daemon)
		return d.State == guard.Running && d.PID != of(before, guard.Daemon).PID
	})
	d := of(after, guard.Daemon)
	if d.Starts != 2 || d.LastExit != "signal: killed" {
		t.Errorf("daemon: got %+v, want 2 starts and its last exit", d)
	}
	if got, want := of(after, guard.Engine).PID, of(before, guard.Engine).PID; got != want {
		t.Errorf("engine: got pid %d, want %d still", got, want)
	}
}

func TestAKilledGuardsProcessesAreAdoptedByTheNext(t *testing.T) {
	b := newBench(t)
	first, before := b.start(t)
	must(t, first.Process.Kill())
	_ = first.Wait()
	_, after := b.start(t)
	for _, name := range []string{guard.Engine, guard.Daemon} {
		was, is := of(before, name), of(after, name)
		if is.PID != was.PID || !is.Adopted || is.Starts != 0 {
			t.Errorf("%s: got %+v, want pid %d adopted", name, is, was.PID)
		}
	}
	// An adopted process is guarded like one that was started.
	must(t, unix.Kill(of(after, guard.Daemon).PID, unix.SIGKILL))
	b.until(t, "adopted daemon is started again", func(r guard.Report) bool {
		d := of(r, guard.Daemon)
		return d.State == guard.Running && !d.Adopted
	})
}

func TestAProcessOfAnotherCommandIsReplaced(t *testing.T) {
	b := newBench(t)
	first, before := b.start(t)
	must(t, first.Process.Kill())
	_ = first.Wait()
	b.cfg.Daemon.Env = []string{"NEW=1"}
	_, after := b.start(t)
	if d := of(after, guard.Daemon); d.PID == of(before, guard.Daemon).PID || d.Adopted {
		t.Errorf("daemon: got %+v, want it started with the new command", d)
	}
	gone(t, of(before, guard.Daemon).PID)
	if e := of(after, guard.Engine); !e.Adopted {
		t.Errorf("engine: got %+v, want it adopted", e)
	}
}

func TestAForeignProcessIsNeitherAdoptedNorEnded(t *testing.T) {
	foreign := exec.Command("sleep", "1000")
	must(t, foreign.Start())
	t.Cleanup(func() {
		must(t, foreign.Process.Kill())
		_ = foreign.Wait()
	})
	for name, change := range map[string]func(map[string]any){
		"pid used again":  func(p map[string]any) { p["pid"] = foreign.Process.Pid },
		"pid of nobody":   func(p map[string]any) { p["pid"] = 1<<22 - 1 },
		"of another boot": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			first, before := b.start(t)
			must(t, first.Process.Kill())
			_ = first.Wait()
			for _, g := range before.Guards {
				must(t, unix.Kill(g.PID, unix.SIGKILL))
			}
			path := filepath.Join(b.cfg.StateDir, "guard-processes.json")
			raw, err := os.ReadFile(path)
			must(t, err)
			var rec map[string]any
			must(t, json.Unmarshal(raw, &rec))
			if change == nil {
				rec["bootID"] = "another"
			} else {
				change(rec["processes"].(map[string]any)[guard.Daemon].(map[string]any))
			}
			raw, err = json.Marshal(rec)
			must(t, err)
			must(t, os.WriteFile(path, raw, 0o600))
			_, after := b.start(t)
			if d := of(after, guard.Daemon); d.Adopted || d.Starts != 1 {
				t.Errorf("daemon: got %+v, want it started", d)
			}
			if !alive(foreign.Process.Pid) {
				t.Error("the foreign process was ended")
			}
		})
	}
}

func TestSigtermEndsTheDaemonAndLeavesTheEngine(t *testing.T) {
	b := newBench(t)
	cmd, r := b.start(t)
	must(t, cmd.Process.Signal(unix.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("guard: got %v, want status 0", err)
	}
	gone(t, of(r, guard.Daemon).PID)
	if !alive(of(r, guard.Engine).PID) {
		t.Error("the engine was ended")
	}
	_, again := b.start(t) // adopts the engine, and its cleanup ends it
	if e := of(again, guard.Engine); e.PID != of(r, guard.Engine).PID {
		t.Errorf("engine: got %+v, want it adopted", e)
	}
}

func TestStopAllEndsTheEngineToo(t *testing.T) {
	b := newBench(t)
	cmd, r := b.start(t)
	_, err := b.ask(guard.StopAll)
	must(t, err)
	must(t, guard.Wait(t.Context(), b.cfg.StateDir))
	if err := cmd.Wait(); err != nil {
		t.Errorf("guard: got %v, want status 0", err)
	}
	for _, g := range r.Guards {
		gone(t, g.PID)
	}
	if _, err := b.ask(guard.Look); !errors.Is(err, guard.ErrNotRunning) {
		t.Errorf("after the end: got error %v, want ErrNotRunning", err)
	}
}

func TestADeafDaemonIsKilledAfterItsGrace(t *testing.T) {
	b := newBench(t)
	b.cfg.Daemon.Env = []string{"BEHAVE=deaf"}
	b.cfg.Grace = 100 * time.Millisecond
	cmd, r := b.start(t)
	must(t, cmd.Process.Signal(unix.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("guard: got %v, want status 0", err)
	}
	gone(t, of(r, guard.Daemon).PID)
	b.cfg.Daemon.Env = nil
	b.start(t) // for its cleanup
}

func TestARefusedConfigurationEndsAllWithTheDaemonsMessage(t *testing.T) {
	b := newBench(t)
	b.cfg.Daemon.Env = []string{"BEHAVE=refuse"}
	cmd := b.spawn(t)
	err := cmd.Wait()
	var exited *exec.ExitError
	if !errors.As(err, &exited) || exited.ExitCode() != guard.ExitConfig {
		t.Errorf("guard: got %v, want exit status %d", err, guard.ExitConfig)
	}
	if !strings.HasSuffix(b.err.String(), "skein: up: port 6443: in use\n") {
		t.Errorf("guard wrote %q, want the daemon's message last", b.err.String())
	}
	for _, pid := range b.pids(t, guard.Engine) {
		gone(t, pid)
	}
	if n := len(b.pids(t, guard.Daemon)); n != 1 {
		t.Errorf("the daemon was started %d times, want once", n)
	}
}

// pids are those that a process of that name wrote to its log.
func (b *bench) pids(t *testing.T, name string) []int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(b.dir, name+".log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // ended before it could write
	}
	must(t, err)
	var pids []int
	for line := range strings.Lines(string(log)) {
		if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "up "); ok {
			pids = append(pids, atoi(t, pid))
		}
	}
	return pids
}

func TestADaemonThatKeepsCrashingIsReported(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine = nil
	b.cfg.Daemon.Env = []string{"BEHAVE=crash"}
	cmd := b.spawn(t)
	r := b.until(t, "daemon is crashing", func(r guard.Report) bool { return r.Daemon == guard.Crashing })
	if d := of(r, guard.Daemon); d.LastExit != "exit status 3" || d.Starts < 4 {
		t.Errorf("daemon: got %+v, want at least 4 starts and its exit status", d)
	}
	must(t, cmd.Process.Signal(unix.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("guard: got %v, want status 0", err)
	}
}

func TestTheGuardEndsWithADaemonThatLeft(t *testing.T) {
	b := newBench(t)
	b.cfg.Engine = nil
	b.cfg.Daemon.Env = []string{"BEHAVE=leave"}
	if err := b.spawn(t).Wait(); err != nil {
		t.Errorf("guard: got %v, want status 0", err)
	}
	if n := len(b.pids(t, guard.Daemon)); n != 1 {
		t.Errorf("the daemon was started %d times, want once", n)
	}
}

func TestTheDaemonIsRestartedOnAWish(t *testing.T) {
	b := newBench(t)
	_, before := b.start(t)
	_, err := b.ask(guard.RestartDaemon)
	must(t, err)
	b.until(t, "daemon has a new pid", func(r guard.Report) bool {
		d := of(r, guard.Daemon)
		return d.State == guard.Running && d.PID != of(before, guard.Daemon).PID && d.LastExit == "exit status 0" && d.Starts == 2
	})
}

func TestAGuardThatCannotWorkStartsNothing(t *testing.T) {
	t.Run("second guard", func(t *testing.T) {
		b := newBench(t)
		_, r := b.start(t)
		g, err := guard.New(b.cfg)
		must(t, err)
		if err := g.Run(t.Context()); !errors.Is(err, guard.ErrRunning) {
			t.Errorf("got error %v, want ErrRunning", err)
		}
		if !alive(of(r, guard.Daemon).PID) || len(b.pids(t, guard.Daemon)) != 1 {
			t.Error("the first guard's daemon was touched")
		}
	})
	t.Run("port in use", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		b := newBench(t)
		b.cfg.Listen = l.Addr().String()
		g, err := guard.New(b.cfg)
		must(t, err)
		if err := g.Run(t.Context()); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("got error %v, want address in use", err)
		}
		if n := len(b.pids(t, guard.Engine)); n != 0 {
			t.Errorf("the engine was started %d times", n)
		}
	})
}

func TestAStagedProcessWithoutAGuardEndsByItself(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	cmd := exec.Command("/proc/self/exe", guard.StageArg)
	cmd.ExtraFiles = []*os.File{r}
	var out bytes.Buffer
	cmd.Stderr = &out
	must(t, cmd.Start())
	must(t, r.Close())
	must(t, w.Close()) // as the death of the guard does
	var exited *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exited) || exited.ExitCode() != 1 {
		t.Errorf("got %v (%s), want exit status 1", err, out.String())
	}
}

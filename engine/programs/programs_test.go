package programs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skein.dev/skein/engine/programs"
)

func unpack(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "programs")
	if err := programs.Unpack(dir); errors.Is(err, programs.ErrNotBuilt) {
		t.Skip("no static programs; run: make programs")
	} else if err != nil {
		t.Fatal(err)
	}
	return dir
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestUnpackWritesExecutablesOnceOnly(t *testing.T) {
	dir := unpack(t)
	before := map[string]uint64{}
	for _, name := range programs.All() {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o755 {
			t.Fatalf("%s: got mode %v (%v), want 0755", name, fi.Mode(), err)
		}
		before[name] = inode(t, path)
	}
	if err := programs.Unpack(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range before {
		if got := inode(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s was written again though nothing changed", name)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(programs.All()) {
		t.Errorf("got %v (%v), want nothing but the programs", entries, err)
	}
}

func TestUnpackReplacesADamagedProgramWhileItRuns(t *testing.T) {
	dir := unpack(t)
	path := filepath.Join(dir, programs.Pause)
	run := exec.Command(path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"mode":    func() error { return os.Chmod(path, 0o600) },
		"missing": func() error { return os.Remove(path) },
		"content": func() error {
			// The same size, one byte changed: as a new file, since the kernel
			// refuses to write to one that runs.
			b, err := programs.Read(programs.Pause)
			if err != nil {
				return err
			}
			b[len(b)-1]++
			return errors.Join(os.Remove(path), os.WriteFile(path, b, 0o755))
		},
	} {
		if err := damage(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := programs.Unpack(dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := os.ReadFile(path)
		want, _ := programs.Read(programs.Pause)
		if fi, _ := os.Stat(path); err != nil || string(got) != string(want) || fi.Mode() != 0o755 {
			t.Errorf("%s: the program was not repaired", name)
		}
	}
	if err := run.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatalf("the running program died: %v", err)
	}
	if err := run.Wait(); err != nil {
		t.Errorf("pause on SIGTERM: got %v, want exit status 0", err)
	}
}

func TestPauseReapsOrphansOfItsNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	dir := unpack(t)
	// The shell becomes pause as PID 1; its background child is then an
	// orphan that pause has to reap.
	script := `sleep 0.05 & exec ` + filepath.Join(dir, programs.Pause)
	run := exec.Command("sh", "-c", script)
	run.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	children := "/proc/" + strconv.Itoa(run.Process.Pid) + "/task/" + strconv.Itoa(run.Process.Pid) + "/children"
	seen, gone := false, false
	for range 5_000 {
		b, err := os.ReadFile(children)
		if errors.Is(err, os.ErrNotExist) && !seen {
			t.Log("the kernel does not list children")
		}
		has := strings.TrimSpace(string(b)) != ""
		seen = seen || has
		if gone = seen && !has; gone {
			break
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	if err := run.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); err != nil {
		t.Errorf("pause as PID 1 on SIGTERM: got %v, want exit status 0", err)
	}
	if !gone {
		t.Errorf("orphan: seen %t, reaped %t", seen, gone)
	}
}

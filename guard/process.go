package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// identity tells one process from every other that ever had or will have its
// pid: the kernel counts a start time in ticks since boot.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// process is a running process of the guard's, started or adopted.
type process struct {
	identity
	pidfd *os.File
	child *exec.Cmd // nil: adopted, it is another's child
	began time.Time // when this guard got it
}

// exitStatus is how a process ended.
type exitStatus struct {
	known bool // not for an adopted process: only a parent learns it
	code  int
	text  string
}

// start runs c. The process is written down by record before it becomes c.
func start(c Command, score string, record func(identity) error) (*process, error) {
	out, err := openLog(c.Log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make order pipe: %w", err)
	}
	defer w.Close()
	// Not os.Executable: the file may have been replaced since.
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{c.Argv[0], StageArg}, Env: []string{},
		Stdout: out, Stderr: out, ExtraFiles: []*os.File{r},
		SysProcAttr: &unix.SysProcAttr{Setsid: true}, // a terminal's ^C is for the guard alone
	}
	err = cmd.Start()
	_ = r.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	p, err := open(cmd.Process.Pid)
	if err == nil {
		p.child = cmd
		err = record(p.identity)
	}
	if err == nil {
		err = json.NewEncoder(w).Encode(stageOrder{Command: c, OOMScore: score})
	}
	if err != nil {
		_ = w.Close() // the staged process ends at that
		_ = cmd.Wait()
		return nil, fmt.Errorf("start %s: %w", c.Argv[0], err)
	}
	return p, nil
}

// open takes hold of the process that has pid now.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	p := &process{pidfd: os.NewFile(uintptr(fd), "pidfd"), began: time.Now()}
	// The start time is read after the descriptor is held: if the pid is used
	// again in between, it does not match what was written down.
	ticks, err := startTime(pid)
	if err != nil {
		_ = p.pidfd.Close()
		return nil, err
	}
	p.identity = identity{PID: pid, Start: ticks}
	return p, nil
}

// errGone says that a process written down is no more.
var errGone = errors.New("process is gone")

// adopt takes hold of the very process id, or of none.
func adopt(id identity) (*process, error) {
	p, err := open(id.PID)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return nil, errGone
	} else if err != nil {
		return nil, err
	}
	if p.Start != id.Start || p.ended() {
		_ = p.pidfd.Close()
		return nil, errGone
	}
	return p, nil
}

// startTime is field 22 of /proc/<pid>/stat. The command in field 2 may hold
// anything, spaces and brackets too.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: malformed stat %q", pid, b)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// ended tells whether the process is dead, a zombie included.
func (p *process) ended() bool {
	ready := false
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	err = conn.Control(func(fd uintptr) { ready = readable(fd) })
	return err == nil && ready
}

func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

// wait blocks until the process ends, reaps it and lets go of it. When ctx
// ends first the process is still held.
func (p *process) wait(ctx context.Context) (exitStatus, error) {
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return exitStatus{}, fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	if err := conn.Read(readable); err != nil {
		if ctx.Err() != nil {
			return exitStatus{}, errors.Join(ctx.Err(), p.pidfd.SetReadDeadline(time.Time{}))
		}
		return exitStatus{}, fmt.Errorf("wait for process %d: %w", p.PID, err)
	}
	_ = p.pidfd.Close()
	if p.child == nil {
		return exitStatus{text: "status unknown, it was adopted"}, nil
	}
	_ = p.child.Wait() // the state below says it all
	s := p.child.ProcessState
	return exitStatus{known: true, code: s.ExitCode(), text: s.String()}, nil
}

// signal reaches this process and never another that got its pid.
func (p *process) signal(sig unix.Signal) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return sent
}

// terminate ends the process, by force when grace is over or hurry closes.
func (p *process) terminate(ctx context.Context, grace time.Duration) (exitStatus, error) {
	if err := p.signal(unix.SIGTERM); err != nil {
		return exitStatus{}, fmt.Errorf("end process %d: %w", p.PID, err)
	}
	soft, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	status, err := p.wait(soft)
	if soft.Err() == nil || err == nil {
		return status, err
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return exitStatus{}, fmt.Errorf("kill process %d: %w", p.PID, err)
	}
	return p.wait(context.WithoutCancel(ctx))
}

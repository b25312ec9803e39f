package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// StageArg is the argument with which a guard executes itself to become one
// of its processes; main then calls [Stage].
//
// Between fork and exec there is so a process that waits until the guard has
// written its pid down: a guard killed at any moment leaves no process that
// the next guard would not know. It also joins its cgroup before it is the
// program, so no child of the program escapes.
const StageArg = "stage"

// stageFD is where the staged process reads its order.
const stageFD = 3

type stageOrder struct {
	Command
	OOMScore string `json:"oomScore,omitempty"` // empty: leave it
}

// Stage waits for the guard's order and executes it. It returns only with an
// error, also when the guard died first.
func Stage() error {
	line, err := bufio.NewReader(os.NewFile(stageFD, "order")).ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read order of the guard: %w", err)
	}
	var o stageOrder
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("decode order of the guard: %w", err)
	}
	unix.CloseOnExec(stageFD)
	// A place that cannot be had is the guard's to report: it has tried the
	// same for itself.
	_ = joinCgroup(o.Cgroup, os.Getpid())
	if o.OOMScore != "" {
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte(o.OOMScore), 0)
	}
	if err := unix.Exec(o.Path, o.Argv, o.Env); err != nil {
		return fmt.Errorf("execute %s: %w", o.Path, err)
	}
	return errors.New("unreachable")
}

// oomScore is what the kernel prefers to kill: the guard last, then what it
// guards, then everything else.
type oomScore int

const (
	guardScore   oomScore = -999
	guardedScore oomScore = -950
)

func (s oomScore) String() string { return strconv.Itoa(int(s)) }

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// suite runs tests and collects what became of them.
type suite struct {
	config
	out io.Writer // progress
}

// result is what became of one test.
type result struct {
	test   test
	state  types.SpecState // passed, failed, timedout, ...; invalid: it did not run
	begin  time.Time
	took   time.Duration
	reason string
	kills  []kill // of the store's leader, meanwhile
}

// batch is tests of one SIG that may run at the same time, or not.
type batch struct {
	name  string
	tests []test
	procs int
}

// batches groups tests by SIG, the serial ones last and alone.
func batches(tests []test, procs int) []batch {
	var out []batch
	for _, serial := range []bool{false, true} {
		by := map[string][]test{}
		var sigs []string
		for _, t := range tests {
			if t.serial() != serial {
				continue
			}
			if by[t.sig()] == nil {
				sigs = append(sigs, t.sig())
			}
			by[t.sig()] = append(by[t.sig()], t)
		}
		slices.Sort(sigs)
		for _, sig := range sigs {
			b := batch{name: sig, tests: by[sig], procs: min(procs, len(by[sig]))}
			if serial {
				b.name, b.procs = sig+"-serial", 1
			}
			out = append(out, b)
		}
	}
	return out
}

// run runs all tests. A batch that breaks off does not keep others from running.
func (s suite) run(ctx context.Context, tests []test) []result {
	var all []result
	for _, b := range batches(tests, s.procs) {
		if ctx.Err() != nil {
			all = append(all, b.results(nil)...)
			continue
		}
		begin := time.Now()
		found, err := s.batch(ctx, b)
		if err != nil {
			s.say("%s: %v", b.name, err)
		}
		results := b.results(found)
		all = append(all, results...)
		passed := 0
		for _, r := range results {
			if r.state == types.SpecStatePassed {
				passed++
			}
		}
		s.say("%-24s %3d of %3d passed in %s", b.name, passed, len(results), time.Since(begin).Round(time.Second))
	}
	return all
}

// say reports progress to a person, who is lost when it cannot be written.
func (s suite) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format+"\n", args...) }

// batch runs one batch. Its reports and its log are in files of its name.
func (s suite) batch(ctx context.Context, b batch) ([]types.SpecReport, error) {
	dir := filepath.Join(s.config.out, "reports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	report := filepath.Join(dir, b.name+".json")
	if err := os.RemoveAll(report); err != nil {
		return nil, fmt.Errorf("remove old report: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, b.name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, "ginkgo"),
		"run", "--no-color", "-v", "--procs", strconv.Itoa(b.procs), "--timeout", s.timeout.String(),
		"--focus", b.focus(), "--output-dir", dir,
		"--json-report", b.name+".json", "--junit-report", b.name+".xml",
		filepath.Join(s.programs, "e2e.test"), "--",
		"--kubeconfig", s.kubeconfig, "--kubectl-path", filepath.Join(s.programs, "kubectl"),
		"--provider", "skeleton", "--report-dir", filepath.Join(dir, "upstream"), "--node-schedulable-timeout", "2m")
	cmd.Stdout, cmd.Stderr = log, log
	// Interrupted, ginkgo still lets tests clean up and writes its reports.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ran := cmd.Start()
	if ran == nil {
		ran = cmd.Wait() // a failed test is a failed command: the report tells more
		// Where ginkgo had to be killed its processes are left: all of a group.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("no report: %w: ginkgo ended with: %w: see %s", err, ran, log.Name())
	}
	var suites []types.Report
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var specs []types.SpecReport
	for _, r := range suites {
		specs = append(specs, r.SpecReports...)
	}
	return specs, nil
}

// focus matches the batch's tests and no other.
func (b batch) focus() string {
	names := make([]string, len(b.tests))
	for i, t := range b.tests {
		names[i] = regexp.QuoteMeta(string(t))
	}
	return strings.Join(names, "|")
}

// results finds what became of each of the batch's tests. What failed outside
// of all tests is the reason for those that did not run.
func (b batch) results(specs []types.SpecReport) []result {
	by := map[test]types.SpecReport{}
	missing := "it did not run"
	for _, r := range specs {
		if !r.LeafNodeType.Is(types.NodeTypeIt) {
			if r.State.Is(types.SpecStateFailureStates) {
				missing = "it did not run: " + r.LeafNodeType.String() + ": " + firstLine(r.Failure.Message)
			}
			continue
		}
		// Tests that ginkgo left out are in the report, too.
		if r.State != types.SpecStateSkipped {
			by[test(r.FullText())] = r
		}
	}
	var out []result
	for _, t := range b.tests {
		r, ok := by[t]
		if !ok {
			out = append(out, result{test: t, reason: missing})
			continue
		}
		res := result{test: t, state: r.State, begin: r.StartTime, took: r.RunTime}
		if r.State != types.SpecStatePassed {
			res.reason = firstLine(r.Failure.Message)
		}
		out = append(out, res)
	}
	return out
}

// firstLine is a message short enough for a table.
func firstLine(s string) string {
	line := strings.Join(strings.Fields(s), " ")
	if r := []rune(line); len(r) > 240 {
		return string(r[:240]) + " ..."
	}
	return line
}

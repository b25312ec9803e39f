package lifecycle_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"skein.dev/skein/kubelet/lifecycle"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// TestTranscripts replays each life in testdata: a pod, then commands ("$ ")
// with what the machine did after each. The world below does what the machine
// asks at once, except where a command said that it fails.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, want)
			if *update {
				if err := os.WriteFile(f, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("transcript differs (-want +got):\n%s", d)
			}
		})
	}
}

func replay(t *testing.T, script []byte) []byte {
	t.Helper()
	head, body, ok := bytes.Cut(script, []byte("\n---\n"))
	if !ok {
		t.Fatal("transcript has no ---")
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(head, &pod); err != nil {
		t.Fatal(err)
	}
	w := newWorld(&pod)
	w.out.Write(head)
	w.out.WriteString("\n---\n")
	for line := range strings.SplitSeq(string(body), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			fmt.Fprintln(&w.out, line)
		case strings.HasPrefix(line, "$ "):
			fmt.Fprintln(&w.out, line)
			if err := w.command(strings.Fields(line[2:])); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
	}
	return w.out.Bytes()
}

// world is a runtime that is as simple as possible.
type world struct {
	out   bytes.Buffer
	m     *lifecycle.Machine
	in    lifecycle.Input
	now   time.Time
	start time.Time
	ids   int
	fails map[string]string // action prefix -> reason
	slow  map[string]bool   // containers that do not stop when told
	hooks map[string]bool   // containers whose postStart hook takes its time
	last  string
}

func newWorld(pod *corev1.Pod) *world {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	return &world{
		m: lifecycle.New(), now: start, start: start, fails: map[string]string{}, slow: map[string]bool{}, hooks: map[string]bool{},
		in: lifecycle.Input{Pod: pod, Hooked: map[string]bool{}, Probes: map[string]lifecycle.Probes{}, Runtime: "test", HostIPs: []string{"192.0.2.1"}},
	}
}

func (w *world) command(f []string) error {
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch f[0] {
	case "settle":
	case "wait": // a time that passes, with the wakes that the machine asked for
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		return w.wait(d)
	case "exit":
		code, err := strconv.Atoi(arg(2))
		if err != nil {
			return err
		}
		return w.exit(arg(1), int32(code))
	case "probe":
		return w.probe(arg(1), arg(2))
	case "fail": // fail start app ErrImagePull; fail nothing
		if arg(1) == "nothing" {
			clear(w.fails)
			break
		}
		w.fails[strings.TrimSpace(arg(1)+" "+arg(2))] = arg(3)
		return nil
	case "slow":
		w.slow[arg(1)] = true
		return nil
	case "delete":
		grace, err := strconv.ParseInt(arg(1), 10, 64)
		if err != nil {
			return err
		}
		at := metav1.NewTime(w.now)
		w.in.Pod.DeletionTimestamp, w.in.Pod.DeletionGracePeriodSeconds = &at, &grace
	case "gone":
		w.in.Gone = true
	case "hook": // hook runs|done app: the container's postStart hook
		return w.hook(arg(1) == "runs", arg(2))
	case "debug": // debug name: somebody adds an ephemeral container
		w.in.Pod.Spec.EphemeralContainers = append(w.in.Pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: arg(1), Image: "i"},
		})
	case "evict":
		w.in.Evicted = &lifecycle.Rejection{Reason: lifecycle.ReasonEvicted, Message: "the node runs short"}
	case "sandbox-dies":
		w.in.Sandboxes[0].Ready = false
	case "kubelet-restarts":
		w.m = lifecycle.New()
	case "image": // image app other:2
		for i := range w.in.Pod.Spec.Containers {
			if w.in.Pod.Spec.Containers[i].Name == arg(1) {
				w.in.Pod.Spec.Containers[i].Image = arg(2)
			}
		}
	default:
		return fmt.Errorf("unknown command")
	}
	return w.settle()
}

// settle plans and does until nothing is left to do.
func (w *world) settle() error {
	for range 30 {
		p := w.m.Plan(w.in, w.now)
		w.in.Pod.Status = p.Status
		w.show(p)
		if len(p.Actions) == 0 {
			return nil
		}
		for _, a := range p.Actions {
			fmt.Fprintf(&w.out, "  %s\n", a)
			if !w.do(a) && a.Op != lifecycle.Start {
				break
			}
		}
	}
	return fmt.Errorf("the machine never rests")
}

func (w *world) wait(d time.Duration) error {
	for end := w.now.Add(d); ; {
		p := w.m.Plan(w.in, w.now)
		if p.Wake.IsZero() || p.Wake.After(end) {
			w.now = end
			return w.settle()
		}
		w.now = p.Wake
		if err := w.settle(); err != nil {
			return err
		}
	}
}

func (w *world) show(p lifecycle.Plan) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", p.Status.Phase)
	if p.Status.Reason != "" {
		fmt.Fprintf(&b, "(%s)", p.Status.Reason)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			fmt.Fprintf(&b, " ready=%s", c.Status)
		}
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for _, c := range list {
			fmt.Fprintf(&b, " %s=%s", c.Name, state(c))
		}
	}
	if p.Clean {
		b.WriteString(" clean")
	}
	if s := b.String(); s != w.last {
		fmt.Fprintf(&w.out, "  [%v] %s\n", w.now.Sub(w.start), s)
		w.last = s
	}
}

func state(c corev1.ContainerStatus) string {
	s := "running"
	switch {
	case c.State.Waiting != nil:
		s = c.State.Waiting.Reason
	case c.State.Terminated != nil:
		s = fmt.Sprintf("%s:%d", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
	}
	if c.RestartCount > 0 {
		s += fmt.Sprintf("/%d", c.RestartCount)
	}
	return s
}

// do does an action and tells the machine.
func (w *world) do(a lifecycle.Action) bool {
	if reason, ok := w.fails[strings.TrimSpace(string(a.Op)+" "+a.Name)]; ok {
		w.m.Failed(lifecycle.Failure{Action: a, Reason: reason, Message: "it failed"}, w.now)
		return false
	}
	at := func(id string) int {
		return slices.IndexFunc(w.in.Containers, func(c lifecycle.Container) bool { return c.ID == id })
	}
	switch a.Op {
	case lifecycle.CreateSandbox:
		w.ids++
		w.in.Sandboxes = slices.Insert(w.in.Sandboxes, 0, lifecycle.Sandbox{
			ID: fmt.Sprintf("s%d", w.ids), Attempt: a.Attempt, Ready: true, CreatedAt: w.now, IPs: []string{"10.0.0.9"},
		})
	case lifecycle.Start:
		w.ids++
		c := lifecycle.Container{
			ID: fmt.Sprintf("c%d", w.ids), Name: a.Name, SandboxID: a.ID, Attempt: a.Attempt, State: lifecycle.Running,
			CreatedAt: w.now, StartedAt: w.now, Hash: w.hash(a.Name),
		}
		w.in.Containers = slices.Insert(w.in.Containers, 0, c)
		if w.hooks[a.Name] {
			w.in.Hooked[c.ID] = true
		}
	case lifecycle.Kill:
		if i := at(a.ID); !w.slow[a.Name] || a.Grace == 0 {
			w.end(i, 143)
		}
		return true // the machine hears of it by the container's end
	case lifecycle.Remove:
		w.in.Containers = slices.Delete(w.in.Containers, at(a.ID), at(a.ID)+1)
	case lifecycle.StopSandbox:
		for i := range w.in.Sandboxes {
			if w.in.Sandboxes[i].ID == a.ID {
				w.in.Sandboxes[i].Ready = false
			}
		}
		for i, c := range w.in.Containers {
			if c.SandboxID == a.ID && c.State == lifecycle.Running {
				w.end(i, 137)
			}
		}
	case lifecycle.RemoveSandbox:
		w.in.Sandboxes = slices.DeleteFunc(w.in.Sandboxes, func(s lifecycle.Sandbox) bool { return s.ID == a.ID })
	default:
	}
	w.m.Done(a)
	return true
}

func (w *world) hash(name string) string {
	for _, list := range [][]corev1.Container{w.in.Pod.Spec.InitContainers, w.in.Pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return lifecycle.Hash(&list[i])
			}
		}
	}
	return ""
}

func (w *world) end(i int, code int32) {
	c := &w.in.Containers[i]
	c.State, c.ExitCode, c.FinishedAt = lifecycle.Exited, code, w.now
}

func (w *world) exit(name string, code int32) error {
	for i := range w.in.Containers {
		if c := &w.in.Containers[i]; c.Name == name && c.State == lifecycle.Running {
			w.end(i, code)
			return w.settle()
		}
	}
	return fmt.Errorf("no running container %s", name)
}

// hook begins or ends the hook of a container, of the next one to start if
// none runs.
func (w *world) hook(runs bool, name string) error {
	if runs {
		w.hooks[name] = true
		return nil
	}
	delete(w.hooks, name)
	clear(w.in.Hooked)
	return w.settle()
}

func (w *world) probe(name, what string) error {
	for i := range w.in.Containers {
		c := &w.in.Containers[i]
		if c.Name != name || c.State != lifecycle.Running {
			continue
		}
		p := w.in.Probes[c.ID]
		yes, no := true, false
		switch what {
		case "ready":
			p.Ready = &yes
		case "unready":
			p.Ready = &no
		case "started":
			p.Started = &yes
		case "dead":
			p.Unhealthy = "failed liveness probe"
		}
		w.in.Probes[c.ID] = p
		return w.settle()
	}
	return fmt.Errorf("no running container %s", name)
}

// Package cli is the command line of skein: the mesh's own verbs and all of
// kubectl's, in one tree.
//
// Its invariant: stdout is the answer, stderr everything else; an error of
// ours is one line, with a hint on what to do when we know one.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	componentcli "k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"
)

// Config is what the command line needs of its process.
type Config struct {
	Args    []string // without the program's name
	Streams genericiooptions.IOStreams
	// Daemon runs one peer until ctx ends; main gives it, so that the
	// command line does not link against what it does not use.
	Daemon func(ctx context.Context, dataDir string) error
	// Version is the program's version, as `skein version` prints it.
	Version string
	// rest is the cluster that kubectl's global flags and kubeconfig name.
	rest func() (*rest.Config, error)
}

// Kubectl runs kubectl as upstream's program would and returns its exit code.
func Kubectl(c Config) int {
	cmd := kubectl.NewDefaultKubectlCommandWithArgs(kubectlOptions(c))
	cmd.SetArgs(c.Args)
	kubectlutil.CheckErr(componentcli.RunNoErrOutput(cmd)) // prints and exits in kubectl's own manner
	return 0
}

func kubectlOptions(c Config) kubectl.KubectlOptions {
	useMeshKubeconfig()
	return kubectl.KubectlOptions{
		Arguments:   append([]string{"kubectl"}, c.Args...),
		IOStreams:   c.Streams,
		ConfigFlags: genericclioptions.NewConfigFlags(true).WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(c.Streams),
	}
}

// defaultKubeconfig is where a peer leaves the administrator's kubeconfig.
const defaultKubeconfig = "/etc/skein/kubeconfig.yaml"

// useMeshKubeconfig points kubectl at this machine's mesh when the user has
// named no other cluster.
func useMeshKubeconfig() {
	if os.Getenv("KUBECONFIG") != "" {
		return
	}
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(filepath.Join(home, ".kube", "config")); err == nil {
			return
		}
	}
	if _, err := os.Stat(defaultKubeconfig); err == nil {
		_ = os.Setenv("KUBECONFIG", defaultKubeconfig) // fails only for a malformed name
	}
}

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, c Config) int {
	if len(c.Args) > 0 && c.Args[0] == "kubectl" {
		c.Args = c.Args[1:]
		return Kubectl(c)
	}
	root, ours := newRoot(c)
	root.SetArgs(c.Args)
	defer logs.FlushLogs()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if !ours(cmd) {
		kubectlutil.CheckErr(err)
		return 1
	}
	printError(c.Streams.ErrOut, err)
	return 1
}

// exitCode is an error that was already told to the user.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// newRoot returns the tree and a function that tells our commands from kubectl's.
func newRoot(c Config) (*cobra.Command, func(*cobra.Command) bool) {
	options := kubectlOptions(c)
	root := kubectl.NewKubectlCommand(options)
	c.rest = options.ConfigFlags.ToRESTConfig
	root.Use = "skein"
	root.Short = "skein is a Kubernetes cluster without masters"
	root.Long = "skein runs one peer of a Kubernetes cluster without masters, and speaks to any such cluster as kubectl does."
	for _, theirs := range root.Commands() {
		if theirs.Name() == "version" {
			root.RemoveCommand(theirs)
		}
	}
	mesh := meshCommands(c)
	isOurs := map[*cobra.Command]bool{}
	for _, cmd := range mesh {
		mark(cmd, isOurs)
	}
	logs.AddFlags(root.PersistentFlags()) // -v and --vmodule, as kubectl has them
	prepare := root.PersistentPreRunE
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if isOurs[cmd] {
			endOnSignal(cmd)
		}
		logs.InitLogs()
		return prepare(cmd, args)
	}
	groups := templates.CommandGroups{{Message: "Mesh Commands:", Commands: mesh}}
	kubectlGroup := templates.CommandGroup{Message: "kubectl's Commands:", Commands: root.Commands()}
	groups.Add(root)
	templates.ActsAsRootCommand(root, []string{"options"}, append(groups, kubectlGroup)...)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(c.Streams.Out)
	root.SetErr(c.Streams.ErrOut)
	root.SetIn(c.Streams.In)
	return root, func(cmd *cobra.Command) bool { return isOurs[cmd] || cmd == root }
}

// endOnSignal ends cmd's context at the first interrupt. Only our commands get
// this: kubectl's handle signals by themselves or die of them, as users expect.
func endOnSignal(cmd *cobra.Command) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	cmd.SetContext(ctx)
	context.AfterFunc(ctx, stop) // a second signal kills
}

func mark(cmd *cobra.Command, set map[*cobra.Command]bool) {
	set[cmd] = true
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	for _, sub := range cmd.Commands() {
		mark(sub, set)
	}
}

// meshCommands are the verbs of our own.
func meshCommands(c Config) []*cobra.Command {
	return []*cobra.Command{
		newUp(c), newJoin(c), newStart(c), newDaemon(c), newStop(), newLeave(c), newReset(c),
		newStatus(c), newToken(c), newAccountKey(c), newSealKey(c), newImage(c), newLab(c), newVersion(c),
	}
}

// hinted is an error whose remedy is known.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint says what the user can do about the error.
func (h hinted) Hint() string { return h.hint }

func withHint(err error, hint string) error { return hinted{err, hint} }

// printError writes err as one line, and one more for each hint in its chain.
func printError(w io.Writer, err error) {
	line := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	_, _ = fmt.Fprintf(w, "skein: %s\n", line)
	for _, hint := range hints(err) {
		_, _ = fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// hints are those of err, or else those of what it wraps.
func hints(err error) []string {
	switch e := err.(type) { //nolint:errorlint // it walks the tree by itself
	case interface{ Hint() string }:
		return []string{e.Hint()}
	case interface{ Unwrap() error }:
		return hints(e.Unwrap())
	case interface{ Unwrap() []error }:
		var out []string
		for _, part := range e.Unwrap() {
			out = append(out, hints(part)...)
		}
		return out
	}
	return nil
}

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"skein.dev/skein/lab"
)

// defaultLab is where the lab of this machine is unless told otherwise.
const defaultLab = "/var/lib/skein-lab"

// labFlags opens the lab that a command works on.
type labFlags struct{ dir string }

func (f *labFlags) open(c Config) (*lab.Lab, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find my own program: %w", err)
	}
	return lab.New(lab.Config{
		Dir: f.dir, Commands: lab.Skein{Program: exe},
		Forwarder: []string{exe, "lab", "forward", "--lab-dir", f.dir}, Out: c.Streams.ErrOut,
	})
}

func newLab(c Config) *cobra.Command {
	f := &labFlags{}
	cmd := &cobra.Command{Use: "lab", Short: "A mesh of several peers on this one machine, with faults on demand"}
	cmd.PersistentFlags().StringVar(&f.dir, "lab-dir", defaultLab, "directory of the lab")
	cmd.AddCommand(
		newLabUp(c, f), newLabStatus(c, f), newLabKubeconfig(c, f), newLabKill(c, f), newLabExec(c, f), newLabForward(f),
		labVerb(c, f, "down", "Take the lab away and leave nothing behind", cobra.NoArgs,
			func(cmd *cobra.Command, l *lab.Lab, _ []string) error { return l.Down(cmd.Context()) }),
		labVerb(c, f, "start PEER", "Start a peer that was stopped or killed", cobra.ExactArgs(1),
			func(cmd *cobra.Command, l *lab.Lab, args []string) error { return l.Start(cmd.Context(), args[0]) }),
		labVerb(c, f, "stop PEER", "Stop a peer in order; its containers go on", cobra.ExactArgs(1),
			func(cmd *cobra.Command, l *lab.Lab, args []string) error { return l.Stop(cmd.Context(), args[0]) }),
		labVerb(c, f, "cut PEER...", "Cut peers off from the rest", cobra.MinimumNArgs(1),
			func(cmd *cobra.Command, l *lab.Lab, args []string) error { return l.Cut(cmd.Context(), args...) }),
		labVerb(c, f, "heal", "Undo all cuts", cobra.NoArgs,
			func(cmd *cobra.Command, l *lab.Lab, _ []string) error { return l.Heal(cmd.Context()) }),
	)
	return cmd
}

// labVerb is a command that does one thing to the lab.
func labVerb(c Config, f *labFlags, use, short string, args cobra.PositionalArgs, do func(*cobra.Command, *lab.Lab, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		l, err := f.open(c)
		if err != nil {
			return err
		}
		return do(cmd, l, args)
	}}
}

func newLabUp(c Config, f *labFlags) *cobra.Command {
	var m lab.Mesh
	cmd := labVerb(c, f, "up", "Make the lab's mesh, or start it again", cobra.NoArgs,
		func(cmd *cobra.Command, l *lab.Lab, _ []string) error {
			if err := l.Up(cmd.Context(), m); err != nil {
				return err
			}
			path, err := l.Kubeconfig()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.Streams.ErrOut, "\nThe mesh is Ready. Next:\n  export KUBECONFIG=%s\n  skein status\n  skein kubectl get nodes\n", path)
			return err
		})
	cmd.Flags().IntVar(&m.Peers, "peers", 0, "how many peers (default 3, or those that the lab has)")
	cmd.Flags().StringVar(&m.Images, "images", "", "directory whose .tar files are imported as images on every peer")
	return cmd
}

func newLabStatus(c Config, f *labFlags) *cobra.Command {
	var output string
	cmd := labVerb(c, f, "status", "Show the lab's peers and where they are reached", cobra.NoArgs,
		func(_ *cobra.Command, l *lab.Lab, _ []string) error {
			s, err := l.Status()
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(c.Streams.Out).Encode(s)
			}
			if output != "" {
				return fmt.Errorf("output %q: only json is known", output)
			}
			tw := tabwriter.NewWriter(c.Streams.Out, 0, 0, 3, ' ', 0)
			_, _ = fmt.Fprintln(tw, "NAME\tADDRESS\tAPI\tPROCESSES\tDIRECTORY")
			for _, p := range s.Peers {
				_, _ = fmt.Fprintf(tw, "%s\t%s\thttps://127.0.0.1:%d\t%d\t%s\n", p.Name, p.Address, p.API, p.Processes, p.Dir)
			}
			return tw.Flush()
		})
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if empty")
	return cmd
}

func newLabKubeconfig(c Config, f *labFlags) *cobra.Command {
	return labVerb(c, f, "kubeconfig", "Print the path of an administrator's kubeconfig for the lab", cobra.NoArgs,
		func(_ *cobra.Command, l *lab.Lab, _ []string) error {
			path, err := l.Kubeconfig()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.Streams.Out, path)
			return err
		})
}

func newLabKill(c Config, f *labFlags) *cobra.Command {
	var daemonOnly bool
	cmd := labVerb(c, f, "kill PEER", "Kill all processes of a peer at once, containers included", cobra.ExactArgs(1),
		func(cmd *cobra.Command, l *lab.Lab, args []string) error {
			part := ""
			if daemonOnly {
				part = "daemon"
			}
			return l.Kill(cmd.Context(), args[0], part)
		})
	cmd.Flags().BoolVar(&daemonOnly, "daemon-only", false, "kill the daemon and nothing else; its guard starts it again")
	return cmd
}

func newLabExec(c Config, f *labFlags) *cobra.Command {
	return labVerb(c, f, "exec PEER -- COMMAND...", "Run a command in a peer's namespaces", cobra.MinimumNArgs(2),
		func(cmd *cobra.Command, l *lab.Lab, args []string) error {
			return l.Exec(cmd.Context(), args[0], args[1:], c.Streams.In, c.Streams.Out, c.Streams.ErrOut)
		})
}

// newLabForward is the lab's own process that carries loopback ports into it.
func newLabForward(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use: "forward", Hidden: true, Args: cobra.NoArgs, Short: "Forward loopback ports into the lab (the lab does this)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return lab.Forward(cmd.Context(), strings.TrimSpace(f.dir))
		},
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skein.dev/skein/daemon"
)

// peerFlags are the flags of the verbs that make a peer.
type peerFlags struct {
	config daemon.Config
	file   string
	detach bool
}

func (p *peerFlags) add(fs *pflag.FlagSet) {
	p.config = daemon.DefaultConfig()
	p.config.AddFlags(fs)
	fs.StringVar(&p.file, "config", "", "YAML file whose keys are these flags")
	fs.BoolVar(&p.detach, "detach", false, "return when the peer is Ready; otherwise stay in the foreground")
}

// complete reads the configuration file and fills in what is left.
func (p *peerFlags) complete(ctx context.Context, fs *pflag.FlagSet) error {
	if p.file != "" {
		if err := daemon.LoadFile(p.file, fs); err != nil {
			return err
		}
	}
	if err := p.config.Complete(); err != nil {
		return err
	}
	return p.config.CheckFiles(ctx)
}

func newUp(c Config) *cobra.Command {
	var p peerFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make a new cluster whose first peer is this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.complete(cmd.Context(), cmd.Flags()); err != nil {
				return err
			}
			if err := daemon.Create(cmd.Context(), p.config, time.Now()); err != nil {
				return err
			}
			return launch(cmd.Context(), c, p.config, p.detach)
		},
	}
	p.add(cmd.Flags())
	return cmd
}

func newJoin(c Config) *cobra.Command {
	var p peerFlags
	var token string
	cmd := &cobra.Command{
		Use:   "join ADDRESS",
		Short: "Make this machine a peer of the mesh that a peer at ADDRESS belongs to",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.complete(cmd.Context(), cmd.Flags()); err != nil {
				return err
			}
			if token == "" {
				return withHint(errors.New("token: join needs one"), "`skein token create` on a peer of the mesh prints one")
			}
			if err := daemon.Join(cmd.Context(), p.config, args[0], token, time.Now()); err != nil {
				return err
			}
			return launch(cmd.Context(), c, p.config, p.detach)
		},
	}
	p.add(cmd.Flags())
	cmd.Flags().StringVar(&token, "token", "", "join token, from `skein token create`")
	return cmd
}

// place are the flags of the verbs for the peer that this machine already is.
type place struct{ dataDir string }

func (p *place) add(fs *pflag.FlagSet) {
	fs.StringVar(&p.dataDir, "data-dir", daemon.DefaultConfig().DataDir, "directory of the peer's data")
}

// load returns the settings the peer was made with.
func (p *place) load() (daemon.Config, error) {
	c, err := daemon.LoadConfig(p.dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, withHint(fmt.Errorf("data directory %s: it holds no peer", p.dataDir), "`skein up` makes a cluster, `skein join` joins one")
	}
	return c, err
}

func newStart(c Config) *cobra.Command {
	var at place
	var detach bool
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Start this machine's peer again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			if err := cfg.CheckFiles(cmd.Context()); err != nil {
				return err
			}
			return launch(cmd.Context(), c, cfg, detach)
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().BoolVar(&detach, "detach", false, "return when the peer is Ready; otherwise stay in the foreground")
	return cmd
}

func newDaemon(c Config) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:    "daemon",
		Short:  "Run the peer's daemon itself (the guard does this)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := c.Daemon(cmd.Context(), at.dataDir)
			if err == nil {
				return nil
			}
			// One line, the last of the log: the guard repeats it.
			printError(c.Streams.ErrOut, errors.New(err.Error()))
			return exitCode(daemon.ExitCode(err))
		},
	}
	at.add(cmd.Flags())
	return cmd
}

func newStop() *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop this machine's peer; its containers go on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			return stopPeer(cmd.Context(), cfg, false)
		},
	}
	at.add(cmd.Flags())
	return cmd
}

func newLeave(c Config) *cobra.Command {
	var at place
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this machine's peer out of the mesh in order",
		Long: "leave says goodbye: the peer's pods are ended and run elsewhere, its vote and its records go, " +
			"and the peer stops. `skein reset` then removes its data.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			say := func(line string) { _, _ = fmt.Fprintln(c.Streams.ErrOut, line) }
			if err := daemon.Leave(ctx, cfg, say); err != nil {
				return err
			}
			return stopPeer(cmd.Context(), cfg, true)
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for the mesh to let the peer go")
	return cmd
}

func newReset(c Config) *cobra.Command {
	var at place
	var yes bool
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Remove the peer, its containers and all its data from this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			if !yes {
				return withHint(fmt.Errorf("reset removes all data of the peer %s in %s", cfg.Name, cfg.DataDir), "say --yes if that is meant")
			}
			if err := stopPeer(cmd.Context(), cfg, true); err != nil {
				return err
			}
			if err := daemon.Clean(cmd.Context(), cfg); err != nil {
				return err
			}
			for _, path := range []string{cfg.Kubeconfig, cfg.StateDir, cfg.DataDir} {
				if err := os.RemoveAll(path); err != nil {
					return fmt.Errorf("remove %s: %w", path, err)
				}
			}
			_ = os.Remove(filepath.Dir(cfg.Kubeconfig)) // goes if it is empty
			_, err = fmt.Fprintf(c.Streams.ErrOut, "peer %s is gone from this machine\n", cfg.Name)
			return err
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

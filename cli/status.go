package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/api/status"
)

// statusTimeout bounds one question to a peer; a peer without quorum answers
// after it has tried to find one.
const statusTimeout = 10 * time.Second

func newStatus(c Config) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the mesh: its peers, leaders and quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.clientConfig()
			if err != nil {
				return err
			}
			mesh, err := fetchStatus(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				enc := json.NewEncoder(c.Streams.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(mesh)
			case "":
				return printStatus(c.Streams.Out, mesh)
			}
			return fmt.Errorf("output %q: only json is known", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if empty")
	return cmd
}

// clientConfig loads what kubectl's global flags, $KUBECONFIG, ~/.kube/config
// or the peer's own kubeconfig say.
func (c Config) clientConfig() (*rest.Config, error) {
	cfg, err := c.rest()
	if err != nil {
		return nil, withHint(fmt.Errorf("kubeconfig: %w", err), "set KUBECONFIG, or run this on a peer: it keeps one in "+defaultKubeconfig)
	}
	return cfg, nil
}

func fetchStatus(ctx context.Context, cfg *rest.Config) (*status.Mesh, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	raw, err := client.Discovery().RESTClient().Get().AbsPath(status.Path).DoRaw(ctx)
	if err != nil {
		return nil, withHint(fmt.Errorf("ask %s: %w", cfg.Host, err), "is a peer running there? `skein start` starts this machine's")
	}
	var mesh status.Mesh
	if err := json.Unmarshal(raw, &mesh); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", cfg.Host, err)
	}
	return &mesh, nil
}

func printStatus(w io.Writer, m *status.Mesh) error {
	quorum := "yes"
	if !m.Quorum {
		quorum = "NO: writes and consistent reads wait for a majority of the voters"
	}
	if _, err := fmt.Fprintf(w, "cluster:  %s (answered by %s, revision %d)\nquorum:   %s\nleaders:  store %s, scheduler %s, controllers %s\n\n",
		m.Cluster, m.Answered, m.Revision, quorum, nobody(m.Leaders.Store), nobody(m.Leaders.Scheduler), nobody(m.Leaders.Controllers)); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "NAME\tADDRESS\tHEALTH\tRAFT\tREADY\tVERSION")
	for _, p := range m.Peers {
		ready := strconv.FormatBool(p.Ready)
		if p.APIOnly {
			ready = "-"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Address, p.Health, p.Raft, ready, p.Version)
	}
	return tw.Flush()
}

func nobody(name string) string {
	if name == "" {
		return "-"
	}
	return name
}

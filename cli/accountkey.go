package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"skein.dev/skein/api/tokenkey"
)

// newAccountKey are the verbs on the keys that sign service account tokens.
func newAccountKey(c Config) *cobra.Command {
	cmd := &cobra.Command{
		Use: "service-account-key", Short: "List, replace and drop the keys of service account tokens",
		Long: "Tokens of service accounts are signed with one key that all full peers have. " +
			"rotate makes a new one for new tokens; those of the old key stay good until it is dropped. " +
			"Bound tokens are renewed within an hour; tokens in Secrets never are: make those anew before dropping their key.",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the keys, the one that signs first", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.accountKeys(cmd.Context(), "GET", "") },
		},
		&cobra.Command{
			Use: "rotate", Short: "Sign new tokens with a new key", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.accountKeys(cmd.Context(), "POST", "") },
		},
		&cobra.Command{
			Use: "drop ID", Short: "Forget a key: all tokens it signed become worthless", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return c.accountKeys(cmd.Context(), "DELETE", args[0]) },
		},
	)
	return cmd
}

// accountKeys asks a peer and prints the keys as they stand then.
func (c Config) accountKeys(ctx context.Context, verb, id string) error {
	var list tokenkey.List
	if err := c.askKeys(ctx, keyRequest{
		verb: verb, path: tokenkey.Path, id: id,
		what: "service account keys", hint: "`skein service-account-key list` shows all",
	}, &list); err != nil {
		return err
	}
	return printAccountKeys(c.Streams.Out, list)
}

// keyRequest asks for keys of the mesh, or for a change of them.
type keyRequest struct {
	verb, path string
	id         string // of one key; "": of all
	what, hint string // for errors
}

// askKeys has a peer do what r says and reads its answer, the keys as they
// stand then, into list.
func (c Config) askKeys(ctx context.Context, r keyRequest, list any) error {
	_, client, err := c.newClient()
	if err != nil {
		return err
	}
	req := client.Discovery().RESTClient().Verb(r.verb).AbsPath(r.path)
	if r.id != "" {
		req = req.Param("id", r.id)
	}
	raw, err := req.DoRaw(ctx)
	if err != nil {
		return withHint(fmt.Errorf("%s: %w: %s", r.what, err, raw), r.hint)
	}
	if err := json.Unmarshal(raw, list); err != nil {
		return fmt.Errorf("%s: read the answer: %w", r.what, err)
	}
	return nil
}

func printAccountKeys(w io.Writer, list tokenkey.List) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tCREATED\tUSE")
	for _, k := range list.Keys {
		created, use := "with the cluster", "checks"
		if k.Created != nil {
			created = k.Created.Format(time.RFC3339)
		}
		if k.Signs {
			use = "signs and checks"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\n", k.ID, created, use)
	}
	return tw.Flush()
}

package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"skein.dev/skein/api/sealkey"
)

// newSealKey are the verbs on the keys that secrets are sealed with.
func newSealKey(c Config) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sealing-key", Short: "List and replace the keys that secrets are sealed with in the store",
		Long: "Secrets are sealed in the store by a key of the mesh. rotate makes a new one and seals all secrets anew with it; " +
			"they are readable all the time, on every peer. New keys are in the store, sealed by the keyring's, which every " +
			"full peer has in its data directory: whoever has copied that opens the new ones too. " +
			"What --encryption-provider-config names is not touched.",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List the keys, the one that seals first, and how much each has sealed", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.sealKeys(cmd.Context(), "GET") },
		},
		&cobra.Command{
			Use: "rotate", Short: "Make a new key and seal everything anew with it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.sealKeys(cmd.Context(), "POST") },
		},
		&cobra.Command{
			Use: "rewrite", Short: "Seal anew what is not under the first key, after a rotation that was cut off", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return c.sealKeys(cmd.Context(), "PUT") },
		},
	)
	return cmd
}

// sealKeys asks a peer and prints the keys as they stand then.
func (c Config) sealKeys(ctx context.Context, verb string) error {
	var list sealkey.List
	if err := c.askKeys(ctx, keyRequest{
		verb: verb, path: sealkey.Path,
		what: "sealing keys", hint: "`skein sealing-key list` shows how far it is, `rewrite` goes on",
	}, &list); err != nil {
		return err
	}
	return printSealKeys(c.Streams.Out, list)
}

func printSealKeys(w io.Writer, list sealkey.List) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ID\tCREATED\tUSE\tVALUES")
	for _, k := range list.Keys {
		created, use := "with the cluster", "opens"
		if k.Created != nil {
			created = k.Created.Format(time.RFC3339)
		}
		if k.Seals {
			use = "seals and opens"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%d\n", k.ID, created, use, k.Values)
	}
	return tw.Flush()
}

package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"skein.dev/skein/daemon"
)

func newImage(c Config) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Import and list the images of this machine's engine"}
	cmd.AddCommand(newImageImport(c), newImageList(c))
	return cmd
}

func newImageImport(c Config) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Import images from tar files (OCI layouts, or what `docker save` wrote; - reads stdin)",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			e, err := daemon.ContainerEngine(cfg)
			if err != nil {
				return err
			}
			for _, path := range args {
				f := os.Stdin
				if path != "-" {
					if f, err = os.Open(path); err != nil {
						return fmt.Errorf("image: %w", err)
					}
				}
				names, err := e.Import(cmd.Context(), f)
				_ = f.Close() // only read
				if err != nil {
					return fmt.Errorf("image %s: %w", path, err)
				}
				for _, name := range names {
					_, _ = fmt.Fprintln(c.Streams.Out, name)
				}
			}
			return nil
		},
	}
	at.add(cmd.Flags())
	return cmd
}

func newImageList(c Config) *cobra.Command {
	var at place
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the images that this machine's engine has",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := at.load()
			if err != nil {
				return err
			}
			e, err := daemon.ContainerEngine(cfg)
			if err != nil {
				return err
			}
			images, err := e.List(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(c.Streams.Out).Encode(images)
			}
			if output != "" {
				return fmt.Errorf("output %q: only json is known", output)
			}
			tw := tabwriter.NewWriter(c.Streams.Out, 0, 0, 3, ' ', 0)
			_, _ = fmt.Fprintln(tw, "NAME\tID\tSIZE")
			for _, i := range images {
				id := strings.TrimPrefix(i.ID, "sha256:")
				_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\n", strings.Join(i.Names, ","), id[:min(12, len(id))],
					resource.NewQuantity(int64(i.Size), resource.BinarySI))
			}
			return tw.Flush()
		},
	}
	at.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if empty")
	return cmd
}

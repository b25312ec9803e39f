package cli

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func newVersion(c Config) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if output == "" {
				_, err := fmt.Fprintf(c.Streams.Out, "skein %s %s %s/%s\n", c.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}
			if output != "json" {
				return fmt.Errorf("output %q: only json is known", output)
			}
			return json.NewEncoder(c.Streams.Out).Encode(map[string]string{
				"version": c.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or plain text if empty")
	return cmd
}

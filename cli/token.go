package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"skein.dev/skein/identity"
)

func newToken(c Config) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke join tokens"}
	cmd.AddCommand(newTokenCreate(c), newTokenList(c), newTokenRevoke(c))
	return cmd
}

func newTokenCreate(c Config) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token and print it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl < 0 {
				return withHint(fmt.Errorf("ttl %v: it is in the past", ttl), "0 makes a token that never expires")
			}
			cfg, client, err := c.newClient()
			if err != nil {
				return err
			}
			token, err := makeToken(cfg)
			if err != nil {
				return err
			}
			secret := identity.TokenSecret(token, ttl, time.Now())
			if _, err := client.CoreV1().Secrets(secret.Namespace).Create(cmd.Context(), secret, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("store token: %w", err)
			}
			_, err = fmt.Fprintln(c.Streams.Out, token)
			return err
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is good for; 0 for ever")
	return cmd
}

// makeToken makes a token that pins the authority the kubeconfig trusts.
func makeToken(cfg *rest.Config) (identity.Token, error) {
	if err := rest.LoadTLSFiles(cfg); err != nil {
		return identity.Token{}, fmt.Errorf("kubeconfig: %w", err)
	}
	cas, err := cert.ParseCertsPEM(cfg.CAData)
	if err != nil {
		return identity.Token{}, fmt.Errorf("kubeconfig: the cluster's authority: %w", err)
	}
	return identity.NewToken(cas[0])
}

func (c Config) newClient() (*rest.Config, kubernetes.Interface, error) {
	cfg, err := c.clientConfig()
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("make client: %w", err)
	}
	return cfg, client, nil
}

// tokenRow is one token as the list shows it; never its secret.
type tokenRow struct {
	ID      string     `json:"id"`
	Expires *time.Time `json:"expires,omitempty"`
	Expired bool       `json:"expired"`
}

func newTokenList(c Config) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the join tokens",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, client, err := c.newClient()
			if err != nil {
				return err
			}
			rows, err := listTokens(cmd.Context(), client)
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(c.Streams.Out).Encode(rows)
			}
			if output != "" {
				return fmt.Errorf("output %q: only json is known", output)
			}
			tw := tabwriter.NewWriter(c.Streams.Out, 0, 0, 3, ' ', 0)
			_, _ = fmt.Fprintln(tw, "ID\tEXPIRES")
			for _, r := range rows {
				expires := "never"
				if r.Expires != nil {
					expires = r.Expires.Format(time.RFC3339)
				}
				if r.Expired {
					expires += " (expired)"
				}
				_, _ = fmt.Fprintf(tw, "%s\t%s\n", r.ID, expires)
			}
			return tw.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, or a table if empty")
	return cmd
}

func listTokens(ctx context.Context, client kubernetes.Interface) ([]tokenRow, error) {
	list, err := client.CoreV1().Secrets(identity.TokenNamespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeBootstrapToken)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	rows := []tokenRow{}
	for i := range list.Items {
		row := tokenRow{ID: string(list.Items[i].Data["token-id"])}
		at, expires, err := identity.TokenExpiration(&list.Items[i])
		if expires && err == nil {
			row.Expires = &at
		}
		row.Expired = err != nil || (expires && !time.Now().Before(at))
		rows = append(rows, row)
	}
	return rows, nil
}

func newTokenRevoke(c Config) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a join token worthless",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := args[0]
			if t, err := identity.ParseToken(id); err == nil {
				id = t.ID // the whole token is taken too
			}
			_, client, err := c.newClient()
			if err != nil {
				return err
			}
			err = client.CoreV1().Secrets(identity.TokenNamespace).Delete(cmd.Context(), identity.TokenSecretName(id), metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return withHint(errors.New("token "+id+": there is none"), "`skein token list` shows all")
			}
			if err != nil {
				return fmt.Errorf("revoke token %s: %w", id, err)
			}
			_, err = fmt.Fprintf(c.Streams.ErrOut, "token %s is revoked\n", id)
			return err
		},
	}
}

package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Endpoint is one way to the API: one context of a kubeconfig.
type Endpoint struct {
	Name   string // of context and cluster, such as a peer's
	Server string // https://host:port
	// TLSName is the name checked in the server's certificate; empty means
	// the host in Server.
	TLSName string
}

// Kubeconfig is what a user's or a component's access is rendered from.
type Kubeconfig struct {
	CA        []byte // PEM of the serving authority
	User      string
	Client    Pair
	Endpoints []Endpoint
	Current   string // one endpoint's name; empty means the first
}

// Config returns c as kubectl's own type, everything embedded.
func (c Kubeconfig) Config() (*clientcmdapi.Config, error) {
	if len(c.Endpoints) == 0 {
		return nil, errors.New("make kubeconfig: no endpoint")
	}
	out := clientcmdapi.NewConfig()
	out.AuthInfos[c.User] = &clientcmdapi.AuthInfo{ClientCertificateData: c.Client.Chain, ClientKeyData: c.Client.Key}
	for _, e := range c.Endpoints {
		out.Clusters[e.Name] = &clientcmdapi.Cluster{
			Server: e.Server, CertificateAuthorityData: c.CA, TLSServerName: e.TLSName,
		}
		out.Contexts[e.Name] = &clientcmdapi.Context{Cluster: e.Name, AuthInfo: c.User}
	}
	out.CurrentContext = c.Current
	if out.CurrentContext == "" {
		out.CurrentContext = c.Endpoints[0].Name
	}
	if _, ok := out.Contexts[out.CurrentContext]; !ok {
		return nil, fmt.Errorf("make kubeconfig: no endpoint is named %q", c.Current)
	}
	return out, nil
}

// Write writes c to path, mode 0600, by rename; missing directories are made.
func (c Kubeconfig) Write(path string) error {
	cfg, err := c.Config()
	if err != nil {
		return err
	}
	data, err := clientcmd.Write(*cfg)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return Dir(filepath.Dir(path)).write(filepath.Base(path), data)
}

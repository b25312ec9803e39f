package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// balancer leads connections to a loopback port to the servers of all
// contexts of a kubeconfig in turn, so that a test meets every peer.
type balancer struct {
	ln      net.Listener
	config  *clientcmdapi.Config
	servers []string
	next    atomic.Uint64
	work    sync.WaitGroup
}

func newBalancer(ctx context.Context, kubeconfig string) (*balancer, error) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("spread over peers: %w", err)
	}
	b := &balancer{config: config}
	for name, ctx := range config.Contexts {
		cluster := config.Clusters[ctx.Cluster]
		if name == config.CurrentContext || cluster == nil {
			continue // the current one leads to any of the others
		}
		u, err := url.Parse(cluster.Server)
		if err != nil {
			return nil, fmt.Errorf("spread over peers: %w", err)
		}
		b.servers = append(b.servers, u.Host)
	}
	if len(b.servers) == 0 {
		return nil, fmt.Errorf("spread over peers: %s has one context only", kubeconfig)
	}
	slices.Sort(b.servers)
	var lc net.ListenConfig
	if b.ln, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("spread over peers: %w", err)
	}
	b.work.Go(func() { b.accept(ctx) })
	return b, nil
}

// kubeconfig writes one whose current context leads here, and returns its path.
func (b *balancer) kubeconfig(dir string) (string, error) {
	current := b.config.Contexts[b.config.CurrentContext]
	if current == nil || b.config.Clusters[current.Cluster] == nil {
		return "", fmt.Errorf("spread over peers: the kubeconfig has no current context")
	}
	b.config.Clusters[current.Cluster].Server = "https://" + b.ln.Addr().String()
	path := filepath.Join(dir, "spread.kubeconfig")
	if err := clientcmd.WriteToFile(*b.config, path); err != nil {
		return "", fmt.Errorf("spread over peers: %w", err)
	}
	return path, nil
}

func (b *balancer) close() {
	_ = b.ln.Close() // connections end with their clients, which have ended
	b.work.Wait()
}

func (b *balancer) accept(ctx context.Context) {
	for {
		client, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.work.Go(func() { b.pass(ctx, client) })
	}
}

// pass carries one connection to the next server, or to one after it that
// answers, until both directions have ended.
func (b *balancer) pass(ctx context.Context, client net.Conn) {
	defer client.Close()
	at := b.next.Add(1)
	var d net.Dialer
	for i := range uint64(len(b.servers)) {
		server, err := d.DialContext(ctx, "tcp", b.servers[(at+i)%uint64(len(b.servers))])
		if err != nil {
			continue
		}
		defer server.Close()
		var both sync.WaitGroup
		for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
			both.Go(func() {
				_, _ = io.Copy(to, from) // a broken connection is the client's to notice
				if t, ok := to.(*net.TCPConn); ok {
					_ = t.CloseWrite()
				}
			})
		}
		both.Wait()
		return
	}
}

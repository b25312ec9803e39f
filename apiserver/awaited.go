package apiserver

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/openapi"
)

// awaited is a client that knows when it was first told what the API serves.
// The plugin of mutating policies asks for that once it has been made, and
// until it is answered it refuses every request that a policy is about, or lets
// it pass unchanged where the policy says so. Upstream makes the plugin long
// before the first policy comes; here the first policy makes it.
type awaited struct {
	kubernetes.Interface
	once sync.Once
	done chan struct{} // closed after the first answer
}

func newAwaited(c kubernetes.Interface) *awaited {
	return &awaited{Interface: c, done: make(chan struct{})}
}

// answerLimit is long beside the time that the description takes to make.
const answerLimit = 20 * time.Second

// wait blocks until the API has been described to the plugin.
func (d *awaited) wait(ctx context.Context) error {
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	select {
	case <-d.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return errors.New("the API has not been described in time")
	}
}

// Discovery implements [kubernetes.Interface].
func (d *awaited) Discovery() discovery.DiscoveryInterfaces {
	return awaiting{d.Interface.Discovery(), d}
}

type awaiting struct {
	discovery.DiscoveryInterfaces
	told *awaited
}

// OpenAPIV3 implements [discovery.OpenAPIV3SchemaInterface].
func (d awaiting) OpenAPIV3() openapi.Client {
	return awaitedPaths{d.DiscoveryInterfaces.OpenAPIV3(), d.told}
}

type awaitedPaths struct {
	openapi.Client
	told *awaited
}

// Paths implements [openapi.Client].
func (d awaitedPaths) Paths() (map[string]openapi.GroupVersion, error) {
	paths, err := d.Client.Paths()
	if err == nil {
		d.told.once.Do(func() { close(d.told.done) })
	}
	return paths, err
}

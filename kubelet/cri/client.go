// Package cri is the kubelet's end of the container runtime interface, v1:
// one connection, and the reading of what the runtime holds of a pod.
//
// Its invariant: it sees and touches only what carries this node's label,
// so containers that others made in the same runtime are left alone.
package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Labels and annotations that the kubelet writes on sandboxes and containers.
// The io.kubernetes ones are upstream's, so that crictl and log collectors
// read them.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
	// LabelNode marks what this kubelet made.
	LabelNode = "skein.dev/node"

	AnnotationHash          = "io.kubernetes.container.hash"
	AnnotationRestartCount  = "io.kubernetes.container.restartCount"
	AnnotationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationPreStop       = "io.kubernetes.container.preStopHandler"
	AnnotationGrace         = "io.kubernetes.pod.terminationGracePeriod"
)

// MaxMessage bounds one message from the runtime.
const MaxMessage = 16 << 20

// Client is a connection to one runtime.
type Client struct {
	runtimeapi.RuntimeServiceClient
	Images runtimeapi.ImageServiceClient
	node   string
	conn   io.Closer
	exits  exitCache
}

// Open prepares a connection to the unix socket at path (with or without
// unix:// before it) for the node of that
// name. It does not wait for the runtime: calls fail until it is there.
// Close ends it.
func Open(path, node string) (*Client, error) {
	conn, err := grpc.NewClient("unix:"+strings.TrimPrefix(path, "unix://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("open runtime endpoint %s: %w", path, err)
	}
	return &Client{
		RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(conn),
		Images:               runtimeapi.NewImageServiceClient(conn),
		node:                 node,
		conn:                 conn,
	}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// IsNotFound reports whether the runtime has no such thing.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// Health is whether the runtime and its network can run pods.
type Health struct {
	Runtime, Network error
	// Name and Version are the runtime's own, containerd and 2.4.2.
	Name, Version string
}

// Health asks the runtime how it is.
func (c *Client) Health(ctx context.Context) Health {
	h := Health{Runtime: errors.New("container runtime status check may not have completed yet"), Network: errors.New("network not known")}
	v, err := c.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		h.Runtime = fmt.Errorf("container runtime is down: %s", status.Convert(err).Message())
		return h
	}
	h.Name, h.Version = v.RuntimeName, v.RuntimeVersion
	r, err := c.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		h.Runtime = fmt.Errorf("container runtime status: %s", status.Convert(err).Message())
		return h
	}
	for _, cond := range r.Status.GetConditions() {
		var bad error
		if !cond.Status {
			bad = fmt.Errorf("%s=false reason:%s message:%s", cond.Type, cond.Reason, cond.Message)
		}
		switch cond.Type {
		case runtimeapi.RuntimeReady:
			h.Runtime = bad
		case runtimeapi.NetworkReady:
			h.Network = bad
		}
	}
	return h
}

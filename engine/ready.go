package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Ready blocks until the engine answers CRI and can run containers, and has
// the sandbox image; a network configuration may still be missing. The error
// is ctx's end together with the engine's last answer.
func (e *Engine) Ready(ctx context.Context) error {
	if err := e.await(ctx); err != nil {
		return err
	}
	return e.EnsurePause(ctx)
}

func (e *Engine) await(ctx context.Context) error {
	conn, err := e.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	for {
		last := runtimeReady(ctx, client)
		if last == nil {
			return nil
		}
		conn.ResetConnectBackoff() // the socket is local: a retry costs nothing
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for container engine at %s: %w", e.Endpoint(), errors.Join(ctx.Err(), last))
		case <-time.After(pollEvery):
		}
	}
}

func runtimeReady(ctx context.Context, c runtimeapi.RuntimeServiceClient) error {
	reply, err := c.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, cond := range reply.GetStatus().GetConditions() {
		if cond.GetType() == runtimeapi.RuntimeReady && !cond.GetStatus() {
			return fmt.Errorf("%s: %s", cond.GetReason(), cond.GetMessage())
		}
	}
	return nil
}

func (e *Engine) dial() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(e.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("open container engine at %s: %w", e.Endpoint(), err)
	}
	return conn, nil
}

func (e *Engine) withImages(act func(runtimeapi.ImageServiceClient) error) error {
	conn, err := e.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return act(runtimeapi.NewImageServiceClient(conn))
}

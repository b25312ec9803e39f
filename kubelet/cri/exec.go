package cri

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrTimeout is what Exec returns for a command that ran into its timeout.
var ErrTimeout = errors.New("command timed out")

// Exec runs a command in a container, and returns its output (both streams)
// and exit code. The runtime counts whole seconds.
func (c *Client) Exec(ctx context.Context, id string, cmd []string, timeout time.Duration) ([]byte, int32, error) {
	secs := int64((timeout + time.Second - 1) / time.Second)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(secs)*time.Second+5*time.Second)
	defer cancel()
	r, err := c.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: secs})
	if status.Code(err) == codes.DeadlineExceeded {
		return nil, 0, fmt.Errorf("%w after %s", ErrTimeout, timeout)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("exec: %s", status.Convert(err).Message())
	}
	return append(r.Stdout, r.Stderr...), r.ExitCode, nil
}

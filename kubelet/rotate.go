package kubelet

import "context"

func (k *Kubelet) rotateLogs(ctx context.Context) { <-ctx.Done() }

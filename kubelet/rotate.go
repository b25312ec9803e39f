package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
	"skein.dev/skein/kubelet/lifecycle"
)

// Log rotation, with upstream's numbers.
const (
	logMaxBytes = 10 << 20
	logMaxFiles = 5
	logPeriod   = 10 * time.Second
)

// rotateLogs keeps the logs of running containers bounded.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	tick := time.NewTicker(logPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for path, id := range k.openLogs() {
			info, err := os.Stat(path)
			if err != nil || info.Size() < logMaxBytes {
				continue
			}
			if err := rotate(ctx, k.runtime, path, id, logMaxFiles); err != nil {
				k.log.WarnContext(ctx, "container log not rotated", "path", path, "err", err)
			}
		}
	}
}

// openLogs returns the logs of running containers, with their ids.
func (k *Kubelet) openLogs() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.specNode()
	out := map[string]string{}
	for _, w := range k.workers {
		w.mu.Lock()
		for _, c := range w.containers {
			if c.State == lifecycle.Running {
				out[filepath.Join(n.PodLogDir(w.pod), c.Name, strconv.Itoa(c.Attempt)+".log")] = c.ID
			}
		}
		w.mu.Unlock()
	}
	return out
}

// rotate moves a log aside, makes the runtime open a new one, and removes the
// oldest so that files are left.
func rotate(ctx context.Context, r *cri.Client, path, id string, files int) error {
	aside := path + "." + time.Now().UTC().Format("20060102-150405.000")
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("move log aside: %w", err)
	}
	if _, err := r.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		// The runtime still writes to the file that was moved.
		return errors.Join(fmt.Errorf("reopen log: %w", err), os.Rename(aside, path))
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return fmt.Errorf("list old logs: %w", err)
	}
	slices.Sort(old) // the names sort by time
	for _, p := range old[:max(0, len(old)-(files-1))] {
		if err := os.Remove(p); err != nil {
			return fmt.Errorf("remove old log: %w", err)
		}
	}
	return nil
}

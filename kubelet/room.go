package kubelet

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/lifecycle"
	"skein.dev/skein/kubelet/pressure"
	"skein.dev/skein/kubelet/spec"
)

// room watches what the node has left of memory, disk and process ids, says
// so, and frees some when it runs short. Only the node keeper's goroutine
// looks and reclaims.
type room struct {
	k          *Kubelet
	thresholds []pressure.Threshold
	monitor    pressure.Monitor
	images     pressure.Images
	imageDir   string    // where the runtime keeps images; "" until it has said
	lookedAt   time.Time // at images
	leaving    *worker   // the last that was evicted
	leftAt     time.Time // when it was

	mu         sync.Mutex // guards the fields below
	conditions []corev1.NodeConditionType
}

// condition is how a condition of the node is told.
type condition struct {
	condition         corev1.NodeConditionType
	good, goodNote    string
	bad, badNote      string
	eventBad, eventOK string
}

func pressures() []condition {
	return []condition{
		{
			corev1.NodeMemoryPressure, "KubeletHasSufficientMemory", "kubelet has sufficient memory available",
			"KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "NodeHasInsufficientMemory", "NodeHasSufficientMemory",
		},
		{
			corev1.NodeDiskPressure, "KubeletHasNoDiskPressure", "kubelet has no disk pressure",
			"KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure",
		},
		{
			corev1.NodePIDPressure, "KubeletHasSufficientPID", "kubelet has sufficient PID available",
			"KubeletHasInsufficientPID", "kubelet has insufficient PID available", "NodeHasInsufficientPID", "NodeHasSufficientPID",
		},
	}
}

func newRoom(k *Kubelet) (*room, error) {
	r := &room{k: k, thresholds: pressure.Defaults()}
	if k.cfg.EvictionHard != nil {
		var err error
		if r.thresholds, err = pressure.Parse(k.cfg.EvictionHard); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// under are the pressures that the node is under.
func (r *room) under() []corev1.NodeConditionType {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conditions
}

// refuse says why the node does not take a pod under pressure.
func (r *room) refuse(pod *corev1.Pod) (reason, message string) {
	if why := pressure.Refuses(r.under(), pod, spec.QOS(pod) == corev1.PodQOSBestEffort); why != "" {
		return lifecycle.ReasonEvicted, why
	}
	return "", ""
}

// look reads what there is and returns what is short.
func (r *room) look(ctx context.Context) []pressure.Short {
	now := time.Now()
	if r.imageDir == "" || now.Sub(r.lookedAt) > time.Minute {
		r.lookedAt = now
		r.lookAtImages(ctx, now)
	}
	short := r.monitor.Observe(r.thresholds, now, r.have())
	under := r.monitor.Conditions(now)
	r.mu.Lock()
	before := r.conditions
	r.conditions = under
	r.mu.Unlock()
	for _, p := range pressures() {
		was, is := slices.Contains(before, p.condition), slices.Contains(under, p.condition)
		if was != is {
			event := p.eventOK
			if is {
				event = p.eventBad
			}
			r.event(corev1.EventTypeNormal, event, fmt.Sprintf("Node %s status is now: %s", r.k.cfg.NodeName, event))
			r.k.log.InfoContext(ctx, "node pressure changed", "condition", string(p.condition), "pressed", is)
		}
	}
	return short
}

func (r *room) event(kind, reason, note string) {
	ref := &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: r.k.cfg.NodeName}
	r.k.cfg.Kit.Recorder.Eventf(ref, nil, kind, reason, "Watching", "%s", note)
}

// have is what the node has now; what cannot be read is not short.
func (r *room) have() map[pressure.Signal]pressure.Sample {
	out := map[pressure.Signal]pressure.Sample{}
	if total, available := memory(); total > 0 {
		out[pressure.Memory] = pressure.Sample{Available: available, Capacity: total}
	}
	disk := func(dir string, bytes, inodes pressure.Signal) {
		var st syscall.Statfs_t
		if dir == "" || syscall.Statfs(dir, &st) != nil {
			return
		}
		out[bytes] = pressure.Sample{Available: int64(st.Bavail) * st.Bsize, Capacity: int64(st.Blocks) * st.Bsize}
		out[inodes] = pressure.Sample{Available: int64(st.Ffree), Capacity: int64(st.Files)}
	}
	disk(r.k.cfg.RootDir, pressure.NodeDisk, pressure.NodeInodes)
	disk(r.imageDir, pressure.ImageDisk, pressure.ImageInodes)
	var info syscall.Sysinfo_t
	if most, err := strconv.ParseInt(line("/proc/sys/kernel/pid_max"), 10, 64); err == nil && syscall.Sysinfo(&info) == nil {
		out[pressure.PIDs] = pressure.Sample{Available: most - int64(info.Procs), Capacity: most}
	}
	return out
}

// memory is the machine's, and what of it programs can still have.
func memory() (total, available int64) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		f := strings.Fields(l)
		if len(f) < 2 || f[0] != "MemTotal:" && f[0] != "MemAvailable:" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0, 0
		}
		if f[0] == "MemAvailable:" {
			return total, n << 10 // the third line of the file
		}
		total = n << 10
	}
	return 0, 0
}

// lookAtImages notes which images are in use, and collects some when their
// disk fills.
func (r *room) lookAtImages(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, err := r.k.runtime.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return // the runtime is not there; the node's condition says so
	}
	if fs := info.GetImageFilesystems(); len(fs) > 0 {
		r.imageDir = fs[0].GetFsId().GetMountpoint()
	}
	all, err := r.listImages(ctx)
	if err != nil {
		return
	}
	r.images.Look(all, now)
	disk := r.have()[pressure.ImageDisk]
	need := pressure.Excess(disk, int64(r.k.cfg.ImageHigh))
	if need <= 0 {
		return
	}
	if freed := r.collect(ctx, all, now, need); freed < need {
		r.event(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf(
			"Insufficient free disk space on the node's image filesystem (%d%% of %d bytes used). Failed to free sufficient space by deleting unused images (freed %d bytes).",
			100-disk.Available*100/disk.Capacity, disk.Capacity, freed))
	}
}

// listImages are the node's images, with those that containers use.
func (r *room) listImages(ctx context.Context) ([]pressure.Image, error) {
	images, err := r.k.runtime.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	// Of all containers, not only this node's: peers may share a runtime.
	containers, err := r.k.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	used := map[string]bool{}
	for _, c := range containers.Containers {
		used[c.GetImage().GetImage()], used[c.ImageRef], used[c.ImageId] = true, true, true
	}
	var out []pressure.Image
	for _, i := range images.Images {
		names := append(append([]string{i.Id}, i.RepoTags...), i.RepoDigests...)
		out = append(out, pressure.Image{
			ID: i.Id, Bytes: int64(i.Size), Pinned: i.Pinned, InUse: slices.ContainsFunc(names, func(n string) bool { return used[n] }),
		})
	}
	return out, nil
}

// collect removes unused images until need bytes are freed, and returns how
// many were.
func (r *room) collect(ctx context.Context, all []pressure.Image, now time.Time, need int64) int64 {
	freed := int64(0)
	for _, i := range r.images.Unused(all, now) {
		if freed >= need {
			break
		}
		if _, err := r.k.runtime.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.ID}}); err != nil {
			r.k.log.WarnContext(ctx, "unused image not removed", "image", i.ID, "err", err)
			continue
		}
		r.k.log.InfoContext(ctx, "unused image removed to free disk space", "image", i.ID, "bytes", i.Bytes)
		freed += i.Bytes
	}
	return freed
}

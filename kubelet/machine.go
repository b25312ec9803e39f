package kubelet

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skein.dev/skein/kubelet/cri"
)

// machine is what does not change while the daemon runs.
type machine struct {
	cpus   int64
	memory int64
	disk   int64
	info   corev1.NodeSystemInfo
}

// readMachine reads the machine; what cannot be read stays empty.
func readMachine(root string) machine {
	m := machine{cpus: int64(runtime.NumCPU()), memory: memTotal(), disk: diskSize(root)}
	m.info = corev1.NodeSystemInfo{
		MachineID: line("/etc/machine-id"), SystemUUID: line("/sys/class/dmi/id/product_uuid"),
		BootID:  line("/proc/sys/kernel/random/boot_id"),
		OSImage: osImage(), OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if m.info.SystemUUID == "" {
		m.info.SystemUUID = m.info.MachineID
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.info.KernelVersion = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osImage() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return runtime.GOOS
}

func memTotal() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if f := strings.Fields(sc.Text()); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// diskSize is the size of the file system that root will be on.
func diskSize(root string) int64 {
	for dir := root; ; dir = filepath.Dir(dir) {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err == nil {
			return int64(st.Blocks) * st.Bsize
		}
		if dir == "/" || dir == "." {
			return 0
		}
	}
}

// capacity is what the machine has.
func (n *nodeKeeper) capacity() corev1.ResourceList {
	bin := func(v int64) resource.Quantity { return *resource.NewQuantity(v, resource.BinarySI) }
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(n.machine.cpus, resource.DecimalSI),
		corev1.ResourceMemory:           bin(n.machine.memory),
		corev1.ResourceEphemeralStorage: bin(n.machine.disk),
		corev1.ResourcePods:             *resource.NewQuantity(int64(n.cfg.MaxPods), resource.DecimalSI),
	}
}

// allocatable is what pods may have of it.
func (n *nodeKeeper) allocatable() corev1.ResourceList {
	out := n.capacity()
	for name, r := range n.cfg.Reserved {
		q, ok := out[name]
		if !ok {
			continue
		}
		q.Sub(r)
		if q.Sign() < 0 {
			q.Set(0)
		}
		out[name] = q
	}
	return out
}

// port is the node API's, 0 if there is none.
func (c *Config) port() int32 {
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// maxImages is how many images a node's status lists.
const maxImages = 50

// listImages returns the node's images, the largest first.
func listImages(ctx context.Context, c *cri.Client) ([]corev1.ContainerImage, error) {
	r, err := c.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	out := make([]corev1.ContainerImage, 0, len(r.Images))
	for _, i := range r.Images {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		if len(names) > 0 {
			slices.Sort(names)
			out = append(out, corev1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
		}
	}
	slices.SortFunc(out, func(a, b corev1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), slices.Compare(a.Names, b.Names))
	})
	return out[:min(len(out), maxImages)], nil
}

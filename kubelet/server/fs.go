package server

import (
	"context"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// diskOf is the file system that dir is on, nil if there is none.
func diskOf(dir string) *stats.FsStats {
	var st syscall.Statfs_t
	if dir == "" || syscall.Statfs(dir, &st) != nil {
		return nil
	}
	of := func(v uint64) *uint64 { return &v }
	size := uint64(st.Bsize)
	return &stats.FsStats{
		Time: metav1.Now(), AvailableBytes: of(st.Bavail * size), CapacityBytes: of(st.Blocks * size), UsedBytes: of((st.Blocks - st.Bfree) * size),
		InodesFree: of(st.Ffree), Inodes: of(st.Files), InodesUsed: of(st.Files - st.Ffree),
	}
}

// imageDisk is the file system of the runtime's images, with what they take
// of it.
func (s *Server) imageDisk(ctx context.Context) *stats.RuntimeStats {
	r, err := s.cfg.Runtime.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(r.ImageFilesystems) == 0 {
		return nil
	}
	info := r.ImageFilesystems[0]
	fs := diskOf(info.GetFsId().GetMountpoint())
	if fs != nil {
		fs.UsedBytes, fs.InodesUsed = value(info.UsedBytes), value(info.InodesUsed)
	}
	return &stats.RuntimeStats{ImageFs: fs}
}

// layer is what a container has written beside its volumes.
func layer(f *runtimeapi.FilesystemUsage) *stats.FsStats {
	if f == nil {
		return nil
	}
	return &stats.FsStats{Time: at(f.Timestamp), UsedBytes: value(f.UsedBytes), InodesUsed: value(f.InodesUsed)}
}

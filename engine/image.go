package engine

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// namespace is where containerd's CRI keeps its images and containers.
	namespace   = "k8s.io"
	snapshotter = "overlayfs"
	// pinnedLabel is how containerd's CRI knows a pinned image.
	pinnedLabel = "io.cri-containerd.pinned"
	// pollEvery paces the waits for what containerd does on its own time.
	pollEvery = 20 * time.Millisecond
)

// Image is one image that the engine has.
type Image struct {
	ID    string   // digest of its configuration, "sha256:..."
	Names []string // "registry/path:tag", sorted; empty for an untagged one
	Size  uint64   // bytes in the content store
}

// Import loads the images of a tar, an OCI layout or what `docker save` wrote,
// unpacks them and returns their full names once the kubelet can see them. It
// reads r to its end.
func (e *Engine) Import(ctx context.Context, r io.Reader) ([]string, error) {
	client, err := containerd.New(socketPath(e.Endpoint()), containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("open containerd at %s: %w", e.Endpoint(), err)
	}
	defer client.Close()
	if _, err := client.Version(ctx); err != nil {
		if !e.Embedded() {
			return nil, fmt.Errorf("import images through %s: %w: %w", e.Endpoint(), ErrExternal, err)
		}
		return nil, fmt.Errorf("reach containerd at %s: %w", e.Endpoint(), err)
	}
	// Who brings an image by hand has no registry to have it from once more:
	// the kubelet must not collect it.
	imported, err := client.Import(ctx, r, containerd.WithImageLabels(map[string]string{pinnedLabel: "pinned"}))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	var names []string
	for _, img := range imported {
		if err := containerd.NewImage(client, img).Unpack(ctx, snapshotter); err != nil {
			return nil, fmt.Errorf("unpack image %s: %w", img.Name, err)
		}
		names = append(names, img.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := e.waitImage(ctx, name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// waitImage blocks until CRI knows the image: it learns of it from
// containerd's events a moment after the import.
func (e *Engine) waitImage(ctx context.Context, name string) error {
	for {
		id, err := e.imageID(ctx, name)
		if err != nil || id != "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for image %s: %w", name, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// imageID is empty when the engine does not have the image.
func (e *Engine) imageID(ctx context.Context, name string) (id string, err error) {
	err = e.withImages(func(c runtimeapi.ImageServiceClient) error {
		reply, err := c.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		if err != nil {
			return fmt.Errorf("look up image %s: %w", name, err)
		}
		id = reply.GetImage().GetId()
		return nil
	})
	return id, err
}

// List returns the engine's images sorted by first name, then by ID.
func (e *Engine) List(ctx context.Context) (images []Image, err error) {
	err = e.withImages(func(c runtimeapi.ImageServiceClient) error {
		reply, err := c.ListImages(ctx, &runtimeapi.ListImagesRequest{})
		if err != nil {
			return fmt.Errorf("list images: %w", err)
		}
		for _, i := range reply.GetImages() {
			images = append(images, Image{ID: i.GetId(), Names: slices.Sorted(slices.Values(i.GetRepoTags())), Size: i.GetSize()})
		}
		return nil
	})
	slices.SortFunc(images, func(a, b Image) int {
		return cmp.Or(slices.Compare(a.Names, b.Names), cmp.Compare(a.ID, b.ID))
	})
	return images, err
}

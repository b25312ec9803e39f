package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"skein.dev/skein/engine/programs"
)

// PauseImage is the name of the sandbox image. It is made here and never pulled.
const PauseImage = "skein.dev/pause:1"

// EnsurePause imports the sandbox image, without which no pod starts, when the
// embedded containerd does not have this very one. An external runtime brings
// its own and nothing happens.
func (e *Engine) EnsurePause(ctx context.Context) error {
	if !e.Embedded() {
		return nil
	}
	program, err := programs.Read(programs.Pause)
	if err != nil {
		return err
	}
	img, err := pauseImage(program)
	if err != nil {
		return fmt.Errorf("make pause image: %w", err)
	}
	want, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("name pause image: %w", err)
	}
	have, err := e.imageID(ctx, PauseImage)
	if err != nil || have == want.String() {
		return err
	}
	ref, err := name.NewTag(PauseImage)
	if err != nil {
		return fmt.Errorf("name pause image: %w", err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, img, &archive); err != nil {
		return fmt.Errorf("write pause image: %w", err)
	}
	_, err = e.Import(ctx, &archive)
	return err
}

// pauseImage is an image of the one file /pause. It has no dates and so the
// same digest on every peer.
func pauseImage(program []byte) (v1.Image, error) {
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "pause", Mode: 0o755, Size: int64(len(program)), ModTime: time.Unix(0, 0)})
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config.Entrypoint = []string{"/pause"}
	return mutate.ConfigFile(img, cf)
}

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// image is what an image is made of: layers, lowest first, and what is run.
type image struct {
	layers     []v1.Layer
	entrypoint []string
	cmd        []string
	user       string // empty: root
}

// with is the image with a further layer.
func (i image) with(l v1.Layer) image {
	i.layers = append(i.layers[:len(i.layers):len(i.layers)], l)
	return i
}

// layer makes a layer of a tree.
func layer(t tree) (v1.Layer, error) {
	files, err := t.archive()
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	return l, nil
}

// build makes the image. The reference is a label of it, so that images that
// differ in nothing but their name stay different images, as upstream's are:
// a rollout from one to the other must be seen.
func (i image) build(ref string) (v1.Image, error) {
	img, err := mutate.AppendLayers(empty.Image, i.layers...)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", ref, err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", ref, err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config = v1.Config{
		Entrypoint: i.entrypoint, Cmd: i.cmd, User: i.user,
		Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels: map[string]string{"org.opencontainers.image.ref.name": ref},
	}
	img, err = mutate.ConfigFile(img, cf)
	if err != nil {
		return nil, fmt.Errorf("make image %s: %w", ref, err)
	}
	return img, nil
}

// write puts the images into one tar, in which shared layers are once.
func write(out string, images map[string]image) error {
	all := map[name.Tag]v1.Image{}
	for ref, i := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			return fmt.Errorf("name image: %w", err)
		}
		if all[tag], err = i.build(ref); err != nil {
			return err
		}
	}
	if err := tarball.MultiWriteToFile(out, all); err != nil {
		return fmt.Errorf("write images: %w", err)
	}
	return nil
}

// Command mirror is a registry on a loopback port that holds the images of a
// tar, for tests that insist on a pull where no registry can be reached.
// Its invariant: it serves until its standard input ends, so that it never
// outlives who started it.
//
//	mirror -images build/conformance/images/images.tar -blobs DIR -listen 127.0.0.1:5000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	images := flag.String("images", "", "tar of images")
	blobs := flag.String("blobs", "", "directory for layers; several mirrors may share one")
	listen := flag.String("listen", "127.0.0.1:5000", "address to listen at, which must be loopback")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // who started it is gone, by whatever end
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	err := run(ctx, *images, *blobs, *listen)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mirror:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It prints one line when everything is there.
func run(ctx context.Context, images, blobs, listen string) error {
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
		_ = ln.Close()
		return fmt.Errorf("listen at %s: it is not a loopback address", listen)
	}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)))
	server := &http.Server{Handler: store} //nolint:gosec // on loopback, for a test
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	if err := fill(ctx, ln.Addr().String(), images); err != nil {
		_ = server.Close()
		return errors.Join(err, ignoreClosed(<-served))
	}
	fmt.Println("ready")
	return ignoreClosed(<-served)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// fill pushes all images of the tar, without the registry in their names,
// which is whose mirror this is.
func fill(ctx context.Context, addr, images string) error {
	open := func() (io.ReadCloser, error) { return os.Open(images) }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return fmt.Errorf("read %s: %w", images, err)
	}
	for _, m := range manifest {
		for _, ref := range m.RepoTags {
			tag, err := name.NewTag(ref)
			if err != nil {
				return fmt.Errorf("read %s: %w", images, err)
			}
			img, err := tarball.Image(open, &tag)
			if err != nil {
				return fmt.Errorf("read image %s: %w", ref, err)
			}
			to, err := name.NewTag(addr+"/"+tag.RepositoryStr()+":"+tag.TagStr(), name.Insecure)
			if err != nil {
				return fmt.Errorf("name image %s: %w", ref, err)
			}
			if err := remote.Write(to, img, remote.WithContext(ctx)); err != nil {
				return fmt.Errorf("mirror image %s: %w", ref, err)
			}
		}
	}
	return nil
}

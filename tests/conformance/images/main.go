// Command images makes the images that Kubernetes' conformance tests use, of
// upstream's own programs and of Debian's packages, and writes them into one
// tar that any container engine imports.
// Its invariant: an image has the name that the suite itself asks for, and
// does what upstream's image of that name does for the conformance tests.
//
//	go run ./images -programs build/conformance/bin -pause build/programs/pause \
//		-cache build/conformance/debian -out build/conformance/images/images.tar
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// config says where things are.
type config struct {
	programs string // directory of upstream's programs, built
	pause    string // our pause program
	cache    string // directory of Debian's packages
	out      string // the tar
}

func main() {
	var c config
	flag.StringVar(&c.programs, "programs", "", "directory of agnhost, nnp, sample-apiserver and etcd")
	flag.StringVar(&c.pause, "pause", "", "pause program")
	flag.StringVar(&c.cache, "cache", "", "directory for Debian's packages")
	flag.StringVar(&c.out, "out", "", "tar to write")
	flag.Parse()
	if err := run(context.Background(), c); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	for _, dir := range []string{c.cache, filepath.Dir(c.out)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	all, err := catalog(ctx, c)
	if err != nil {
		return err
	}
	return write(c.out, all)
}

// Command images makes the images of the examples from static programs of
// this machine and writes each as a tar that any container engine imports.
// Its invariant: the same programs make the same image, to the byte.
//
//	go run ./examples/images build/images
package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The images' names, as the manifests use them.
const (
	helloName   = "skein.dev/examples/hello:v1"
	busyboxName = "skein.dev/examples/busybox:1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: images DIRECTORY")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	hello, err := buildHello(ctx)
	if err != nil {
		return err
	}
	busybox, err := findBusybox(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		write(filepath.Join(dir, "hello.tar"), helloName, hello),
		write(filepath.Join(dir, "busybox.tar"), busyboxName, busybox),
	)
}

// buildHello is the server alone.
func buildHello(ctx context.Context) (content, error) {
	dir, err := os.MkdirTemp("", "skein-images-")
	if err != nil {
		return content{}, fmt.Errorf("make build directory: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "hello")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "skein.dev/skein/examples/images/hello")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return content{}, fmt.Errorf("build hello: %w", err)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return content{}, fmt.Errorf("read hello: %w", err)
	}
	return content{
		files: []file{{path: "hello", mode: 0o755, data: program}},
		run:   []string{"/hello"}, user: "65532:65532",
	}, nil
}

// findBusybox is this machine's static busybox with all its applets.
func findBusybox(ctx context.Context) (content, error) {
	const hint = "install Debian's busybox-static"
	path, err := exec.LookPath("busybox")
	if err != nil {
		return content{}, fmt.Errorf("find busybox: %w (%s)", err, hint)
	}
	if err := checkStatic(path); err != nil {
		return content{}, fmt.Errorf("%w (%s)", err, hint)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return content{}, fmt.Errorf("read busybox: %w", err)
	}
	list, err := exec.CommandContext(ctx, path, "--list").Output()
	if err != nil {
		return content{}, fmt.Errorf("list applets of busybox: %w", err)
	}
	c := content{
		files: []file{
			{path: "bin/busybox", mode: 0o755, data: program},
			{path: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
			{path: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnobody:x:65534:\n")},
			// Without it the C library in busybox asks no name server.
			{path: "etc/nsswitch.conf", mode: 0o644, data: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
			{path: "root/", mode: 0o700},
			{path: "tmp/", mode: 0o1777},
		},
		run: []string{"/bin/sh"},
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			c.files = append(c.files, file{path: "bin/" + applet, link: "busybox"})
		}
	}
	return c, nil
}

// checkStatic fails for a program that needs a loader: the image has none.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is not linked statically", path)
		}
	}
	return nil
}

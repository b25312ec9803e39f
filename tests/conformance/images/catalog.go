package main

import (
	"context"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	manifest "k8s.io/kubernetes/test/utils/image"
)

// catalog is every image that a conformance test runs, by the suite's name.
func catalog(ctx context.Context, c config) (map[string]image, error) {
	m := maker{config: c, debs: debian{dir: c.cache}}
	out := map[string]image{}
	for _, group := range []func(context.Context, map[manifest.ImageID]image) error{m.hosts, m.shells, m.servers} {
		made := map[manifest.ImageID]image{}
		if err := group(ctx, made); err != nil {
			return nil, err
		}
		for id, i := range made {
			out[manifest.GetE2EImage(id)] = i
		}
	}
	return out, nil
}

type maker struct {
	config
	debs debian
}

// hosts makes agnhost and what is made of it.
func (m maker) hosts(ctx context.Context, out map[manifest.ImageID]image) error {
	debs, err := m.debs.tree(ctx, "libc-bin", "dash", "bash", "bind9-dnsutils", "bind9-host", "curl", "netcat-openbsd",
		"iproute2", "libatm1", "iperf", "util-linux", "socat")
	if err != nil {
		return err
	}
	debs.link("bin/nc", "nc.openbsd") // Debian's alternatives are made when a package is installed
	base, err := m.base(ctx, debs)
	if err != nil {
		return err
	}
	source, err := upstream(ctx, "test/images")
	if err != nil {
		return err
	}
	t := tree{}
	t.dir("uploads", 0o755)
	t.link("agnhost-2", "agnhost")
	// The suite's tests of supplemental groups know these.
	t.text("etc/passwd", passwd+"user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n")
	t.text("etc/group", group+"user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n")
	t.dir("home/user-defined-in-image", 0o755)
	for to, from := range map[string]string{
		"agnhost":       filepath.Join(m.programs, "agnhost"),
		"localhost.crt": filepath.Join(source, "agnhost/porter/localhost.crt"),
		"localhost.key": filepath.Join(source, "agnhost/porter/localhost.key"),
	} {
		if err := t.file(to, from, 0o755); err != nil {
			return err
		}
	}
	own, err := layer(t)
	if err != nil {
		return err
	}
	agnhost := image{layers: []v1.Layer{base, own}, entrypoint: []string{"/agnhost"}, cmd: []string{"pause"}}
	out[manifest.Agnhost], out[manifest.AgnhostPrev] = agnhost, agnhost
	for id, animal := range map[manifest.ImageID]string{manifest.Kitten: "kitten", manifest.Nautilus: "nautilus"} {
		page := tree{}
		for _, name := range []string{animal + ".jpg", "data.json"} {
			if err := page.file(name, filepath.Join(source, animal, "html", name), 0o644); err != nil {
				return err
			}
		}
		l, err := layer(page)
		if err != nil {
			return err
		}
		i := agnhost.with(l)
		i.cmd = []string{"test-webserver"}
		out[id] = i
	}
	return nil
}

// shells makes the images that tests run a shell in.
func (m maker) shells(ctx context.Context, out map[manifest.ImageID]image) error {
	// Debian's busybox shell keeps from its children the variables whose names
	// it could not have itself, such as data-1; upstream's passes them on. So the
	// sh that is found by its name is bash; /bin/sh, of which one test knows the
	// words, is busybox'.
	bash, err := m.debs.tree(ctx, "bash")
	if err != nil {
		return err
	}
	bash.link("usr/bin/sh", "../../bin/bash")
	busybox, err := m.base(ctx, bash)
	if err != nil {
		return err
	}
	nnp := tree{}
	if err := nnp.file("usr/local/bin/nnp", filepath.Join(m.programs, "nnp"), 0o755|fs.ModeSetuid|fs.ModeSetgid); err != nil {
		return err
	}
	nnpLayer, err := layer(nnp)
	if err != nil {
		return err
	}
	shell := image{layers: []v1.Layer{busybox}, cmd: []string{"sh"}}
	out[manifest.BusyBox] = shell
	out[manifest.Nonewprivs] = image{layers: []v1.Layer{busybox, nnpLayer}, cmd: []string{"nnp"}}
	nonroot := shell
	nonroot.user = "1234"
	out[manifest.NonRoot] = nonroot
	for id, packages := range map[manifest.ImageID][]string{
		manifest.GlibcDnsTesting: {"libc-bin", "dash", "bind9-dnsutils", "bind9-host"},
		manifest.Perl:            {"libc-bin", "dash", "perl", "perl-base", "perl-modules-5.36"},
		manifest.IpcUtils:        {"libc-bin", "dash", "util-linux"},
	} {
		debs, err := m.debs.tree(ctx, packages...)
		if err != nil {
			return err
		}
		l, err := m.base(ctx, debs)
		if err != nil {
			return err
		}
		out[id] = image{layers: []v1.Layer{l}, cmd: []string{"sh"}}
	}
	return nil
}

// servers makes the images of servers and pause.
func (m maker) servers(ctx context.Context, out map[manifest.ImageID]image) error {
	debs, err := m.debs.tree(ctx, "libc-bin", "dash", "nginx", "nginx-common")
	if err != nil {
		return err
	}
	nginx, err := m.base(ctx, over(debs, nginxFiles()))
	if err != nil {
		return err
	}
	web := image{layers: []v1.Layer{nginx}, cmd: []string{"nginx", "-g", "daemon off;"}}
	out[manifest.Nginx], out[manifest.NginxNew] = web, web
	for id, p := range map[manifest.ImageID]struct{ from, to string }{
		manifest.Pause:     {m.pause, "pause"},
		manifest.APIServer: {filepath.Join(m.programs, "sample-apiserver"), "sample-apiserver"},
		manifest.Etcd:      {filepath.Join(m.programs, "etcd"), "usr/local/bin/etcd"},
	} {
		t := tree{}
		t.dir("tmp", 0o777|fs.ModeSticky)
		t.text("etc/nsswitch.conf", nsswitch)
		if err := t.file(p.to, p.from, 0o755); err != nil {
			return err
		}
		l, err := layer(t)
		if err != nil {
			return err
		}
		i := image{layers: []v1.Layer{l}, entrypoint: []string{"/" + p.to}}
		if id == manifest.Etcd {
			i.entrypoint, i.cmd = nil, []string{"/" + p.to}
		}
		out[id] = i
	}
	return nil
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nnobody:x:65534:\n"
	// One test of image volumes looks here for upstream's base and fails:
	// this base is another.
	osRelease = "NAME=\"Skein conformance\"\nID=skein-conformance\nID_LIKE=debian\nPRETTY_NAME=\"Skein conformance image of Debian programs\"\n"
	nsswitch  = "passwd: files\ngroup: files\nhosts: files dns\n"
)

// base is a layer with busybox' applets, the packages over them, and what
// every system has. Where dash is in the packages it is the shell: busybox'
// own prefers its applets to programs of the same name.
func (m maker) base(ctx context.Context, packages tree) (v1.Layer, error) {
	busybox, err := m.debs.tree(ctx, "busybox-static")
	if err != nil {
		return nil, err
	}
	program := filepath.Join(m.debs.dir, "busybox-static", "bin", "busybox")
	list, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of busybox: %w", err)
	}
	t := tree{}
	for applet := range strings.FieldsSeq(string(list)) {
		t.link("bin/"+applet, "busybox")
	}
	t["bin/busybox"] = busybox["bin/busybox"]
	t.text("etc/passwd", passwd)
	t.text("etc/group", group)
	t.text("etc/nsswitch.conf", nsswitch)
	t.text("etc/os-release", osRelease)
	t.dir("root", 0o700)
	t.dir("tmp", 0o777|fs.ModeSticky)
	t.dir("var/tmp", 0o777|fs.ModeSticky)
	t.dir("run", 0o755)
	t = over(t, packages)
	if _, ok := packages["bin/dash"]; ok {
		t.link("bin/sh", "dash")
	}
	return layer(t)
}

// upstream is a directory of Kubernetes' module.
func upstream(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return "", fmt.Errorf("find Kubernetes' module: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), dir), nil
}

// Package real_test runs the kubelet on a real containerd, in a network and
// mount namespace of its own.
package real_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sasha-s/go-deadlock"

	"skein.dev/skein/engine/containerd"
)

const (
	testPlugin = "testcni"
	inside     = "SKEIN_KUBELET_TEST_INSIDE"
)

// TestMain makes the test's binary containerd and a network plugin when it is
// called so, and otherwise runs the tests once more in fresh namespaces.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case containerd.Program:
		// In a binary built with -race, go-cni's locks end the process at a
		// nested read lock of its own.
		deadlock.Opts.Disable = true
		exit(containerd.Main(context.Background(), os.Args))
	case testPlugin:
		exit(plugin(os.Getenv("CNI_COMMAND"), os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_CONTAINERID")))
	}
	switch {
	case os.Geteuid() != 0: // each test says why it skips
		os.Exit(m.Run())
	case os.Getenv(inside) == "":
		exit(reexec())
	}
	exit(errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		up("lo"), bridge(),
	), m)
}

func exit(err error, m ...*testing.M) {
	if failed := (&exec.ExitError{}); errors.As(err, &failed) {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, m := range m {
		os.Exit(m.Run())
	}
	os.Exit(0)
}

// reexec runs this very test binary in namespaces of its own.
func reexec() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd.Run()
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

const bridgeName = "pods0"

// bridge makes the node's end of the pod network, 10.99.0.0/24.
func bridge() error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(br); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.99.0.1/24")
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(br, addr), netlink.LinkSetUp(br))
}

// plugin is the least CNI plugin that gives pods an address the node reaches.
func plugin(command, path, link, id string) error {
	if command != "ADD" {
		return nil // the link goes with its namespace
	}
	br, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "v" + id[:10], MasterIndex: br.Attrs().Index},
		PeerName:  link, PeerNamespace: netlink.NsFd(int(ns)),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(pair); err != nil {
		return err
	}
	ip, err := nextAddress()
	if err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	l, err := h.LinkByName(link)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(ip + "/24")
	if err != nil {
		return err
	}
	if err := errors.Join(h.AddrAdd(l, addr), h.LinkSetUp(l)); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"cniVersion": "1.0.0",
		"interfaces": []map[string]any{{"name": link, "sandbox": path}},
		"ips":        []map[string]any{{"address": ip + "/24", "interface": 0}},
	})
}

// nextAddress counts in a file beside the plugin.
func nextAddress() (string, error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(os.Args[0]), "count"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return "", err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	n = n%250 + 1
	return "10.99.0." + strconv.Itoa(n+1), os.WriteFile(f.Name(), []byte(strconv.Itoa(n)), 0o600)
}

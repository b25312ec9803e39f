package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sasha-s/go-deadlock"

	"skein.dev/skein/engine/containerd"
)

// TestMain lets the test's own binary be the programs that the engine starts:
// containerd under its name, and a network plugin.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case containerd.Program:
		// In a binary built with -race, go-cni's locks end the process at a
		// nested read lock of its own.
		deadlock.Opts.Disable = true
		exit(containerd.Main(context.Background(), os.Args))
	case "holder": // keeps namespaces open until its stdin closes
		_, err := os.Stdin.Read(make([]byte, 1))
		_ = err // the end of stdin is what it waits for
		os.Exit(0)
	case "enter": // PID of the holder, program, its arguments
		exit(enter(os.Args[1], os.Args[2], os.Args[3:]))
	case testPlugin:
		exit(plugin(os.Getenv("CNI_COMMAND"), os.Getenv("CNI_NETNS"), os.Getenv("CNI_IFNAME")))
	}
	os.Exit(m.Run())
}

const (
	testPlugin = "testcni"
	podAddress = "10.99.0.2"
)

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// enter becomes the program inside the network and mount namespaces of a
// process.
func enter(pid, program string, argv []string) error {
	runtime.LockOSThread() // the thread that changes namespaces executes
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the other threads' root: %w", err)
	}
	for _, ns := range []struct {
		name string
		kind int
	}{{"net", unix.CLONE_NEWNET}, {"mnt", unix.CLONE_NEWNS}} { // mounts last: they may hide /proc
		fd, err := unix.Open("/proc/"+pid+"/ns/"+ns.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace: %w", err)
		}
		if err := unix.Setns(fd, ns.kind); err != nil {
			return fmt.Errorf("enter namespace %s: %w", ns.name, err)
		}
	}
	return unix.Exec(program, argv, os.Environ())
}

// plugin is a CNI plugin that gives a pod a link with an address, to nowhere.
func plugin(command, path, link string) error {
	if command != "ADD" {
		return nil // the link goes with its namespace
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "unused"}
	if err := h.LinkAdd(pair); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(podAddress + "/24")
	if err != nil {
		return err
	}
	if err := h.AddrAdd(pair, addr); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"cniVersion": "1.0.0",
		"interfaces": []map[string]any{{"name": link, "sandbox": path}},
		"ips":        []map[string]any{{"address": podAddress + "/24", "interface": 0}},
	})
}

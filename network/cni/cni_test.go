package cni_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"skein.dev/skein/network/cni"
	"skein.dev/skein/network/ns"
	"skein.dev/skein/network/nstest"
)

// TestMain lets the test binary be the plugin: the tests start it as a
// runtime would.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		skel.PluginMainFuncs(cni.Funcs(), version.All, "under test")
		return
	}
	os.Exit(m.Run())
}

// machine is a peer: a namespace and a data directory.
type machine struct {
	*nstest.NS
	dir    string
	ranges []string
}

func newMachine(t *testing.T, ranges ...string) *machine {
	t.Helper()
	m := &machine{NS: nstest.New(t), dir: t.TempDir(), ranges: ranges}
	m.Forward(t)
	return m
}

func (m *machine) conf(extra map[string]any) []byte {
	c := map[string]any{
		"cniVersion": "1.1.0", "name": "skein", "type": "cni", "ranges": m.ranges, "dataDir": m.dir, "mtu": 1400,
	}
	maps.Copy(c, extra)
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return b
}

// run starts the plugin in the machine's namespace.
func (m *machine) run(t *testing.T, command, id string, pod *nstest.NS, conf []byte) (*current.Result, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_PATH=/none")
	if pod != nil {
		cmd.Env = append(cmd.Env, "CNI_NETNS="+pod.Path, "CNI_NETNS_OVERRIDE=1")
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), &out, &out
	err := ns.Do(m.Path, cmd.Run)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", command, id, err, out.String())
	}
	if command != "ADD" {
		return nil, nil
	}
	var r current.Result
	return &r, json.Unmarshal(out.Bytes(), &r)
}

func (m *machine) add(t *testing.T, id string) (*nstest.NS, *current.Result) {
	t.Helper()
	pod := nstest.New(t)
	r, err := m.run(t, "ADD", id, pod, m.conf(nil))
	if err != nil {
		t.Fatal(err)
	}
	return pod, r
}

func addrOf(t *testing.T, r *current.Result, i int) netip.Addr {
	t.Helper()
	a, ok := netip.AddrFromSlice(r.IPs[i].Address.IP)
	if !ok {
		t.Fatalf("no address %d in %v", i, r)
	}
	return a.Unmap()
}

// ask connects from one namespace to a one-line server in another.
func ask(t *testing.T, from, to *nstest.NS, at netip.AddrPort) (string, error) {
	t.Helper()
	var l net.Listener
	to.Do(t, func() (err error) { l, err = net.Listen("tcp", at.String()); return err })
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
		c.Close()
	}()
	var got []byte
	err := ns.Do(from.Path, func() error {
		c, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = io.ReadAll(c)
		return err
	})
	return string(got), err
}

func TestPodsOfOnePeerReachEachOtherAndTheHost(t *testing.T) {
	m := newMachine(t, "10.244.3.0/24", "fd00:3::/64")
	m.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644) })
	a, ra := m.add(t, "aaa")
	b, rb := m.add(t, "bbb")
	for i, family := range []string{"IPv4", "IPv6"} {
		from, to := addrOf(t, ra, i), addrOf(t, rb, i)
		got, err := ask(t, a, b, netip.AddrPortFrom(to, 80))
		if err != nil || got != from.String() {
			t.Errorf("%s pod to pod: got %q, %v; want %s", family, got, err, from)
		}
	}
	// The host needs an address of its own to speak from.
	m.Do(t, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "node0"}})
	})
	m.Address(t, "node0", "192.0.2.1/32")
	if got, err := ask(t, m.NS, b, netip.AddrPortFrom(addrOf(t, rb, 0), 81)); err != nil || got != "192.0.2.1" {
		t.Errorf("host to pod: got %q, %v", got, err)
	}
	if mtu := ra.Interfaces[1].Mtu; mtu != 1400 {
		t.Errorf("mtu in the result: got %d, want 1400", mtu)
	}
	a.Do(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if l.Attrs().MTU != 1400 {
			return fmt.Errorf("mtu in the pod: got %d, want 1400", l.Attrs().MTU)
		}
		return nil
	})
}

func TestDelFreesEverythingAndIsIdempotent(t *testing.T) {
	m := newMachine(t, "10.244.3.0/30") // room for one pod
	pod, _ := m.add(t, "aaa")
	if _, err := m.run(t, "ADD", "bbb", nstest.New(t), m.conf(nil)); err == nil || !strings.Contains(err.Error(), "no address is free") {
		t.Fatalf("ADD to a full range: got %v", err)
	}
	for range 2 {
		if _, err := m.run(t, "DEL", "aaa", pod, m.conf(nil)); err != nil {
			t.Fatal(err)
		}
	}
	// Also when the pod's namespace is gone and the runtime no longer knows it.
	if _, err := m.run(t, "DEL", "never-there", nil, m.conf(nil)); err != nil {
		t.Fatal(err)
	}
	m.Do(t, func() error {
		ls, err := netlink.LinkList()
		if err == nil && len(ls) != 1 {
			err = fmt.Errorf("links left over: %v", ls)
		}
		return err
	})
	m.add(t, "ccc")
}

func TestAddAgainKeepsTheAddress(t *testing.T) {
	m := newMachine(t, "10.244.3.0/24")
	pod, first := m.add(t, "aaa")
	second, err := m.run(t, "ADD", "aaa", pod, m.conf(nil))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := addrOf(t, first, 0), addrOf(t, second, 0); a != b {
		t.Errorf("got %s then %s", a, b)
	}
	prev, err := json.Marshal(second)
	if err != nil {
		t.Fatal(err)
	}
	check := m.conf(map[string]any{"prevResult": json.RawMessage(prev)})
	if _, err := m.run(t, "CHECK", "aaa", pod, check); err != nil {
		t.Errorf("CHECK of a healthy pod: %v", err)
	}
	pod.Do(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		as, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, &as[0])
	})
	if _, err := m.run(t, "CHECK", "aaa", pod, check); err == nil {
		t.Error("CHECK of a pod without its address succeeded")
	}
}

func TestFailedAddLeavesNothing(t *testing.T) {
	m := newMachine(t, "10.244.3.0/24")
	pod := nstest.New(t)
	pod.Do(t, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}})
	})
	if _, err := m.run(t, "ADD", "aaa", pod, m.conf(nil)); err == nil {
		t.Fatal("ADD over an existing eth0 succeeded")
	}
	es, err := os.ReadDir(filepath.Join(m.dir, "addr"))
	if err != nil || len(es) != 0 {
		t.Errorf("allocations left: %v, %v", es, err)
	}
}

func TestGCFreesWhatTheRuntimeForgot(t *testing.T) {
	m := newMachine(t, "10.244.3.0/24")
	m.add(t, "keep")
	m.add(t, "lost")
	gc := m.conf(map[string]any{"cni.dev/valid-attachments": []map[string]string{{"containerID": "keep", "ifname": "eth0"}}})
	if _, err := m.run(t, "GC", "", nil, gc); err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(filepath.Join(m.dir, "addr"))
	if err != nil || len(es) != 1 {
		t.Errorf("allocations: got %v, %v; want one", es, err)
	}
}

func TestStatusFailsWithoutARange(t *testing.T) {
	m := newMachine(t)
	if _, err := m.run(t, "STATUS", "", nil, m.conf(nil)); err == nil {
		t.Error("STATUS without ranges succeeded")
	}
	m.ranges = []string{"10.244.3.0/24"}
	if _, err := m.run(t, "STATUS", "", nil, m.conf(nil)); err != nil {
		t.Error(err)
	}
}

func TestFullMeansErrFull(t *testing.T) {
	s, err := cni.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}
	free := func(netip.Addr) bool { return false }
	seen := map[netip.Addr]bool{}
	for i := range 5 {
		as, err := s.Allocate(cni.Owner{Container: fmt.Sprint(i), Interface: "eth0"}, r, free)
		if err != nil {
			t.Fatal(err)
		}
		seen[as[0]] = true
	}
	if len(seen) != 5 || seen[netip.MustParseAddr("10.0.0.1")] || seen[netip.MustParseAddr("10.0.0.7")] {
		t.Errorf("addresses given: %v", seen)
	}
	if _, err := s.Allocate(cni.Owner{Container: "x"}, r, free); !errors.Is(err, cni.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if err := s.Release(func(o cni.Owner) bool { return o.Container == "2" }); err != nil {
		t.Fatal(err)
	}
	if as, err := s.Allocate(cni.Owner{Container: "x"}, r, free); err != nil || as[0] != netip.MustParseAddr("10.0.0.4") {
		t.Errorf("got %v, %v; want the freed 10.0.0.4", as, err)
	}
}

func TestAnAddressComesBackLast(t *testing.T) {
	s, err := cni.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/29")}
	var got []string
	for i := range 6 {
		o := cni.Owner{Container: fmt.Sprint(i), Interface: "eth0"}
		as, err := s.Allocate(o, r, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.0.0.3") })
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, as[0].String())
		if err := s.Release(func(x cni.Owner) bool { return x == o }); err != nil {
			t.Fatal(err)
		}
	}
	want := "10.0.0.2 10.0.0.4 10.0.0.5 10.0.0.6 10.0.0.2 10.0.0.4"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestAllocationsOfAnEarlierBootAreDropped(t *testing.T) {
	dir := t.TempDir()
	s, err := cni.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := cni.Owner{Container: "a", Interface: "eth0"}
	if _, err := s.Allocate(o, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, func(netip.Addr) bool { return false }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.WriteFile(filepath.Join(dir, "boot"), []byte("an earlier one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = cni.OpenStore(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if as, err := s.Owned(o); err != nil || len(as) != 0 {
		t.Errorf("got %v, %v; want none", as, err)
	}
}

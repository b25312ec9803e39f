package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Owner is one interface of one container: what an address is given to.
type Owner struct {
	Container, Interface string
}

// String is the owner as it is written to the store, "container interface".
func (o Owner) String() string { return o.Container + " " + o.Interface }

// ErrFull means that all addresses of a family are taken.
var ErrFull = errors.New("no address is free in the pod CIDRs")

// Store is the directory of allocations: a file an address, named by it, with
// its owner inside. While it is open no other process has it open.
//
// A file appears by rename and vanishes by unlink, so a crash leaves either
// an allocation or none. Allocations of an earlier boot are dropped at
// opening: no container survived it.
type Store struct {
	dir  string
	lock *os.File
}

const bootFile, lastPrefix, addrDir = "boot", "last-", "addr"

// OpenStore opens the store in dir, which is made if needed, and waits until
// other processes have closed it.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, addrDir), 0o700); err != nil {
		return nil, fmt.Errorf("create allocation directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open allocation lock: %w", err)
	}
	s := &Store{dir: dir, lock: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock allocations: %w", err), f.Close())
	}
	if err := s.dropOldBoot(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// Close lets the next process in.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) dropOldBoot() error {
	now, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	then, err := os.ReadFile(filepath.Join(s.dir, bootFile))
	if err == nil && string(then) == string(now) {
		return nil
	}
	if err == nil {
		if err := s.Release(func(Owner) bool { return true }); err != nil {
			return err
		}
	}
	return s.write(bootFile, string(now))
}

// Allocate returns one address for each family among ranges, and on a second
// call for the same owner the same ones. It goes round: an address comes back
// only after all others, so that caches of its last owner have aged. The
// first two addresses of a range are the network's and the peer's own; taken
// reports addresses that are in use although the store does not know.
func (s *Store) Allocate(o Owner, ranges []netip.Prefix, taken func(netip.Addr) bool) ([]netip.Addr, error) {
	if len(ranges) == 0 {
		return nil, errors.New("this peer has no pod CIDR yet")
	}
	addrs, err := s.Owned(o)
	if err != nil {
		return nil, err
	}
	for _, want4 := range []bool{true, false} {
		if !hasFamily(ranges, want4) || hasAddr(addrs, want4) {
			continue
		}
		a, err := s.allocateFamily(o, ranges, want4, taken)
		if err != nil {
			return nil, errors.Join(err, s.Release(func(x Owner) bool { return x == o }))
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func hasFamily(ranges []netip.Prefix, is4 bool) bool {
	for _, r := range ranges {
		if r.Addr().Is4() == is4 {
			return true
		}
	}
	return false
}

func hasAddr(addrs []netip.Addr, is4 bool) bool {
	for _, a := range addrs {
		if a.Is4() == is4 {
			return true
		}
	}
	return false
}

func (s *Store) allocateFamily(o Owner, ranges []netip.Prefix, is4 bool, taken func(netip.Addr) bool) (netip.Addr, error) {
	used, err := s.used()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, r := range ranges {
		if r.Addr().Is4() != is4 {
			continue
		}
		r = r.Masked()
		a, ok := next(r, s.last(r), func(a netip.Addr) bool { return used[a.String()] || taken(a) })
		if !ok {
			continue
		}
		if err := s.write(filepath.Join(addrDir, a.String()), o.String()); err != nil {
			return netip.Addr{}, err
		}
		return a, s.write(lastName(r), a.String())
	}
	return netip.Addr{}, ErrFull
}

// next is the first free address after last in r, going round once. It gives
// up after a million, which only a huge IPv6 range full of pods could need.
func next(r netip.Prefix, last netip.Addr, busy func(netip.Addr) bool) (netip.Addr, bool) {
	first := r.Addr().Next().Next()
	if !r.Contains(last) || last.Less(first) {
		last = first.Prev()
	}
	a := last
	for range 1 << 20 {
		a = a.Next()
		if !r.Contains(a) || isBroadcast(r, a) {
			a = first
		}
		if !r.Contains(a) || isBroadcast(r, a) {
			return netip.Addr{}, false // a range with no room at all
		}
		if !busy(a) {
			return a, true
		}
		if a == last {
			return netip.Addr{}, false
		}
	}
	return netip.Addr{}, false
}

func isBroadcast(r netip.Prefix, a netip.Addr) bool {
	return a.Is4() && !r.Contains(a.Next())
}

func lastName(r netip.Prefix) string {
	return lastPrefix + strings.ReplaceAll(r.String(), "/", "_")
}

func (s *Store) last(r netip.Prefix) netip.Addr {
	b, err := os.ReadFile(filepath.Join(s.dir, lastName(r)))
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(string(b))
	if err != nil {
		return netip.Addr{} // a damaged hint costs nothing but the hint
	}
	return a
}

func (s *Store) used() (map[string]bool, error) {
	es, err := os.ReadDir(filepath.Join(s.dir, addrDir))
	if err != nil {
		return nil, fmt.Errorf("list allocations: %w", err)
	}
	used := make(map[string]bool, len(es))
	for _, e := range es {
		used[e.Name()] = true
	}
	return used, nil
}

// each calls fn for every allocation.
func (s *Store) each(fn func(netip.Addr, Owner) error) error {
	used, err := s.used()
	if err != nil {
		return err
	}
	for name := range used {
		a, err := netip.ParseAddr(name)
		if err != nil {
			continue // a temporary file of a process that was killed
		}
		b, err := os.ReadFile(filepath.Join(s.dir, addrDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read allocation of %s: %w", a, err)
		}
		id, ifName, _ := strings.Cut(string(b), " ")
		if err := fn(a, Owner{Container: id, Interface: ifName}); err != nil {
			return err
		}
	}
	return nil
}

// Owned returns the addresses of o, IPv4 first.
func (s *Store) Owned(o Owner) ([]netip.Addr, error) {
	var v4, v6 []netip.Addr
	err := s.each(func(a netip.Addr, x Owner) error {
		switch {
		case x != o:
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
		return nil
	})
	return append(v4, v6...), err
}

// Release frees the addresses of the owners that match.
func (s *Store) Release(match func(Owner) bool) error {
	verdict := map[Owner]bool{}
	return s.each(func(a netip.Addr, o Owner) error {
		free, asked := verdict[o]
		if !asked {
			free = match(o)
			verdict[o] = free
		}
		if !free {
			return nil
		}
		if err := os.Remove(filepath.Join(s.dir, addrDir, a.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("free address %s: %w", a, err)
		}
		return nil
	})
}

// write replaces a file of the store whole.
func (s *Store) write(name, content string) error {
	tmp := filepath.Join(s.dir, "tmp")
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write allocation: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("write allocation: %w", err)
	}
	return nil
}

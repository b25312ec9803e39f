package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/store"
)

const (
	// podCIDRSetting is the joiner's own ranges in the bundle's settings.
	podCIDRSetting = "pod-cidr"
	// podCIDRKeys are one key for each taken slot, its value the peer's name.
	podCIDRKeys = "/skein/podcidr/"
)

var errCIDRsExhausted = errors.New("all pod ranges of the cluster are taken")

// nthPodCIDRs is slot n of each cluster range.
func nthPodCIDRs(cluster []netip.Prefix, n uint64) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, c := range cluster {
		p, err := nthSubnet(c.Masked(), podPrefix(c.Addr()), n)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// nthSubnet is the n-th prefix of the given length within p.
func nthSubnet(p netip.Prefix, length int, n uint64) (netip.Prefix, error) {
	room := length - p.Bits()
	if room < 0 || bits.Len64(n) > room {
		return netip.Prefix{}, fmt.Errorf("%s, slot %d: %w", p, n, errCIDRsExhausted)
	}
	raw := p.Addr().AsSlice()
	// The slot's bits end where the new prefix ends; both lengths are whole
	// within the first 64 bits, which is all that cluster ranges use.
	head := make([]byte, 8)
	copy(head, raw)
	shifted := binary.BigEndian.Uint64(head) | n<<(64-length)
	binary.BigEndian.PutUint64(head, shifted)
	copy(raw, head)
	addr, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(addr, length), nil
}

// claimPodCIDRs takes the first free slot of the cluster's pod ranges for
// name, or returns the one name has. The claim is a guarded key, so that no
// two peers get the same however they race.
func claimPodCIDRs(ctx context.Context, s store.Store, cluster []netip.Prefix, name member.Name) ([]netip.Prefix, error) {
	for {
		view, err := s.Current(ctx)
		if err != nil {
			return nil, fmt.Errorf("claim pod range: %w", err)
		}
		taken := map[uint64]bool{}
		for e := range view.Ascend(podCIDRKeys, podCIDRKeys) {
			slot, err := strconv.ParseUint(strings.TrimPrefix(e.Key, podCIDRKeys), 10, 64)
			if err != nil {
				continue
			}
			if string(e.Value) == string(name) {
				return nthPodCIDRs(cluster, slot)
			}
			taken[slot] = true
		}
		slot := uint64(0)
		for taken[slot] {
			slot++
		}
		ranges, err := nthPodCIDRs(cluster, slot)
		if err != nil {
			return nil, err
		}
		key := podCIDRKeys + strconv.FormatUint(slot, 10)
		result, err := s.Propose(ctx, store.Txn{
			Guards: []store.Guard{{Key: key}},
			Ops:    []store.Op{{Key: key, Value: []byte(name)}},
		})
		if err != nil {
			return nil, fmt.Errorf("claim pod range: %w", err)
		}
		if result.Held {
			return ranges, nil
		}
	}
}

// releasePodCIDRs gives back the slot of a peer that has left.
func releasePodCIDRs(ctx context.Context, s store.Store, name member.Name) error {
	for e := range s.Local().Ascend(podCIDRKeys, podCIDRKeys) {
		if string(e.Value) != string(name) {
			continue
		}
		if _, err := s.Propose(ctx, store.Txn{
			Guards: []store.Guard{{Key: e.Key, Mod: e.Mod}},
			Ops:    []store.Op{{Key: e.Key, Delete: true}},
		}); err != nil {
			return fmt.Errorf("release pod range: %w", err)
		}
	}
	return nil
}

func parsePrefixes(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for one := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(one)
		if err != nil {
			return nil, fmt.Errorf("pod range: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

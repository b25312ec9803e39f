package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/memberlist"

	"skein.dev/skein/api/member"
)

// meta is what a peer says of itself in gossip. Its encoding is deterministic,
// so that it changes only when the peer does.
type meta struct {
	ServerID  member.ServerID `json:"id"`
	Addresses []netip.Addr    `json:"addr"`
	Port      uint16          `json:"port"`
	Zone      string          `json:"zone,omitempty"`
	Version   string          `json:"v,omitempty"`
	Boot      string          `json:"boot"`
}

func encodeMeta(m Member) ([]byte, error) {
	data, err := json.Marshal(meta{
		ServerID: m.ServerID, Addresses: m.Addresses, Port: m.Port,
		Zone: m.Zone, Version: m.Version, Boot: m.Boot,
	})
	if err != nil {
		return nil, fmt.Errorf("encode gossip metadata: %w", err)
	}
	if len(data) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("encode gossip metadata: %d bytes, more than %d: too many addresses, or too long a zone",
			len(data), memberlist.MetaMaxSize)
	}
	return data, nil
}

func decodeMeta(n *memberlist.Node) (Member, error) {
	var m meta
	if err := json.Unmarshal(n.Meta, &m); err != nil {
		return Member{}, fmt.Errorf("decode metadata of %s: %w", n.Name, err)
	}
	invalid := func(a netip.Addr) bool { return !a.IsValid() }
	if m.ServerID == "" || len(m.Addresses) == 0 || m.Boot == "" || slices.ContainsFunc(m.Addresses, invalid) {
		return Member{}, errors.New("metadata of " + n.Name + " is not a peer's")
	}
	return Member{
		Name: member.Name(n.Name), ServerID: m.ServerID, Addresses: m.Addresses, Port: m.Port,
		Zone: m.Zone, Version: m.Version, Boot: m.Boot,
	}, nil
}

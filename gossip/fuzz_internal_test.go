package gossip

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/hashicorp/memberlist"
)

// FuzzMeta reads what a peer says of itself: what is accepted can be dialed,
// and is said again in the same words.
func FuzzMeta(f *testing.F) {
	good, err := encodeMeta(Member{Name: "a", ServerID: "s", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Port: 6443, Boot: "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a", good)
	f.Add("", []byte(`{"id":"s","addr":[""],"port":0,"boot":"b"}`))
	f.Add("a", []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		m, err := decodeMeta(&memberlist.Node{Name: name, Meta: data})
		if err != nil {
			return
		}
		for _, a := range m.Addresses {
			if !a.IsValid() {
				t.Fatalf("accepted without an address to dial: %+v", m)
			}
		}
		said, err := encodeMeta(m)
		if err != nil {
			return // too long to be said
		}
		again, err := decodeMeta(&memberlist.Node{Name: name, Meta: said})
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

// FuzzNotice takes any message that a member may send.
func FuzzNotice(f *testing.F) {
	f.Add([]byte(`{"name":"a","boot":"b","what":"Leaving"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		p := &Pool{}
		delegate{p}.NotifyMsg(data)
		delegate{p}.MergeRemoteState(data, true)
	})
}

package pressure

import (
	"cmp"
	"slices"
	"time"
)

// The policy of image collection, with upstream's defaults: above High percent
// of the disk, unused images go until it is Low or less, the longest unused
// first and none that came within MinAge, because its container may just be made.
const (
	High   = 85
	Low    = 80
	MinAge = 2 * time.Minute
)

// Image is an image that the node has.
type Image struct {
	ID     string
	Bytes  int64
	Pinned bool
	InUse  bool
}

type sighting struct{ first, used time.Time }

// Images remembers since when images are there and when they were last used.
// Its zero value knows none.
type Images struct {
	seen map[string]sighting
}

// Look takes note of all images of the node.
func (m *Images) Look(all []Image, now time.Time) {
	next := make(map[string]sighting, len(all))
	for _, i := range all {
		s, known := m.seen[i.ID]
		if !known {
			s.first = now
		}
		if i.InUse {
			s.used = now
		}
		next[i.ID] = s
	}
	m.seen = next
}

// Excess is how many bytes of a disk have to be freed by the policy, with
// another high mark than High perhaps; 100 frees none.
func Excess(disk Sample, high int64) int64 {
	if high >= 100 || disk.Capacity <= 0 || 100-disk.Available*100/disk.Capacity < high {
		return 0
	}
	return disk.Capacity*(100-min(high, Low))/100 - disk.Available
}

// Unused are the images that may go, in the order in which they do.
func (m *Images) Unused(all []Image, now time.Time) []Image {
	out := slices.DeleteFunc(slices.Clone(all), func(i Image) bool {
		return i.Pinned || i.InUse || now.Sub(m.seen[i.ID].first) < MinAge
	})
	slices.SortFunc(out, func(a, b Image) int {
		x, y := m.seen[a.ID], m.seen[b.ID]
		return cmp.Or(x.used.Compare(y.used), x.first.Compare(y.first), cmp.Compare(a.ID, b.ID))
	})
	return out
}

package daemon

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheHeapGrowsAtWorkAndShrinksAtRest(t *testing.T) {
	t.Parallel()
	p := pace{atRest: true}
	type said struct {
		Percent int
		Ended   bool
	}
	for i, step := range []struct {
		between time.Duration
		want    said
	}{
		{2 * time.Minute, said{}},                 // nothing happens
		{10 * time.Second, said{}},                // a little happens
		{time.Second, said{percentAtWork, false}}, // work begins
		{100 * time.Millisecond, said{}},
		{10 * time.Second, said{}},               // a lull is no rest
		{time.Minute, said{percentAtRest, true}}, // the work has ended
		{2 * time.Minute, said{}},
	} {
		var got said
		got.Percent, got.Ended = p.step(step.between)
		if d := cmp.Diff(step.want, got); d != "" {
			t.Errorf("step %d, %v after the last: (-want +got)\n%s", i, step.between, d)
		}
	}
}

func TestOnlyPagesThatTheFileHasAsWellAreGivenBack(t *testing.T) {
	t.Parallel()
	const smaps = `00400000-03b48000 r-xp 00000000 fe:00 123                        /opt/my skein
Rss:               12000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
03b48000-087f3000 r--p 03748000 fe:00 123                        /opt/my skein
Anonymous:             0 kB
087f3000-087f4000 r--p 083f3000 fe:00 123                        /opt/my skein
Anonymous:             4 kB
087f4000-08975000 rw-p 083f4000 fe:00 123                        /opt/my skein
Anonymous:             0 kB
08975000-0a9d3000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f7b5c000000-7f7b5c021000 r--p 00000000 fe:00 9                  /opt/other
Anonymous:             0 kB
7ffd1c5f4000-7ffd1c615000 rw-p 00000000 00:00 0                  [stack]
Anonymous:             0 kB
`
	want := []span{{0x400000, 0x3b48000}, {0x3b48000, 0x87f3000}}
	if d := cmp.Diff(want, programPages(smaps, "/opt/my skein"), cmp.AllowUnexported(span{})); d != "" {
		t.Errorf("pages to give back (-want +got)\n%s", d)
	}
}

func TestAProgramGoesOnWithoutThePagesItGaveBack(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no /proc here:", err)
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if len(programPages(string(raw), exe)) == 0 {
		t.Fatalf("no pages of %s found in:\n%s", exe, raw)
	}
	trim(t.Context(), slog.New(slog.DiscardHandler))
}

func TestACollectionIsNoticed(t *testing.T) {
	t.Parallel()
	for range 3 {
		c := collected()
		trim(t.Context(), slog.New(slog.DiscardHandler)) // collects
		select {
		case <-c:
		case <-time.After(time.Minute):
			t.Fatal("the collection was not noticed within a minute")
		}
	}
}

package daemon

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trimAfter is when a peer that has started is at rest.
const trimAfter = 15 * time.Second

// How much the heap may grow, in percent of what is alive, before it is
// collected. At rest little is allocated, so collecting early costs nothing
// and keeps a peer small; at work it would cost as much as the work.
const (
	percentAtRest  = 40
	percentStarted = 100
	percentAtWork  = 200
)

// Collections that follow each other so soon mean work, so late mean rest.
const (
	working = 2 * time.Second
	resting = 30 * time.Second
)

// pace follows how often the heap is collected.
type pace struct{ atRest bool }

// step tells what a collection means that came so long after the one before:
// the new percentage, 0 to leave it, and whether work has just ended, so that
// what it took can be given back.
func (p *pace) step(between time.Duration) (percent int, ended bool) {
	switch {
	case between < working && p.atRest:
		p.atRest = false
		return percentAtWork, false
	case between >= resting && !p.atRest:
		p.atRest = true
		return percentAtRest, true
	}
	return 0, false
}

// ease keeps an idle peer small: it gives back to the system what starting
// took, and after each spell of work what the work took, and lets the heap
// grow only while there is work. It costs nothing between collections. Who
// sets GOGC keeps the heap in his own hands. rest is called when work has
// ended, to let go of what only work needs.
func ease(log *slog.Logger, rest func()) func(context.Context) error {
	return func(ctx context.Context) error {
		if pause(ctx, trimAfter) != nil {
			return nil
		}
		rest()
		trim(ctx, log)
		if os.Getenv("GOGC") != "" {
			<-ctx.Done()
			return nil
		}
		p := pace{atRest: true}
		debug.SetGCPercent(percentAtRest)
		defer debug.SetGCPercent(percentStarted)
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-ctx.Done():
				return nil
			case <-collected():
			}
			percent, ended := p.step(time.Since(last))
			if percent != 0 {
				debug.SetGCPercent(percent)
			}
			if ended {
				rest()
				trim(ctx, log)
			}
		}
	}
}

// collected returns a channel that is closed by the next collection.
func collected() <-chan struct{} {
	c := make(chan struct{})
	sentinel := new([64]byte) // too large to share a block with others that live
	runtime.AddCleanup(sentinel, func(c chan struct{}) { close(c) }, c)
	return c
}

// trim gives back unused memory of the heap, which the collector would keep
// for the next burst, and the pages of the program that are not in use: what
// starting ran is most of them, and it does not run again.
func trim(ctx context.Context, log *slog.Logger) {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		log.DebugContext(ctx, "own memory is not known", "err", err)
		return
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		log.DebugContext(ctx, "own program is not known", "err", err)
		return
	}
	for _, r := range programPages(string(maps), exe) {
		// They are read again from the file, or its cache, when they are needed.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			log.DebugContext(ctx, "pages of the program stay", "err", errno)
		}
	}
}

// span is a range of addresses.
type span struct{ from, to uintptr }

// programPages finds, in the text of /proc/PID/smaps, what of the program at
// exe is mapped, can only be read and never was written: there the file has
// all that memory has. Where the loader has put addresses in (RELRO), a range
// is read-only too, but has pages of its own, and without them the program
// would jump to nowhere.
func programPages(smaps, exe string) []span {
	var out []span
	var at span // the range that the lines speak of, empty if it is none of ours
	for line := range strings.Lines(smaps) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-"):
			at = span{}
			if strings.Join(fields[5:], " ") == exe && !strings.Contains(fields[1], "w") {
				at = addresses(fields[0])
			}
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			at = span{} // of no file
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && at != (span{}):
			out = append(out, at)
		}
	}
	return out
}

// addresses reads "from-to" in hexadecimal; what is no range is empty.
func addresses(text string) span {
	from, to, _ := strings.Cut(text, "-")
	a, err := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	if err != nil || err2 != nil || a >= b {
		return span{}
	}
	return span{uintptr(a), uintptr(b)}
}

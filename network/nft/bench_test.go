package nft_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skein.dev/skein/network/lb"
	"skein.dev/skein/network/nft"
	"skein.dev/skein/network/nstest"
)

// cpu is the processor time of the process so far: on a shared machine it
// says more than the wall clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowd is n services with three backends each.
func crowd(n int) []lb.Service {
	var all []lb.Service
	for i := range n {
		s := lb.Service{
			Front: lb.Front{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Protocol: lb.TCP, Port: 80},
			Name:  fmt.Sprintf("ns/s%d", i),
		}
		for j := range 3 {
			a := netip.AddrFrom4([4]byte{10, 244 + byte(j), byte(i >> 8), byte(i)})
			s.Backends = append(s.Backends, netip.AddrPortFrom(a, 8080))
		}
		all = append(all, s)
	}
	return all
}

// BenchmarkStart writes 10,000 services into an empty kernel, and then over
// what is there, as after a restart.
func BenchmarkStart(b *testing.B) {
	all := crowd(10000)
	for _, warm := range []bool{false, true} {
		b.Run(fmt.Sprintf("restart=%v", warm), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				path := nstest.New(b).Path
				write := func() {
					t, err := nft.New(nft.Config{NetNS: path})
					if err != nil {
						b.Fatal(err)
					}
					if err := t.Apply(b.Context(), lb.Change{Set: all}); err != nil {
						b.Fatal(err)
					}
				}
				if warm {
					write()
				}
				b.StartTimer()
				before := cpu(b)
				write()
				b.ReportMetric(float64((cpu(b) - before).Milliseconds()), "cpu-ms")
			}
		})
	}
}

// BenchmarkChange changes the backends of one service among 10 and 10,000.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			t, err := nft.New(nft.Config{NetNS: nstest.New(b).Path})
			if err != nil {
				b.Fatal(err)
			}
			all := crowd(n)
			if err := t.Apply(b.Context(), lb.Change{Set: all}); err != nil {
				b.Fatal(err)
			}
			s := all[n/2]
			before := cpu(b)
			for i := 0; b.Loop(); i++ {
				s.Backends = all[n/2].Backends[:2+i%2]
				if err := t.Apply(b.Context(), lb.Change{Set: []lb.Service{s}}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

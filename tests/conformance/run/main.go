// Command run makes a lab of three peers, runs Kubernetes' own conformance
// tests against it and says how far Skein is.
// Its invariant: every test that was chosen is counted, once; one that did
// not run, for whatever reason, has not passed.
//
//	go run ./run -skein bin/skein -programs build/conformance/bin -images build/conformance/images \
//		-out build/conformance -focus 'sig-apps' -procs 2
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	skein, programs, images, out string

	choice     choice
	procs      int
	timeout    time.Duration
	kubeconfig string // of a mesh that exists; empty: a lab is made
	labDir     string
	keep       bool
	spread     bool
	killLeader time.Duration // between kills of the store's leader; zero: none
	document   string
	commit     string
}

func main() {
	c := parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func parse() config {
	var c config
	flag.StringVar(&c.skein, "skein", "bin/skein", "skein program that makes the lab")
	flag.StringVar(&c.programs, "programs", "", "directory of e2e.test, ginkgo and kubectl")
	flag.StringVar(&c.images, "images", "", "directory whose .tar files every peer imports")
	flag.StringVar(&c.out, "out", "", "directory for reports, logs and the lab")
	flag.StringVar(&c.choice.focus, "focus", "", "run only the tests that match this regular expression")
	flag.StringVar(&c.choice.skip, "skip", "", "do not run the tests that match this regular expression")
	flag.StringVar(&c.choice.list, "list", "", "file of the names of the tests to run, one a line")
	flag.IntVar(&c.procs, "procs", 1, "how many tests run at a time, apart from serial ones")
	flag.DurationVar(&c.timeout, "timeout", 2*time.Hour, "for all tests of one SIG")
	flag.StringVar(&c.kubeconfig, "kubeconfig", "", "administrator's kubeconfig of a mesh that exists, instead of a lab")
	flag.StringVar(&c.labDir, "lab-dir", "", "directory of the lab (default OUT/lab, or one below /tmp where that path is too long for sockets)")
	flag.BoolVar(&c.keep, "keep", false, "leave the lab as it is at the end; the next run goes on with it")
	flag.BoolVar(&c.spread, "spread", false, "lead the suite's connections to all peers in turn")
	flag.DurationVar(&c.killLeader, "kill-leader", 0, "kill the peer that leads the store at this interval, and start it again")
	flag.StringVar(&c.document, "document", "", "file to write the result into, as Markdown")
	flag.StringVar(&c.commit, "commit", "", "commit that the result is of")
	flag.Parse()
	return c
}

func run(ctx context.Context, c config) error {
	tests, err := c.choice.tests()
	if err != nil {
		return err
	}
	for _, p := range []*string{&c.skein, &c.programs, &c.images, &c.out} {
		if *p, err = filepath.Abs(*p); err != nil {
			return fmt.Errorf("resolve path: %w", err)
		}
	}
	if c.labDir == "" {
		c.labDir = labDir(c.out)
	}
	begin := time.Now()
	var k *killer
	if c.kubeconfig == "" {
		l := lab{skein: c.skein, dir: c.labDir, out: os.Stderr}
		m, err := c.lab(ctx, l)
		if err != nil {
			return err
		}
		defer c.leave(ctx, l, m)
		if c.kubeconfig, err = l.do(ctx, "kubeconfig"); err != nil {
			return err
		}
		if c.killLeader > 0 {
			k = &killer{lab: l, every: c.killLeader, kubeconfig: c.kubeconfig, back: m.start, out: os.Stdout}
		}
	} else if c.killLeader > 0 {
		return errors.New("kill the leader: only a lab of our own: not with -kubeconfig")
	}
	if c.spread {
		b, err := newBalancer(ctx, c.kubeconfig)
		if err != nil {
			return err
		}
		defer b.close()
		if c.kubeconfig, err = b.kubeconfig(c.out); err != nil {
			return err
		}
	}
	stopKiller := k.start(ctx)
	results := suite{config: c, out: os.Stdout}.run(ctx, tests)
	stopKiller()
	for i, r := range results {
		results[i].kills = k.during(r.begin, r.begin.Add(r.took))
	}
	sum := summarize(results, time.Since(begin))
	sum.print(os.Stdout)
	if c.document != "" {
		if err := sum.document(c); err != nil {
			return err
		}
	}
	if sum.total.passed != sum.total.total {
		return errors.New("not all tests passed")
	}
	return nil
}

// labDir is the default directory of the lab. The path of a peer's state is at
// most 40 bytes long, for the sockets in it.
func labDir(out string) string {
	dir := filepath.Join(out, "lab")
	if len(dir)+len("/p1/run") > 40 {
		return filepath.Join(os.TempDir(), fmt.Sprintf("conformance-%08x", crc32.ChecksumIEEE([]byte(out))))
	}
	return dir
}

// lab makes the lab with all that the suite needs there.
func (c config) lab(ctx context.Context, l lab) (*mirrors, error) {
	m := &mirrors{lab: l, program: filepath.Join(c.programs, "mirror"), images: c.images}
	err := l.up(ctx, c.images)
	if err != nil {
		c.leave(ctx, l, m)
		return nil, err
	}
	peers, err := l.peers(ctx)
	for _, p := range peers {
		if err == nil {
			err = m.start(ctx, p)
		}
	}
	if err != nil {
		c.leave(ctx, l, m)
		return nil, err
	}
	return m, nil
}

// leave ends what the suite needed of the lab, and the lab unless it is kept.
func (c config) leave(ctx context.Context, l lab, m *mirrors) {
	m.stop()
	if !c.keep {
		_ = l.down(context.WithoutCancel(ctx)) // it has told why
	}
}

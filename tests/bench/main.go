// Command bench measures what a mesh costs and what it does, on labs that it
// makes in a directory of its own and takes down again, and prints a table of
// the figures beside their goals.
//
// Its invariant: every loop ends after a count or a time, nothing leaves
// loopback and the labs' namespaces, and no lab outlives the program unless it
// is killed outright.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	skein, images, output string
	only                  []string
	idle, each            time.Duration
}

// names are what -only takes, in the order of the run.
func names() []string {
	return []string{"size", "up", "ready", "pod", "create", "get", "list", "watch", "memory", "idle", "dns"}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == loadCommand {
		return loadMain(ctx, args[1:], os.Stdout)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root")
	}
	r := newReport()
	r.Commit = commit(ctx)
	b := &bench{options: o, report: r}
	err = b.all(ctx)
	r.finish()
	old, oldErr := r.earlier(historyDir)
	err = errors.Join(err, oldErr, r.save(historyDir))
	if o.output == "json" {
		return errors.Join(err, r.writeJSON(os.Stdout))
	}
	return errors.Join(err, r.writeTable(os.Stdout, old))
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.skein, "skein", "bin/skein", "the program to measure")
	fs.StringVar(&o.images, "images", "build/images", "directory of the example images")
	fs.StringVar(&o.output, "o", "table", "table or json")
	only := fs.String("only", strings.Join(names(), ","), "sections to run, by commas")
	fs.DurationVar(&o.idle, "idle", 10*time.Minute, "length of the idle window")
	fs.DurationVar(&o.each, "each", 10*time.Second, "length of each load")
	if err := fs.Parse(args); err != nil {
		return o, fmt.Errorf("parse flags: %w", err)
	}
	o.only = strings.Split(*only, ",")
	for _, s := range o.only {
		if !slices.Contains(names(), s) {
			return o, fmt.Errorf("section %q: there are %s", s, strings.Join(names(), ", "))
		}
	}
	if o.output != "table" && o.output != "json" {
		return o, fmt.Errorf("output %q: want table or json", o.output)
	}
	if o.idle <= 0 || o.each <= 0 {
		return o, errors.New("-idle and -each must be positive")
	}
	return o, nil
}

// bench runs the sections.
type bench struct {
	options
	report *report
}

func (b *bench) wants(sections ...string) bool {
	return slices.ContainsFunc(sections, func(s string) bool { return slices.Contains(b.only, s) })
}

// all runs every wanted section: those of a single peer on one lab, those of
// three on another. A section that fails does not stop the others.
func (b *bench) all(ctx context.Context) error {
	var errs []error
	if b.wants("size") {
		errs = append(errs, b.sizes())
	}
	if b.wants("up", "ready", "pod", "create", "get") {
		errs = append(errs, b.withLab(ctx, 1, b.onOne))
	}
	if b.wants("list", "watch", "memory") && ctx.Err() == nil { // full of objects: a lab of their own
		errs = append(errs, b.withLab(ctx, 1, b.onFull))
	}
	if b.wants("idle", "dns", "create", "get") && ctx.Err() == nil {
		errs = append(errs, b.withLab(ctx, 3, b.onThree))
	}
	return errors.Join(errs...)
}

func (b *bench) onOne(ctx context.Context, l *lab) error {
	var errs []error
	if b.wants("up") {
		b.report.add("up", "skein up to Ready, one peer (with the lab's own work)", l.upTook.Seconds(), "s", "3")
	}
	if b.wants("pod") {
		errs = append(errs, b.pods(ctx, l))
	}
	errs = append(errs, b.requests(ctx, l, "p1", "one peer"))
	if b.wants("ready") && ctx.Err() == nil { // last: it stops the daemon
		errs = append(errs, b.ready(ctx, l, "p1"))
	}
	return errors.Join(errs...)
}

// onFull measures a peer that holds objects; each step adds to what is there.
func (b *bench) onFull(ctx context.Context, l *lab) error {
	var errs []error
	if b.wants("memory") {
		errs = append(errs, b.memory(ctx, l, "of a new peer"))
	}
	if b.wants("list", "watch") {
		errs = append(errs, b.lists(ctx, l))
	}
	if b.wants("memory") && ctx.Err() == nil {
		errs = append(errs, b.fullMemory(ctx, l))
	}
	return errors.Join(errs...)
}

func (b *bench) onThree(ctx context.Context, l *lab) error {
	var errs []error
	if b.wants("idle") { // first: loads would leave their memory behind
		errs = append(errs, b.idlePeers(ctx, l))
	}
	if b.wants("dns") {
		errs = append(errs, b.dns(ctx, l))
	}
	if b.wants("create", "get") {
		m, err := l.status(ctx, "p1")
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		leader, follower := m.Leaders.Store, ""
		for _, name := range l.peers {
			if name != leader {
				follower = name
			}
		}
		errs = append(errs,
			b.requests(ctx, l, leader, "leader of three"), b.requests(ctx, l, follower, "follower of three"))
	}
	return errors.Join(errs...)
}

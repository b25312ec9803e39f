package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// loadCommand is the first argument that makes this program a load generator.
const loadCommand = "load"

// maxRequests bounds every load whatever its time.
const maxRequests = 2_000_000

// loadOptions say what load to make.
type loadOptions struct {
	kind, kubeconfig, server, name string
	namespace, accept              string
	gzip                           bool
	workers                        int
	limit                          time.Duration
	count                          int64
}

// request is one request of a load; number counts from 0 over all workers.
type request func(ctx context.Context, number int64) error

func loadMain(ctx context.Context, args []string, out io.Writer) error {
	var o loadOptions
	fs := flag.NewFlagSet(loadCommand, flag.ContinueOnError)
	fs.StringVar(&o.kind, "kind", "", "what to do: create, get, fill, list, watch, define, pod or dns")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "file with the API's address (default $KUBECONFIG)")
	fs.StringVar(&o.server, "server", "", "address and port of the DNS server")
	fs.StringVar(&o.name, "name", "", "name to ask for")
	fs.StringVar(&o.namespace, "namespace", "bench", "where fill, list and watch work")
	fs.StringVar(&o.accept, "accept", "application/json", "media type of list")
	fs.BoolVar(&o.gzip, "gzip", false, "have lists compressed")
	fs.IntVar(&o.workers, "workers", 1, "requests at a time")
	fs.DurationVar(&o.limit, "limit", 10*time.Second, "how long")
	fs.Int64Var(&o.count, "count", maxRequests, "how many at most")
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("parse flags: %w", err)
	}
	if o.workers < 1 || o.workers > 4096 || o.limit <= 0 || o.limit > 10*time.Minute || o.count < 1 || o.count > maxRequests {
		return errors.New("load: workers, limit or count is out of bounds")
	}
	res, err := o.run(ctx)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(res); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func (o loadOptions) run(ctx context.Context) (loadResult, error) {
	switch o.kind {
	case "create":
		return o.creates(ctx)
	case "get":
		return o.gets(ctx)
	case "fill":
		return o.fill(ctx)
	case "list":
		return o.lists(ctx)
	case "watch":
		return o.watches(ctx)
	case "define":
		return o.definitions(ctx)
	case "pod":
		return o.pods(ctx)
	case "dns":
		return o.queries(ctx)
	}
	return loadResult{}, fmt.Errorf("load of kind %q: want create, get, fill, list, watch, define, pod or dns", o.kind)
}

// drive has each worker make requests one after the other until the time or
// the count is over. Requests under way at the end are finished and count.
func (o loadOptions) drive(ctx context.Context, worker func(i int) request) loadResult {
	var (
		next  atomic.Int64
		group sync.WaitGroup
		mu    sync.Mutex // guards the fields below
		all   []time.Duration
		errs  int
		last  error
	)
	begin := time.Now()
	for i := range o.workers {
		do := worker(i)
		group.Go(func() {
			var took []time.Duration
			failed, err := 0, error(nil)
			for ctx.Err() == nil && time.Since(begin) < o.limit {
				n := next.Add(1) - 1
				if n >= o.count {
					break
				}
				start := time.Now()
				if e := do(ctx, n); e != nil {
					failed, err = failed+1, e
					continue
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, took...), errs+failed
			if err != nil {
				last = err
			}
		})
	}
	group.Wait()
	res := summarize(all, time.Since(begin))
	res.Errors = errs
	if last != nil {
		res.Error = last.Error()
	}
	return res
}

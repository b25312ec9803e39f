package sim_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"skein.dev/skein/api/store"
)

// Operations of clients on one register each. Values are unique, so that a
// value stands for its revision too.
type (
	input struct {
		key  string
		kind string // get, put, cas
		from string // cas: the value it replaces
		to   string
	}
	output struct {
		value   string // get: read; cas that failed: what stood there
		held    bool   // cas
		unknown bool
	}
)

// register is what the store promises for one key.
func register() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			var keys []string
			for _, op := range history {
				k := op.Input.(input).key
				if byKey[k] == nil {
					keys = append(keys, k)
				}
				byKey[k] = append(byKey[k], op)
			}
			slices.Sort(keys)
			var out [][]porcupine.Operation
			for _, k := range keys {
				out = append(out, byKey[k])
			}
			return out
		},
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) {
			now, i, o := state.(string), in.(input), out.(output)
			switch {
			case i.kind == "get":
				return o.value == now, now
			case i.kind == "put":
				return true, i.to
			case o.unknown && now == i.from:
				return true, i.to
			case o.unknown:
				return true, now
			case o.held:
				return now == i.from, i.to
			default:
				return now != i.from && o.value == now, now
			}
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
	}
}

// history records operations with a clock that orders all of them: the
// bubble's own stands still while things happen.
type history struct {
	mu      sync.Mutex // guards the fields below
	clock   int64
	ops     []porcupine.Operation
	unknown int
	revs    map[store.Revision]string // of acknowledged writes
	twice   []string
}

func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

func (h *history) add(client int, call int64, in input, out output) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	op := porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: h.clock}
	if out.unknown {
		h.unknown++
		op.Return = 1 << 40 // it may take effect at any time
	}
	h.ops = append(h.ops, op)
}

func (h *history) acknowledge(rev store.Revision, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.revs[rev]; ok {
		h.twice = append(h.twice, fmt.Sprintf("%s and %s at revision %d", old, value, rev))
	}
	h.revs[rev] = value
}

// linearizable reports whether some order explains all that clients saw.
func (h *history) linearizable() porcupine.CheckResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	res := porcupine.Ok
	if !porcupine.CheckOperations(register(), h.ops) {
		res = porcupine.Illegal
	}
	return res
}

// client uses one peer's store, whoever leads, until ctx ends. A client of a
// peer that is down waits.
func (m *mesh) client(ctx context.Context, h *history, id int, p *peer, rng *rand.Rand, keys int) {
	for n := 0; ctx.Err() == nil; n++ {
		pause := time.NewTimer(time.Duration(rng.Int64N(int64(400 * time.Millisecond))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		s := p.running()
		if s == nil {
			continue
		}
		key := fmt.Sprintf("/r/%d", rng.IntN(keys))
		value := fmt.Sprintf("%s-%d-%d", p.id, id, n)
		op, cancel := context.WithTimeout(ctx, 2*time.Second)
		switch rng.IntN(4) {
		case 0, 1:
			h.get(op, s, id, key)
		case 2:
			h.write(op, s, id, input{key: key, kind: "put", to: value}, nil)
		default:
			if e, ok := h.get(op, s, id, key); ok {
				h.cas(op, s, id, key, e, value)
			}
		}
		cancel()
	}
}

func (h *history) get(ctx context.Context, s store.Store, id int, key string) (*store.Entry, bool) {
	call := h.tick()
	v, err := s.Current(ctx)
	if err != nil {
		return nil, false // a read that failed says nothing
	}
	e := v.Get(key)
	out := output{}
	if e != nil {
		out.value = string(e.Value)
	}
	h.add(id, call, input{key: key, kind: "get"}, out)
	return e, true
}

func (h *history) cas(ctx context.Context, s store.Store, id int, key string, e *store.Entry, value string) {
	g := store.Guard{Key: key}
	in := input{key: key, kind: "cas", to: value}
	if e != nil {
		g.Mod, in.from = e.Mod, string(e.Value)
	}
	h.write(ctx, s, id, in, []store.Guard{g})
}

func (h *history) write(ctx context.Context, s store.Store, id int, in input, guards []store.Guard) {
	call := h.tick()
	res, err := s.Propose(ctx, store.Txn{Guards: guards, Ops: []store.Op{{Key: in.key, Value: []byte(in.to)}}})
	switch {
	case err == nil:
		out := output{held: res.Held}
		if res.Held {
			h.acknowledge(res.Revision, in.to)
		} else if res.Failed != nil {
			out.value = string(res.Failed.Value)
		}
		h.add(id, call, in, out)
	case errors.Is(err, store.ErrUnknown):
		h.add(id, call, in, output{unknown: true})
	default: // all other errors promise that nothing happened
	}
}

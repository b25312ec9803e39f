package run

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// pulse calls progress while no worker hangs. A ticker alone would say that
// a loop lives whose workers are all stuck, so each worker notes by when its
// reconcile must be done and the ticker stays silent once one is late.
type pulse struct {
	progress func()
	hung     time.Duration

	mu    sync.Mutex // guards the field below
	beats []*beat
}

// beat is one worker's deadline in Unix nanoseconds; 0: it is idle.
type beat struct {
	by   atomic.Int64
	hung time.Duration
}

func (p *pulse) join() *beat {
	b := &beat{hung: p.hung}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats = append(p.beats, b)
	return b
}

func (b *beat) begin(timeout time.Duration) { b.by.Store(time.Now().Add(timeout + b.hung).UnixNano()) }
func (b *beat) end()                        { b.by.Store(0) }

func (p *pulse) run(ctx context.Context) {
	if p.progress == nil {
		return
	}
	tick := time.NewTicker(Heartbeat)
	defer tick.Stop()
	for {
		if p.healthy(time.Now()) {
			p.progress()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *pulse) healthy(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.beats {
		if by := b.by.Load(); by != 0 && now.UnixNano() > by {
			return false
		}
	}
	return true
}

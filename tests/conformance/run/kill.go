package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// offTime is how long a killed peer stays off: the others have confirmed by
// then that it is dead, and have a new leader.
const offTime = 15 * time.Second

// kill is one end of a leader: the peer's name and when.
type kill struct {
	peer string
	at   time.Time
}

// killer kills the peer that leads the store, containers included, as when the
// power fails, and starts it again. There is always one peer off at most.
type killer struct {
	lab
	every      time.Duration
	kubeconfig string
	back       func(ctx context.Context, p peer) error // what the suite needs of a peer that is back
	out        io.Writer

	mu    sync.Mutex // guards the fields below
	kills []kill
}

// start has it kill until it is stopped. A nil killer kills nobody.
func (k *killer) start(ctx context.Context) (stop func()) {
	if k == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { k.run(ctx) })
	return func() {
		cancel()
		work.Wait()
	}
}

// run kills until ctx ends; it leaves all peers started.
func (k *killer) run(ctx context.Context) {
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := k.once(ctx); err != nil && ctx.Err() == nil {
			_, _ = fmt.Fprintf(k.out, "kill the leader: %v\n", err) // a person's terminal
		}
	}
}

func (k *killer) once(ctx context.Context) error {
	name, err := k.leader(ctx)
	if err != nil {
		return err
	}
	peers, err := k.peers(ctx)
	if err != nil {
		return err
	}
	// From here on it goes to its end, so that the peer is not left off.
	whole := context.WithoutCancel(ctx)
	if _, err := k.do(whole, "kill", name); err != nil {
		return err
	}
	at := time.Now()
	k.mu.Lock()
	k.kills = append(k.kills, kill{peer: name, at: at})
	k.mu.Unlock()
	_, _ = fmt.Fprintf(k.out, "%s killed %s, which led the store\n", at.UTC().Format(time.TimeOnly), name)
	select {
	case <-ctx.Done():
	case <-time.After(offTime):
	}
	if _, err := k.do(whole, "start", name); err != nil {
		return err
	}
	for _, p := range peers {
		if p.Name == name {
			err = k.back(ctx, p)
		}
	}
	_, _ = fmt.Fprintf(k.out, "%s %s is back\n", time.Now().UTC().Format(time.TimeOnly), name)
	return err
}

// leader asks the mesh who leads the store.
func (k *killer) leader(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, k.skein, "status", "-o", "json")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.kubeconfig)
	cmd.Stderr = k.out
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask who leads: %w", err)
	}
	var s struct {
		Leaders struct {
			Store string `json:"store"`
		} `json:"leaders"`
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return "", fmt.Errorf("ask who leads: %w", err)
	}
	if s.Leaders.Store == "" {
		return "", errors.New("nobody leads the store")
	}
	return s.Leaders.Store, nil
}

// during are the kills within the time, which a nil killer has none of.
func (k *killer) during(begin, end time.Time) []kill {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []kill
	for _, one := range k.kills {
		if !one.at.Before(begin) && !one.at.After(end) {
			out = append(out, one)
		}
	}
	return out
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// lab is a mesh of three peers on this machine, in a directory of its own and
// so apart from any other lab.
type lab struct {
	skein, dir string
	out        io.Writer
}

// up makes the lab, or goes on with the one that is there.
func (l lab) up(ctx context.Context, images string) error {
	if err := os.MkdirAll(filepath.Dir(l.dir), 0o755); err != nil {
		return fmt.Errorf("make lab: %w", err)
	}
	_, err := l.do(ctx, "up", "--peers", "3", "--images", images)
	return err
}

// peer is one of the lab.
type peer struct {
	Name string `json:"name"`
	Dir  string `json:"dir"`
}

func (l lab) peers(ctx context.Context) ([]peer, error) {
	text, err := l.do(ctx, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var s struct {
		Peers []peer `json:"peers"`
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return nil, fmt.Errorf("lab status: %w", err)
	}
	return s.Peers, nil
}

func (l lab) down(ctx context.Context) error {
	_, err := l.do(ctx, "down")
	return err
}

func (l lab) do(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.skein, append([]string{"lab", verb, "--lab-dir", l.dir}, args...)...)
	cmd.Stderr = l.out
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("lab %s: %w", verb, err)
	}
	return strings.TrimSpace(string(out)), nil
}

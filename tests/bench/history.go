package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// historyDir keeps the figures of each commit that was measured here.
const historyDir = "build/bench"

// commit names the state that is measured: a commit, with "-dirty" when files
// differ from it, "unknown" outside of git.
func commit(ctx context.Context) string {
	raw, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(raw))
}

// save writes r among the figures of its commit: what an earlier run of this
// commit measured and this one did not stays.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of figures: %w", err)
	}
	path := filepath.Join(dir, r.Commit+".json")
	all := *r
	old, err := loadReport(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range old.Figures {
		if r.find(f) == nil {
			all.Figures = append(all.Figures, f)
		}
	}
	raw, err := json.MarshalIndent(&all, "", "  ")
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("save figures: %w", err)
	}
	return nil
}

func loadReport(path string) (report, error) {
	var r report
	raw, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read figures: %w", err)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("read figures of %s: %w", path, err)
	}
	return r, nil
}

// find returns the figure that measures the same as f, or nil.
func (r *report) find(f figure) *figure {
	i := slices.IndexFunc(r.Figures, func(x figure) bool {
		return x.Section == f.Section && x.What == f.What && x.Unit == f.Unit
	})
	if i < 0 {
		return nil
	}
	return &r.Figures[i]
}

// earlier returns the figures of the commit that was measured last before
// this one; nil if there are none.
func (r *report) earlier(dir string) (*report, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("look for earlier figures: %w", err)
	}
	var newest *report
	for _, path := range paths {
		old, err := loadReport(path)
		if err != nil {
			return nil, err
		}
		if old.Commit != r.Commit && old.Time.Before(r.Time) && (newest == nil || old.Time.After(newest.Time)) {
			newest = &old
		}
	}
	return newest, nil
}

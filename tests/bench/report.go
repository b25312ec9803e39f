package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the report.
type figure struct {
	Section string  `json:"section"`
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	// Goal is empty where the issue names none.
	Goal string `json:"goal,omitempty"`
	// Note is what a reader must know to judge the value.
	Note string `json:"note,omitempty"`
}

// report collects figures.
type report struct {
	// CPUs and the load averages are the conditions of the run: the load of
	// others is in the averages at the start, ours is added by the end.
	CPUs int `json:"cpus"`
	// Commit is what was measured, Time when the run began.
	Commit    string    `json:"commit"`
	Time      time.Time `json:"time"`
	LoadStart string    `json:"loadStart"`
	LoadEnd   string    `json:"loadEnd"`
	Figures   []figure  `json:"figures"`
}

func newReport() *report {
	return &report{CPUs: runtime.NumCPU(), Time: time.Now().UTC(), LoadStart: loadAverage(), Figures: []figure{}}
}

func (r *report) finish() { r.LoadEnd = loadAverage() }

func (r *report) add(section, what string, value float64, unit, goal string) {
	r.Figures = append(r.Figures, figure{Section: section, What: what, Value: value, Unit: unit, Goal: goal})
}

// note adds to the figure that was added last.
func (r *report) note(format string, args ...any) {
	r.Figures[len(r.Figures)-1].Note = fmt.Sprintf(format, args...)
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// writeTable prints the figures, beside those of old if that is not nil.
func (r *report) writeTable(w io.Writer, old *report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(tw, "SECTION\tFIGURE\tVALUE\tUNIT\tGOAL\tBEFORE\tCHANGE\tNOTE\n")
	for _, f := range r.Figures {
		before, change := "", ""
		if old != nil {
			if was := old.find(f); was != nil {
				before, change = format(was.Value), ratio(was.Value, f.Value)
			}
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			f.Section, f.What, format(f.Value), f.Unit, f.Goal, before, change, f.Note)
	}
	if err := tw.Flush(); err != nil { // also returns earlier errors
		return fmt.Errorf("write report: %w", err)
	}
	_, err := fmt.Fprintf(w, "\n%s; %d CPUs; load average %s at the start, %s at the end\n", r.Commit, r.CPUs, r.LoadStart, r.LoadEnd)
	if err == nil && old != nil {
		_, err = fmt.Fprintf(w, "before: %s of %s; load average %s at the start\n", old.Commit, old.Time.Format(time.DateTime), old.LoadStart)
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// ratio is a change in percent, empty where there is none to tell.
func ratio(before, now float64) string {
	if before == 0 || before == now {
		return ""
	}
	return fmt.Sprintf("%+.0f %%", (now/before-1)*100)
}

// format keeps about three digits.
func format(v float64) string {
	switch {
	case v == float64(int64(v)) || v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(raw))[:3], " ")
}

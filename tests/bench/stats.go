package main

import (
	"math"
	"slices"
	"time"
)

// loadResult is what a load generator prints.
type loadResult struct {
	// Count are the requests that succeeded, Errors those that did not.
	Count  int `json:"count"`
	Errors int `json:"errors"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// P50 and P99 are latencies of successes, in milliseconds.
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	// Bytes is the size of one answer, where that is of interest.
	Bytes int64 `json:"bytes,omitempty"`
	// Error is one of the errors, in words.
	Error string `json:"error,omitempty"`
}

// rate is successes per second.
func (r loadResult) rate() float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return float64(r.Count) / r.Seconds
}

// summarize makes a result of latencies, in any order.
func summarize(latencies []time.Duration, took time.Duration) loadResult {
	slices.Sort(latencies)
	return loadResult{
		Count: len(latencies), Seconds: took.Seconds(),
		P50: milliseconds(percentile(latencies, 50)), P99: milliseconds(percentile(latencies, 99)),
	}
}

// percentile is the nearest rank in a sorted list: the smallest value that at
// least p percent of all do not exceed. It is 0 for an empty list.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

//go:build race

package gossip_test

// seeds are few under the race detector: with hundreds of bubbles in one
// process its runtime (Go 1.26) now and then ends with a segmentation fault of
// its own, and a seed that races does so on any run.
const seeds = 8

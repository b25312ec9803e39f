//go:build !race

package gossip_test

const seeds = 100

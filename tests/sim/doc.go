// Package sim runs several peers' stores in one synctest bubble, on a network
// and disks made to fail: minutes of a mesh's life in a second.
//
// Its invariant: the stores are the product's own; only wires and disks are
// simulated.
package sim

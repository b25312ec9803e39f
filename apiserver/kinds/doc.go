// Package kinds declares what this API server serves, one short file a kind:
// its names, its columns and the rules for changing it.
//
// Its invariant: a kind is data over pure functions; nothing here keeps state,
// reads a clock except to print an age, or talks to anyone.
package kinds

// Package fuzz sends what strangers may send to a real API server: bodies of
// every kind, patches, continue tokens, selectors and names.
//
// Its invariant: whatever is sent, the answer is a decision and not a failure
// of the server, and what was accepted comes back as it was stored, in JSON
// as in protobuf.
package fuzz

// Package tokenkey is how the keys of service account tokens are listed,
// replaced and dropped through the API path /mesh/v1/token-keys.
//
// Its invariant: no key itself is ever in an answer; the JSON form is a
// promise to programs.
package tokenkey

import "time"

// Path answers GET with a List, makes a new signing key at POST, and at
// DELETE with the query id=ID drops a key and with it all tokens it signed.
const Path = "/mesh/v1/token-keys"

// List are the cluster's keys, the one that signs first.
type List struct {
	Keys []Key `json:"keys"`
}

// Key is one of them.
type Key struct {
	ID string `json:"id"`
	// Created is nil for the key that the cluster was made with.
	Created *time.Time `json:"created,omitempty"`
	// Signs says that new tokens are signed with it; the others only check.
	Signs bool `json:"signs"`
}

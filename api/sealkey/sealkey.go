// Package sealkey is how the keys that secrets are sealed with in the store are
// listed and replaced through the API path /mesh/v1/sealing-keys.
//
// Its invariant: no key itself is ever in an answer; the JSON form is a
// promise to programs.
package sealkey

import "time"

// Path answers GET with a List, makes a new key and seals everything anew at
// POST, and only seals anew what is not under the first key at PUT.
const Path = "/mesh/v1/sealing-keys"

// List are the mesh's keys, the one that seals first. None is ever dropped:
// a peer that is behind may still seal with the one before.
type List struct {
	Keys []Key `json:"keys"`
}

// Key is one of them.
type Key struct {
	ID string `json:"id"`
	// Created is nil for the keys of the keyring, which every full peer has
	// on its own disk. They open the others.
	Created *time.Time `json:"created,omitempty"`
	// Seals says that what is written now is sealed with it.
	Seals bool `json:"seals"`
	// Values is how many there are in the store that it has sealed.
	Values int `json:"values"`
}

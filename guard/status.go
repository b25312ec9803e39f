package guard

import "time"

// State is what a guard says of a process it guards.
type State string

// The states of a guarded process.
const (
	Running  State = "running"
	Stopped  State = "stopped"  // not running: between two starts, or never started
	Crashing State = "crashing" // its crash budget is used up; it is still started again, but seldom
)

// Status is the answer "this machine lives".
type Status struct {
	// BootID names the boot of the machine's kernel.
	BootID string `json:"bootID"`
	// Daemon is the state of the peer's daemon, since Since by the guard's clock.
	Daemon State     `json:"daemon"`
	Since  time.Time `json:"since"`
	// Incarnation is what the daemon left for this answer; may be empty.
	Incarnation string `json:"incarnation,omitempty"`
}

// Report is the answer on the control socket.
type Report struct {
	Status
	// PID is the guard's own.
	PID    int     `json:"pid"`
	Guards []Guard `json:"guards"`
	// Missing lists what the system did not permit the guard, such as to lock
	// its memory.
	Missing []string `json:"missing,omitempty"`
}

// Guard is one guarded process.
type Guard struct {
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Since   time.Time `json:"since"`
	PID     int       `json:"pid,omitempty"`
	Adopted bool      `json:"adopted,omitempty"` // found running by this guard
	// Starts counts how often this guard started it.
	Starts int `json:"starts"`
	// LastExit tells how it ended last, empty if it never did.
	LastExit string `json:"lastExit,omitempty"`
}

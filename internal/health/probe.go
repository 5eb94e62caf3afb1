// Package health finds out which real servers answer. Identical probes run
// once, however many services use them; what they find goes through a pure
// state machine with rise and fall counts.
package health

import (
	"net/netip"
	"time"
)

// Type is a kind of check.
type Type string

// The kinds of check that exist, by their API names.
const (
	TCP Type = "TCP"
)

// Probe is one check of one address. It is comparable, and its Target is what
// makes two probes the same: one with a changed schedule keeps its state.
type Probe struct {
	Target   Target
	Schedule Schedule
}

// Target is what is asked, and how.
type Target struct {
	Type Type
	Addr netip.Addr
	Port uint16
}

// Schedule says how often a probe runs and what its results mean. All
// durations are positive.
type Schedule struct {
	// Interval is the time from the start of one try to the start of the next.
	Interval time.Duration
	// Timeout bounds one try.
	Timeout time.Duration
	// RetryInterval is the time between the tries after a first failure of a
	// server that is up.
	RetryInterval time.Duration
	// FailureThreshold is how many failures in a row take a server down.
	FailureThreshold int
	// SuccessThreshold is how many successes in a row bring a server up.
	SuccessThreshold int
}

// Verdict is what is known of a target.
type Verdict int

// Unknown is a state of its own: nobody has looked yet, or not often enough.
const (
	Unknown Verdict = iota
	Up
	Down
)

// String returns the verdict's name as status shows it.
func (v Verdict) String() string {
	switch v {
	case Up:
		return "Up"
	case Down:
		return "Down"
	default:
		return "Unknown"
	}
}

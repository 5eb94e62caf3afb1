// Package plan is what the takeover benchmark and its runner in the guest tell
// each other: what is compared, what happens to it, and what a client saw.
package plan

import "time"

// System is one of those that are compared.
type System string

// The systems. KeepalivedClassic has the configuration of the classic set-up:
// VRRP version 2 with an advertisement a second. KeepalivedTuned has VRRP version
// 3 and ten a second, and is the same otherwise.
const (
	Ours              System = "ours"
	KeepalivedClassic System = "keepalived-classic"
	KeepalivedTuned   System = "keepalived-tuned"
)

// Systems lists them all, in the order in which a round has them.
func Systems() []System { return []System{KeepalivedClassic, KeepalivedTuned, Ours} }

// Event is what happens in a round.
type Event string

// The events. All but the last two are the active director's.
const (
	// GracefulStop is a SIGTERM to its process.
	GracefulStop Event = "graceful-stop"
	// ProcessKill is a SIGKILL to all of its processes; its kernel goes on.
	ProcessKill Event = "process-kill"
	// NodeCrash is the end of its machine: from one moment to the next nothing
	// comes from it, and no link of another one goes down.
	NodeCrash Event = "node-crash"
	// LinkDown is the loss of the carrier on the segment's interface.
	LinkDown Event = "link-down"
	// APIAwayCrash is NodeCrash after APIAway without the API server, for all.
	// keepalived does not use it.
	APIAwayCrash Event = "api-away-crash"
	// BackendRST is the end of a real server's process: it refuses connections.
	BackendRST Event = "backend-rst"
	// BackendBlackhole is the end of a real server's machine: it is silent.
	BackendBlackhole Event = "backend-blackhole"
	// SteadyLoad is nothing at all, for long: whatever moves then moves for no
	// reason. It is ours alone, once, and only where it is asked for.
	SteadyLoad Event = "steady-load"
)

// Events lists those that are compared.
func Events() []Event {
	return []Event{GracefulStop, ProcessKill, NodeCrash, LinkDown, APIAwayCrash, BackendRST, BackendBlackhole}
}

// Backend says that the event is a real server's.
func (e Event) Backend() bool { return e == BackendRST || e == BackendBlackhole }

const (
	// Rate is how many connections the client opens a second.
	Rate = 50
	// Open is how many connections are open when the event comes.
	Open = 20
	// Age is how long they have been open then, at least: longer than the kernel gathers
	// connections before it tells another director of them, which is 3 s.
	Age = 4 * time.Second
	// Before is since when before the event requests count.
	Before = 2 * time.Second
	// Quiet is how long everything has to be answered for an event to be over, once
	// it has shown.
	Quiet = 2 * time.Second
	// APIAway is how long the API server has been away at an APIAwayCrash.
	APIAway = 10 * time.Second
	// LastAsk is how long the open connections may take for the last answer.
	LastAsk = 10 * time.Second
)

// After is until when after the event requests count if it is not over before (see
// Quiet). It is longer than the slowest of the systems needs with the check's
// settings, which are those of the classic set-up (6 s between tries of up to 10 s,
// two of them 3 s apart).
func (e Event) After() time.Duration {
	switch e {
	case BackendRST:
		return 15 * time.Second
	case BackendBlackhole:
		return 35 * time.Second
	case SteadyLoad:
		return 10 * time.Minute
	default:
		return 10 * time.Second
	}
}

// Seen is what a client saw of an event.
type Seen struct {
	// Requests are new connections, each with one request.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	// CountedMs is how long requests counted.
	CountedMs int64 `json:"countedMs"`
	// OutageMs is the longest time from the start of a failed request to the
	// start of the next one that succeeded, or of the last; 0 if none failed.
	OutageMs int64 `json:"outageMs"`
	// FailingMs is the time from the start of the first failed request to the
	// start of the first that succeeded after the last failed one. It differs from
	// OutageMs where some fail and some do not.
	FailingMs int64 `json:"failingMs"`
	// OpenConnections are those that were open before, Survived those that still
	// answered at the end.
	OpenConnections int `json:"openConnections"`
	Survived        int `json:"survived"`
	// Moves is how often the client was sent to another director from the event on.
	Moves int `json:"moves"`
	// MovedBefore is how often it was before that, for no reason, since its
	// connections were open: then the director that the event came to may not be
	// the one that they went by.
	MovedBefore int `json:"movedBefore,omitempty"`
	// Errors are the distinct reasons of failures, at most five.
	Errors []string `json:"errors,omitempty"`
	// Active is the director that was active, empty if that could not be told.
	Active string `json:"active,omitempty"`
}

// Starved says that the client made less than nine tenths of the requests that it
// was to make: it had no time for them.
func (s Seen) Starved() bool {
	const milliseconds = 1000
	return int64(s.Requests)*milliseconds*10 < s.CountedMs*Rate*9
}

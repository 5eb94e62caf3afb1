// Package election decides which director announces the VIPs of a group. The
// decision is a pure function; round it are a thin client of the group's Lease
// and a loop.
package election

import "time"

// Fence is how old a decision may be for a director to answer for a VIP by it.
// Who answers has to check that, or a process that stood still answers for what
// it lost meanwhile. A holder regards its Lease as expired so much earlier than
// others do.
const Fence = 150 * time.Millisecond

// Self is the director that decides.
type Self struct {
	// Node is the name of its node, which it writes as holderIdentity.
	Node string
	// Instance tells one process from the next on the same node (the pod's uid).
	Instance string
	// Candidate says that it could serve the group: services programmed, real
	// servers with verdicts, link up. It matters only for taking a Lease that is
	// not this node's: who holds one keeps it while nobody else could serve.
	Candidate bool
	// Terminating says that it is about to end and gives the group up.
	Terminating bool
	// Unfit says that it cannot serve: its link is down, or its kernel refuses. A
	// holder hands the group to a peer that can.
	Unfit bool
	// Impaired says that it serves, but not all: its kernel refuses some of the
	// VIPs. It ranks after all that are not.
	Impaired bool
	// Cordoned says that its node is to be emptied. It ranks after all that are
	// not, but before those that are cold or impaired.
	Cordoned bool
	// Cold says that it does not have the connections of the others yet, which
	// would be lost if it took over. It ranks after all that are not, cordoned ones
	// included, but before those that are impaired, and asks for no group.
	Cold bool
	// Priority ranks directors: a higher one is preferred.
	Priority int32
	// Held is how many groups of the pool it holds, by their Leases.
	Held int
	// Wants says that of all groups this is the one that it is to ask for; see
	// Spread.Wanted.
	Wants bool
}

// Peer is another director of the pool that is alive as far as the API server
// knows. The fields are those of Self.
type Peer struct {
	Node                          string
	Candidate, Impaired, Cordoned bool
	Cold                          bool
	Priority                      int32
	// Held is how many groups of the pool it holds, by their Leases as this
	// director sees them.
	Held int
}

// Preemption says whether, and when, a director asks for a group that one of
// lower priority holds, or one of the same priority that holds more.
type Preemption struct {
	// Never says that who holds a group keeps it.
	Never bool
	// Delay is how long a director has to have been a candidate.
	Delay time.Duration
}

// Lease is what a director has last read of the group's Lease.
type Lease struct {
	// Known says that an answer has been had since the start; without it
	// nothing else here means anything.
	Known bool
	// Unsure says that a write of ours was refused or not answered, so that the
	// Lease may differ from what is said here. It has to be read first.
	Unsure bool
	// Exists is false for a Lease that is deleted or was never made.
	Exists bool
	// Holder is the node that holds it, empty if nobody does; Instance its
	// process.
	Holder, Instance string
	// Epoch counts acquisitions.
	Epoch int64
	// Duration is how long it is valid after a renewal, in the words of its
	// holder; 0 means this director's own duration.
	Duration time.Duration
	// Successor is the node that the last holder released it for, empty if it
	// named none.
	Successor string
	// RequestedBy is the node of the director that asked for it last.
	RequestedBy string
	// ChangedAt is when this director saw the claim change (a renewal is a
	// change), by its own clock: clocks of other nodes are not compared.
	ChangedAt time.Time
	// AbsentSince is when this director first saw that there is none.
	AbsentSince time.Time
}

// Contact is how the director fares with the API server.
type Contact struct {
	// Answered is when an answer or an event last came in, Failed when a request
	// last remained without an answer that means anything.
	Answered, Failed time.Time
	// BackAt is when it answered again after it had been away for a third of a
	// duration or more, so that the holder may have missed a renewal.
	BackAt time.Time
}

// Reachable says whether the last request was answered.
func (c Contact) Reachable() bool { return c.Answered.After(c.Failed) }

// Own is what the director itself did so far.
type Own struct {
	// Announcing is the last decision.
	Announcing bool
	// Restored says that the checkpoint of an earlier process of this node has
	// it as the group's active director, and that no Lease was seen since.
	Restored bool
	// Epoch is the highest epoch ever seen, on a Lease or in the checkpoint.
	Epoch int64
	// RenewSent is when the last write that made or kept this process the
	// holder was sent (not: answered).
	RenewSent time.Time
	// Yield is how far this process is with handing the group over.
	Yield Yield
	// TookBackAt is when it last took a group back that nobody took from it.
	TookBackAt time.Time
	// CandidateSince is since when it has been a candidate without a break.
	CandidateSince time.Time
	// OutdoneSince is since when it has been impaired beside a candidate that is
	// not, without a break.
	OutdoneSince time.Time
	// Moves are the last changes of holder that it saw, at most movesLimit, the
	// oldest first.
	Moves []time.Time

	// Started is when it first decided.
	Started time.Time
	// Heard is the highest epoch that a peer told of.
	Heard int64
	// Claimed is the epoch of the claim that it last told, zero if it told none.
	Claimed int64
	// Provisional is the epoch that it claims without a Lease, zero if it does not,
	// and ProvisionalSince since when.
	Provisional      int64
	ProvisionalSince time.Time
	// ContestedSince is when it first heard another announce what it claims
	// provisionally; zero if none is, or the segment was silent since.
	ContestedSince time.Time
	// SeenAt is when it first saw the Lease since a request was last not answered.
	// Who renews it changes it after that.
	SeenAt time.Time
	// BlindSince is since when the API server has answered a live candidate and not
	// this director, without a break.
	BlindSince time.Time
	// Silence is since when soundings have gone unanswered.
	Silence Silence
}

// Yield is how far a holder is with handing a group over. It has released the
// Lease and goes on announcing until the successor is heard.
type Yield struct {
	// Asked is when the release was sent of which it is not known yet what became;
	// zero if there is none.
	Asked time.Time
	// Begun is when the first release that was carried out was sent; zero if none
	// was. LastAt is when the last one was. TakenAt is when another director was
	// first seen to hold the Lease since, or to have held it.
	Begun, LastAt, TakenAt time.Time
	// Tried are the successors that were named, in order.
	Tried []string
	// Why is the reason for the first release that was carried out or, as long as
	// none was, for the one that was last sent.
	Why Reason
}

// View is all that a decision depends on.
type View struct {
	Now time.Time
	// LeaseDuration is how long a Lease of this director is valid after a
	// renewal, which it sends every third of it.
	LeaseDuration time.Duration
	// Group names the group among all groups of all pools.
	Group      string
	Preemption Preemption
	Self       Self
	// Peers are the other live directors of the pool.
	Peers   []Peer
	Lease   Lease
	Contact Contact
	Own     Own
	// HeardAt is when another director of the pool was last heard to announce a
	// VIP of the group; zero if none was.
	HeardAt time.Time
	// Witnesses are what gossip tells of other directors; none without gossip.
	Witnesses []Witness
	// Sounding is the last one; zero if there was none.
	Sounding Sounding
}

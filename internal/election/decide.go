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
	// not this node's: who holds one keeps it.
	Candidate bool
	// Terminating says that it is about to end and gives the group up.
	Terminating bool
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
}

// View is all that a decision depends on.
type View struct {
	Now time.Time
	// LeaseDuration is how long a Lease of this director is valid after a
	// renewal, which it sends every third of it.
	LeaseDuration time.Duration
	Self          Self
	Lease         Lease
	Contact       Contact
	Own           Own
}

// Write is what a director does to the group's Lease.
type Write int

// The writes. Each starts from the Lease as it was last read and carries its
// resourceVersion, so that of two directors one wins.
const (
	// None leaves the Lease alone.
	None Write = iota
	// Acquire makes this process the holder of an existing Lease, in a new epoch.
	Acquire
	// Renew keeps it the holder.
	Renew
	// Release gives the Lease up, so that it is vacant.
	Release
	// Create makes a Lease that does not exist, in a new epoch.
	Create
)

// String returns the write's name for logs.
func (w Write) String() string {
	switch w {
	case None:
		return "none"
	case Acquire:
		return "acquire"
	case Renew:
		return "renew"
	case Release:
		return "release"
	case Create:
		return "create"
	default:
		return "invalid"
	}
}

// Reason says why a director announces or why it does not, as metrics and
// events show it.
type Reason string

// The reasons of a Decision.
const (
	// Holding: the Lease is ours and not expired.
	Holding Reason = "Holding"
	// HoldingUnconfirmed: the Lease was ours when last seen (by this process or,
	// after a restart, by the one before it), and the API server does not answer.
	HoldingUnconfirmed Reason = "HoldingUnconfirmed"
	// Reclaiming: nobody holds the Lease that was ours, and it is being taken
	// back.
	Reclaiming Reason = "Reclaiming"
	// HeldByOther: another director holds the Lease.
	HeldByOther Reason = "HeldByOther"
	// Expired: the Lease of another director has expired and is being taken.
	Expired Reason = "Expired"
	// Vacant: nobody holds the Lease, and this director has not taken it yet.
	Vacant Reason = "Vacant"
	// Absent: there is no Lease, and this director has not made it yet.
	Absent Reason = "Absent"
	// Restarted: the Lease is this node's, of an earlier process; it is being
	// taken over.
	Restarted Reason = "Restarted"
	// Stalled: the Lease has expired without a try to renew it, because the
	// process stood still; it may be another's by now.
	Stalled Reason = "Stalled"
	// NotRead: the Lease has not been read since the start.
	NotRead Reason = "NotRead"
	// Leaving: the director terminates.
	Leaving Reason = "Leaving"
)

// Decision is what a director is to do now.
type Decision struct {
	// Announce says whether to answer for the group's VIPs. It is put into
	// effect before Write is sent.
	Announce bool
	// Confirmed says that Announce rests on a Lease that is ours and valid.
	Confirmed bool
	// Write is what to do to the Lease; it is moot while another write is under
	// way.
	Write Write
	// Epoch is the epoch that Write begins if it is Acquire or Create, else the
	// highest one seen.
	Epoch int64
	// NextAt is when the decision may become another one without any event; zero
	// if never.
	NextAt time.Time
	Reason Reason
	// At is the Now of the view that was decided on.
	At time.Time
}

// Decide says whether to announce and what to write. The rules:
//
//   - A director announces while it holds the Lease. It renews every third of
//     the duration, counted from when the last renewal was sent.
//   - If the API server does not answer it goes on, past the expiry too, until
//     it sees the Lease held by another: a VIP that nobody else serves is not
//     dropped. An expiry for which no failed request accounts means that the
//     process was stopped; then it is silent until it knows.
//   - A Lease that is vacant, or expired by this director's own clock, is taken
//     by whoever is a candidate, and announced once the write is answered.
//   - A Lease of this node and another process is taken over at once, candidate
//     or not, with a new epoch. With the API server away it is announced at
//     once, as a Lease that the checkpoint names is.
//   - A deleted Lease is made anew by its holder at once, by others a duration
//     later.
//   - A director that terminates stops announcing and then releases the Lease.
//
// What it promises when all directors use it and keep to Fence: as long as every
// request is answered within a sixth of the duration and nobody else writes the
// Lease, no two directors announce at the same time, processes that stop and wake
// included. If somebody vacates or
// deletes the Lease by hand, its holder and the next one may both announce
// until the former has seen the change: one duration at most, since it writes
// every third of it and each write is answered or given up within a third. A
// director that cannot reach the API server announces beside one that can until
// it can again.
func Decide(v View) Decision {
	d := decide(v)
	if v.Lease.Unsure || !v.Lease.Known {
		d.Write = None
	}
	d.Epoch, d.At = v.epoch(d.Write), v.Now
	return d
}

func decide(v View) Decision {
	switch {
	case v.Self.Terminating:
		return v.leave()
	case !v.Lease.Known:
		return v.unread()
	case !v.Lease.Exists:
		return v.absent()
	case v.Lease.Holder == "":
		return v.vacant()
	case v.Lease.Holder != v.Self.Node:
		return v.other()
	case v.Lease.Instance != v.Self.Instance:
		return v.restarted()
	default:
		return v.holding()
	}
}

// epoch returns the epoch that the write begins, or the highest one seen.
func (v View) epoch(write Write) int64 {
	highest := max(v.Lease.Epoch, v.Own.Epoch)
	if write == Acquire || write == Create {
		return highest + 1
	}
	return highest
}

func (v View) leave() Decision {
	d := Decision{Reason: Leaving}
	if v.holds() {
		d.Write = Release
	}
	return d
}

// holds says that the Lease, as last read, is this process's.
func (v View) holds() bool {
	return v.Lease.Known && v.Lease.Exists && v.Lease.Holder == v.Self.Node && v.Lease.Instance == v.Self.Instance
}

func (v View) holding() Decision {
	expiry := v.Own.RenewSent.Add(v.LeaseDuration - Fence)
	d := Decision{Write: None, NextAt: v.Own.RenewSent.Add(v.LeaseDuration / 3)}
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt = Renew, expiry
	}
	switch {
	case v.Now.Before(expiry):
		d.Announce, d.Confirmed, d.Reason = true, true, Holding
	case v.failing():
		d.Announce, d.Reason, d.NextAt = true, HoldingUnconfirmed, v.failingUntil()
	default:
		d.Reason, d.NextAt = Stalled, time.Time{}
	}
	return d
}

// failing says that a request failed within the last duration: the API server
// is away, or comes and goes. A process that was stopped has no such failure to
// show when it wakes.
func (v View) failing() bool {
	return !v.Contact.Failed.IsZero() && v.Now.Before(v.failingUntil())
}

func (v View) failingUntil() time.Time { return v.Contact.Failed.Add(v.LeaseDuration) }

// unbroken says that the director announces and has neither been stopped nor
// left without word since: it heard from the API server, or in vain tried to.
func (v View) unbroken() bool {
	heard := v.Now.Before(v.Contact.Answered.Add(v.LeaseDuration))
	return v.Own.Announcing && (heard || v.failing())
}

func (v View) unread() Decision {
	if v.Own.Restored && v.failing() {
		return Decision{Announce: true, Reason: HoldingUnconfirmed, NextAt: v.failingUntil()}
	}
	return Decision{Reason: NotRead}
}

func (v View) restarted() Decision {
	d := Decision{Write: Acquire, Reason: Restarted}
	if v.unbroken() || v.failing() {
		d.Announce, d.Reason = true, HoldingUnconfirmed
	}
	return d
}

func (v View) vacant() Decision {
	d := Decision{Reason: Vacant}
	if v.unbroken() {
		d.Announce, d.Reason = true, Reclaiming
	}
	if v.Self.Candidate || d.Announce {
		d.Write = Acquire
	}
	return d
}

func (v View) absent() Decision {
	if v.unbroken() {
		return Decision{Announce: true, Write: Create, Reason: Reclaiming}
	}
	if v.Own.Restored {
		return Decision{Announce: v.failing(), Write: Create, Reason: Reclaiming}
	}
	d := Decision{Reason: Absent}
	if !v.Self.Candidate {
		return d
	}
	d.NextAt = v.Lease.AbsentSince.Add(v.LeaseDuration)
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt = Create, time.Time{}
	}
	return d
}

func (v View) other() Decision {
	d := Decision{Reason: HeldByOther}
	if !v.Self.Candidate {
		return d
	}
	duration := v.Lease.Duration
	if duration <= 0 {
		duration = v.LeaseDuration
	}
	d.NextAt = v.Lease.ChangedAt.Add(duration)
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt, d.Reason = Acquire, time.Time{}, Expired
	}
	return d
}

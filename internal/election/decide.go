package election

import (
	"cmp"
	"slices"
	"time"
)

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
	// Release gives the Lease up, so that it is vacant, for the successor that the
	// decision names, if any.
	Release
	// Create makes a Lease that does not exist, in a new epoch.
	Create
	// Request asks the holder for the Lease.
	Request
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
	case Request:
		return "request"
	default:
		return "invalid"
	}
}

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
	// Successor is the node that Release names, empty if there is none, and Why
	// the reason for handing over to it.
	Successor string
	Why       Reason
	// Epoch is the epoch that Write begins if it is Acquire or Create, or that a
	// provisional claim does, else the highest one seen.
	Epoch int64
	// Holder is the node that the Lease names; empty if nobody holds it, or none
	// is known.
	Holder string
	// NextAt is when the decision may become another one without any event; zero
	// if never.
	NextAt time.Time
	Reason Reason
	// At is the Now of the view that was decided on.
	At time.Time
	// Probe names the node that is to be asked for on the segment, with a VIP of
	// the group and third machines, unless that is under way; this director's own
	// node if only the VIP is. Empty: nothing is to be asked. See Sounding.
	Probe string
	// Isolated says that nobody on the segment answers this director, who used to.
	Isolated bool
	// Claim is what to tell peers by gossip. Decide leaves it empty; an Elector
	// fills it in.
	Claim Claim
}

// Pending says that the director does not announce for no other reason than that
// the API server has yet to say whether the Lease is its own still: it has just
// started, or it stood still. The answer may make it go on as if nothing had been.
func (d Decision) Pending() bool {
	return !d.Announce && slices.Contains([]Reason{NotRead, Restarted, Stalled, Reclaiming}, d.Reason)
}

// Decide says whether to announce and what to write. The rules:
//
//   - A director announces while it holds the Lease. It renews every third of
//     the duration, counted from when the last renewal was sent.
//   - If the API server does not answer it goes on, past the expiry too, until
//     it sees the Lease held by another, or hears another director of the pool
//     announce: a VIP that nobody else serves is not dropped. An expiry for
//     which no failed request accounts means that the process was stopped; then
//     it is silent until it knows.
//   - A Lease that is vacant, or expired by this director's own clock while it
//     heard from the API server, is taken by the candidates in the order of their
//     ranks, and announced once the write is answered. See turn.
//   - A Lease of this node and another process is taken over at once, candidate
//     or not, with a new epoch. With the API server away it is announced at
//     once, as a Lease that the checkpoint names is.
//   - A deleted Lease is made anew by its holder at once, by others a duration
//     later, in the order of their ranks. So is one that never was: directors
//     that start together share the groups by rank.
//   - A holder that terminates or cannot serve, that serves less than another
//     would, whose node is to be emptied, or whom a director of higher priority
//     asks, hands over: it releases the Lease for a successor and announces until
//     that one is heard. See yielding. Without anybody to hand over to, one that
//     terminates stops announcing and then releases, and any other stays.
//
// With gossip, and answers from the segment, there is more:
//
//   - A Lease that has not expired is taken if gossip heard its holder claim this
//     very epoch and then saw it die, no renewal was seen since, and neither the
//     holder's machine nor a VIP answered after that, while others did. If there
//     are no others to ask, half a duration has to have passed since the last
//     renewal. See early.
//   - A holder whom nobody answers any more, who used to, is isolated and hands
//     over while it reaches the API server. Who is isolated and no holder leaves
//     what is free to all others for a duration.
//   - A peer that tells by gossip that it announces by a later epoch counts as
//     heard in a handover. One that tells that it has the Lease ends what an older
//     holder does; any better claim ends what is not confirmed. See outclaimed.
//   - With the API server away, a candidate claims the group provisionally if the
//     one that had it is dead and the segment silent as above, or if nobody has
//     answered for the VIP for a duration. See claimAt. It stops for a better
//     claim, for a holder that is seen to renew or to have acquired the Lease, and
//     for another that goes on to announce. When the API server is back it leaves
//     the holder half a duration to renew, then takes the Lease, and others leave
//     it to it.
//   - Who announces without the API server for blindLimit beside a candidate that
//     the API server answers tells that it wants to be relieved.
//   - A process that comes back first gives peers gossipPatience to tell what they
//     claim.
//
// Without gossip nothing of that happens.
//
// What it promises when all directors use it and keep to Fence: as long as every
// request is answered within a sixth of the duration and nobody else writes the
// Lease, no two directors announce at the same time, processes that stop and wake
// included, but for a handover: there the old one goes on for HandoverLimit at
// most; and but for a holder whose segment is cut. If somebody vacates or deletes
// the Lease by hand, its holder and the next one may both announce until the
// former has seen the change: one duration at most, since it writes every third
// of it and each write is answered or given up within a third. A director that cannot reach the API server announces beside one that can until
// it hears that one, or reaches it again.
func Decide(v View) Decision {
	d := v.provisionally(decide(v))
	if v.Lease.Unsure || !v.Lease.Known {
		d.Write, d.Successor, d.Why = None, "", ""
	}
	d.Epoch, d.At = v.epoch(d), v.Now
	d.Probe, d.Isolated = v.probe(d), v.isolated()
	if v.Lease.Known && v.Lease.Exists {
		d.Holder = v.Lease.Holder
	}
	return d
}

func decide(v View) Decision {
	switch {
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

// epoch returns the epoch that the decision begins, or the highest one seen.
func (v View) epoch(d Decision) int64 {
	highest := max(v.Lease.Epoch, v.Own.Epoch)
	if d.Write == Acquire || d.Write == Create || d.Reason == Provisional && v.Own.Provisional == 0 {
		return max(highest, v.Own.Heard) + 1
	}
	return highest
}

// holds says that the Lease, as last read, is this process's.
func (v View) holds() bool {
	return v.Lease.Known && v.Lease.Exists && v.Lease.Holder == v.Self.Node && v.Lease.Instance == v.Self.Instance
}

func (v View) holding() Decision {
	successor, why := v.successor()
	if v.Self.Terminating && successor == "" {
		return Decision{Reason: Leaving, Write: Release}
	}
	d := v.kept()
	if asked := v.Own.Yield.Asked; !asked.IsZero() && v.heardSince(asked) {
		// The successor is faster than the answer to the release, and the reason
		// for it may be none any more.
		return Decision{Reason: cmp.Or(why, v.Own.Yield.Why)}
	}
	if successor != "" && (d.Announce || v.Self.Terminating) {
		d.Write, d.Successor, d.Why = Release, successor, why
	}
	if v.Self.Terminating && !d.Announce {
		d.Reason = why
	}
	if at := v.outdoneUntil(); v.Now.Before(at) && !d.NextAt.IsZero() {
		d.NextAt = earlier(d.NextAt, at)
	}
	return d
}

// kept is what a holder does that goes on.
func (v View) kept() Decision {
	expiry := v.expiry()
	if v.overtaken() || !v.Now.Before(expiry) && v.outclaimed() {
		return Decision{Reason: Superseded}
	}
	d := Decision{Write: None, NextAt: v.Own.RenewSent.Add(v.LeaseDuration / 3)}
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt = Renew, expiry
	}
	switch {
	case v.Now.Before(expiry):
		d.Announce, d.Confirmed, d.Reason = true, true, Holding
	case v.superseded():
		d.Reason, d.NextAt = Superseded, time.Time{}
	case v.failing():
		d.Announce, d.Reason, d.NextAt = true, HoldingUnconfirmed, v.failingUntil()
	default:
		d.Reason, d.NextAt = Stalled, time.Time{}
	}
	return d
}

// expiry is when this director's own Lease ends in its own eyes.
func (v View) expiry() time.Time { return v.Own.RenewSent.Add(v.LeaseDuration - Fence) }

// failing says that a request failed within the last duration: the API server
// is away, or comes and goes. A process that was stopped has no such failure to
// show when it wakes.
func (v View) failing() bool {
	return !v.Contact.Failed.IsZero() && v.Now.Before(v.failingUntil())
}

func (v View) failingUntil() time.Time { return v.Contact.Failed.Add(v.LeaseDuration) }

// superseded says that another director was heard to announce after this one's
// Lease had ended. Without the API server that is all there is to go by; what
// was heard before is from the time before this director became active.
func (v View) superseded() bool { return v.failing() && v.HeardAt.After(v.expiry()) }

// unbroken says that the director announces and has neither been stopped nor
// left without word since: it heard from the API server, or in vain tried to.
func (v View) unbroken() bool {
	heard := v.Now.Before(v.Contact.Answered.Add(v.LeaseDuration))
	return v.Own.Announcing && (heard || v.failing())
}

func (v View) unread() Decision {
	switch {
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	case v.Own.Restored && (v.superseded() || v.outclaimed()):
		return Decision{Reason: Superseded}
	case !v.Own.Announcing && !v.awaitsGossip().IsZero():
		return Decision{Reason: NotRead, NextAt: v.awaitsGossip()}
	case v.Own.Restored && v.failing():
		return Decision{Announce: true, Reason: HoldingUnconfirmed, NextAt: v.failingUntil()}
	default:
		return Decision{Reason: NotRead}
	}
}

func (v View) restarted() Decision {
	d := Decision{Write: Acquire, Reason: Restarted}
	switch {
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	case v.outclaimed():
		return Decision{Reason: Superseded}
	case !v.Own.Announcing && !v.awaitsGossip().IsZero():
		return Decision{Reason: Restarted, NextAt: v.awaitsGossip()}
	case v.superseded():
		d.Reason = Superseded
	case v.unbroken() || v.failing():
		d.Announce, d.Reason = true, HoldingUnconfirmed
	}
	return d
}

func (v View) vacant() Decision {
	switch {
	case v.yields():
		return v.yielding()
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	case v.unbroken() && !v.outclaimed():
		return Decision{Announce: true, Write: Acquire, Reason: Reclaiming}
	}
	d := Decision{Reason: Vacant}
	if !v.Self.Candidate || v.claimed() {
		return d
	}
	d.NextAt = v.Lease.ChangedAt.Add(v.turn())
	if v.Now.Before(d.NextAt) {
		return d
	}
	d.Write, d.NextAt = Acquire, time.Time{}
	if v.Lease.Successor == v.Self.Node {
		d.Reason = Handover
	}
	return d
}

func (v View) absent() Decision {
	switch {
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	case v.outclaimed():
		return Decision{Reason: Absent}
	case v.unbroken():
		return Decision{Announce: true, Write: Create, Reason: Reclaiming}
	case v.Own.Restored:
		return Decision{Announce: v.failing() && !v.superseded(), Write: Create, Reason: Reclaiming}
	}
	d := Decision{Reason: Absent}
	if !v.Self.Candidate {
		return d
	}
	d.NextAt = v.Lease.AbsentSince.Add(v.LeaseDuration + v.turn())
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt = Create, time.Time{}
	}
	return d
}

func (v View) other() Decision {
	switch {
	case v.yields():
		return v.handedOver()
	case v.Own.Announcing && !v.Own.Yield.Begun.IsZero():
		return Decision{Reason: v.Own.Yield.Why}
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	case !v.Self.Candidate:
		return Decision{Reason: HeldByOther}
	}
	d := Decision{Reason: HeldByOther, NextAt: v.otherExpiry().Add(v.turn())}
	if v.away() || v.claimed() {
		// What cannot be seen to be renewed may be.
		d.NextAt = time.Time{}
		return d
	}
	if !v.Now.Before(d.NextAt) {
		d.Write, d.NextAt, d.Reason = Acquire, time.Time{}, Expired
		return d
	}
	if at := v.early(); !at.IsZero() && !v.Now.Before(at) {
		d.Write, d.NextAt, d.Reason = Acquire, time.Time{}, HolderDead
		return d
	} else if !at.IsZero() {
		d.NextAt = earlier(d.NextAt, at)
	}
	if asks, at := v.asks(); asks && v.Now.Before(at) {
		d.NextAt = earlier(d.NextAt, at)
	} else if asks {
		d.Write = Request
	}
	return d
}

// otherExpiry is when another's Lease ends by this director's clock. After the
// API server was away the holder is left half a duration to renew: in that time
// it tries at least once.
func (v View) otherExpiry() time.Time {
	duration := v.otherDuration()
	return later(v.Lease.ChangedAt.Add(duration), v.Contact.BackAt.Add(duration/2))
}

// otherDuration is how long the holder says that the Lease is valid.
func (v View) otherDuration() time.Duration {
	if v.Lease.Duration <= 0 {
		return v.LeaseDuration
	}
	return v.Lease.Duration
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

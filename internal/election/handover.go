package election

import (
	"slices"
	"time"
)

const (
	// HandoverLimit is how long a director that hands over announces after it has
	// seen that the successor holds the Lease, if it cannot hear it.
	HandoverLimit = 500 * time.Millisecond
	// successorPatience is how long a successor is waited for before another one
	// is named.
	successorPatience = 2 * time.Second
	// yieldPause is how long a director keeps a group that it took back because
	// nobody took it.
	yieldPause = 30 * time.Second
	// outdonePatience is how long a holder that is impaired keeps a group beside a
	// candidate that is not: kernels are mostly alike, so the other one may be
	// about to say the same of itself, or this one to be mended like the other.
	outdonePatience = 5 * time.Second
	// A group that moved movesLimit times within movesWindow is not moved again
	// for the sake of priority, or of the VIPs that its holder does not serve:
	// switches freeze addresses that move more.
	movesLimit  = 4
	movesWindow = 180 * time.Second
)

// successor names whom the holder hands the group to and says why; without
// either it stays.
func (v View) successor() (node string, why Reason) {
	candidates := slices.DeleteFunc(v.candidates(), func(p Peer) bool { return slices.Contains(v.Own.Yield.Tried, p.Node) })
	why = v.reason(candidates)
	if why == Preempted || why == Balanced {
		candidates = slices.DeleteFunc(candidates, func(p Peer) bool { return p.Node != v.Lease.RequestedBy })
	}
	if len(candidates) == 0 || why == "" {
		return "", why
	}
	return candidates[0].Node, why
}

// reason is why this director should hand what it holds over to one of the
// candidates, the preferred one first, or empty. Each handover but for the first
// three reasons is to a director that stands better, or that holds less, so groups
// never go round.
func (v View) reason(candidates []Peer) Reason {
	asking, known := v.peer(v.Lease.RequestedBy)
	switch {
	case v.Self.Terminating:
		return Leaving
	case !v.Own.TookBackAt.IsZero() && v.Now.Before(v.Own.TookBackAt.Add(yieldPause)):
		return ""
	case v.Self.Unfit:
		return Unfit
	case v.isolated() && !v.away():
		return Isolated
	case len(candidates) == 0:
		return ""
	case v.outdone() && !candidates[0].Impaired && !v.Now.Before(v.outdoneUntil()):
		return Impaired
	case v.Self.Cordoned && v.Self.Impaired == candidates[0].Impaired && v.Self.Cold == candidates[0].Cold && !candidates[0].Cordoned:
		return Cordoned
	case known && asking.Candidate && v.preempts(asking, v.self()):
		return Preempted
	case known && asking.Candidate && v.relieves(asking, v.self()):
		return Balanced
	default:
		return ""
	}
}

// outdone says that this director is impaired beside a candidate that is not.
func (v View) outdone() bool {
	return v.Self.Impaired && slices.ContainsFunc(v.Peers, func(p Peer) bool {
		return p.Candidate && !p.Impaired && p.Node != v.Self.Node
	})
}

// outdoneUntil is how long a holder that is outdone keeps the group; zero if it
// is not.
func (v View) outdoneUntil() time.Time {
	if v.Own.OutdoneSince.IsZero() {
		return time.Time{}
	}
	return later(v.Own.OutdoneSince.Add(outdonePatience), v.calm())
}

// preempts says whether a may ask for what b holds.
func (v View) preempts(a, b Peer) bool {
	return !v.Preemption.Never && !a.Cordoned && !a.Cold && (!a.Impaired || b.Impaired) && a.Priority > b.Priority
}

// calm is when a group that has moved much may be moved again.
func (v View) calm() time.Time {
	if len(v.Own.Moves) < movesLimit {
		return time.Time{}
	}
	return v.Own.Moves[len(v.Own.Moves)-movesLimit].Add(movesWindow)
}

// asks says whether this director is to ask the holder for the group, and from
// when on.
func (v View) asks() (bool, time.Time) {
	holder, known := v.peer(v.Lease.Holder)
	if !known || v.isolated() || v.Own.CandidateSince.IsZero() || v.Lease.RequestedBy == v.Self.Node {
		return false, time.Time{}
	}
	at := later(v.Own.CandidateSince.Add(v.Preemption.Delay), v.calm())
	if !v.preempts(v.self(), holder) {
		return v.asksToEven(holder), at
	}
	// Only the best asks: each request makes the holder read again before it can
	// renew, and several could keep it from renewing in time.
	better := slices.ContainsFunc(v.candidates(), func(p Peer) bool { return p.Node != holder.Node && v.ranks(p, v.self()) < 0 })
	return !better, at
}

// yields says that this director has released the Lease and goes on announcing.
func (v View) yields() bool { return !v.Own.Yield.Begun.IsZero() && v.unbroken() }

// relieved says that the successor was heard, or took the Lease and has had its
// time to be.
func (v View) relieved() bool {
	y := v.Own.Yield
	taken := !y.TakenAt.IsZero() || v.Lease.Holder != ""
	return v.heardSince(y.Begun) || taken && !v.Now.Before(y.TakenAt.Add(HandoverLimit))
}

// handedOver is the end of a handover: the Lease is somebody's, or was, and is
// theirs to hand on.
func (v View) handedOver() Decision {
	if v.relieved() {
		return Decision{Reason: v.Own.Yield.Why}
	}
	return Decision{Announce: true, Reason: v.Own.Yield.Why, NextAt: v.Own.Yield.TakenAt.Add(HandoverLimit)}
}

// yielding is what a director does that has released the Lease while nobody has
// taken it. It names one successor after the other. If none is left it takes the
// Lease back or, if it terminates, ends.
func (v View) yielding() Decision {
	d := Decision{Announce: true, Reason: v.Own.Yield.Why, NextAt: v.Own.Yield.LastAt.Add(successorPatience)}
	switch next, why := v.successor(); {
	case v.relieved() || !v.Own.Yield.TakenAt.IsZero():
		return v.handedOver()
	case v.Now.Before(d.NextAt):
		return d
	case next != "":
		d.Write, d.Successor, d.Why, d.NextAt = Release, next, why, time.Time{}
		return d
	case v.Self.Terminating:
		return Decision{Reason: Leaving}
	default:
		return Decision{Announce: true, Write: Acquire, Reason: Reclaiming}
	}
}

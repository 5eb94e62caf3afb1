package election

import "time"

const (
	// blindLimit is how long a director that announces without the API server
	// keeps a group beside a candidate that the API server answers: it would serve
	// for ever what was wanted once.
	blindLimit = 10 * time.Second
	// A provisional claimant that hears another director announce, and knows no
	// claim of it, goes on for contestLimit if it is the first in rank, for
	// contestStep less for each before it, and for contestStep at least: then one
	// of two is the last.
	contestLimit = 2 * time.Second
	contestStep  = 500 * time.Millisecond
)

// away says that the API server did not answer the last request.
func (v View) away() bool { return v.Contact.Failed.After(v.Contact.Answered) }

// reachedByPeer says that a live candidate is answered by the API server.
func (v View) reachedByPeer() bool {
	return v.anyWitness(func(w Witness) bool { return w.live() && w.Candidate && w.APIReachable })
}

// blind says that the API server answers a live candidate and not this director.
func (v View) blind() bool { return v.away() && v.reachedByPeer() }

// blinded says that it has been so for so long that this director should leave
// the group to one that knows what is wanted.
func (v View) blinded() bool {
	return !v.Own.BlindSince.IsZero() && !v.Now.Before(v.Own.BlindSince.Add(blindLimit))
}

// provisionally adds to a decision by the Lease what the director does while
// there is nobody to say whose the Lease is.
func (v View) provisionally(d Decision) Decision {
	switch {
	case d.Announce:
		return d
	case v.Own.Provisional > 0:
		return v.claiming(d)
	case !v.Self.Candidate || v.Self.Terminating || !v.away() || v.outclaimed():
		return d
	}
	at := v.claimAt()
	switch {
	case at.IsZero():
		return d
	case v.Now.Before(at):
		d.NextAt = at
		return d
	default:
		return Decision{Announce: true, Reason: Provisional, Write: d.Write}
	}
}

// claimAt is when this director may claim the group provisionally, zero if it may
// not as far as it knows: when the one that had it is dead and its machine is
// silent; when one that has it wants to be rid of it; or when nobody has answered
// for the VIP for a whole duration, if only because nobody answers at all. A candidate that the API server answers is
// given one more, to take the Lease.
func (v View) claimAt() time.Time {
	if v.anyWitness(Witness.claims) {
		return time.Time{}
	}
	turn, reached := v.liveTurn(), v.reachedByPeer()
	yielding := v.anyWitness(func(w Witness) bool { return w.live() && w.Claim.Yielding })
	if yielding {
		if turn > 0 || reached {
			return time.Time{}
		}
		return v.Now
	}
	if node, _ := v.incumbent(); !reached {
		if w, known := v.witness(node); known && w.dead() {
			if at := v.deathAt(w); !at.IsZero() {
				return at.Add(turn)
			}
		}
	}
	since := v.Own.Silence.VIP
	if since.IsZero() || !v.Now.Before(v.Sounding.Ended.Add(silenceGap)) {
		return time.Time{}
	}
	if reached {
		turn += v.LeaseDuration
	}
	return later(since, v.HeardAt).Add(v.LeaseDuration + turn)
}

// incumbent is who had the group last, and since when it is dead; if that is not
// known, the holder of the Lease or, at last, this director itself. Who lives and
// claims is not asked for.
func (v View) incumbent() (node string, since time.Time) {
	best := int64(0)
	if v.Lease.Known && v.Lease.Exists && v.Lease.Holder != v.Self.Node {
		node = v.Lease.Holder
		best = v.Lease.Epoch - 1
	}
	for _, w := range v.Witnesses {
		if w.Node != v.Self.Node && w.dead() && w.Claim.Epoch > best {
			best, node, since = w.Claim.Epoch, w.Node, w.DeadAt
		}
	}
	if node == "" {
		node = v.Self.Node
	}
	return node, since
}

// liveTurn is the turn among those that live.
func (v View) liveTurn() time.Duration {
	wait := time.Duration(0)
	for _, p := range v.Peers {
		if w, known := v.witness(p.Node); known && w.live() && p.Candidate && v.ranks(p, v.self()) < 0 {
			wait += rankDelay
		}
	}
	return wait
}

// claiming is what a director does that claims the group provisionally, and that
// may not announce by the Lease.
func (v View) claiming(d Decision) Decision {
	successors := v.anyWitness(func(w Witness) bool { return w.live() && w.Candidate })
	switch {
	case !v.unbroken():
		return Decision{Reason: Stalled, Write: d.Write}
	case v.outclaimed(), v.contested():
		return Decision{Reason: Superseded}
	case v.Self.Terminating && (!successors || v.heardSince(v.Own.ProvisionalSince)):
		return d
	case v.refuted():
		return d
	}
	next := Decision{Announce: true, Reason: Provisional, Write: d.Write}
	if d.Write != None || v.away() || v.Self.Terminating || !v.Lease.Exists || v.Lease.Holder == "" || v.Lease.Holder == v.Self.Node {
		return next
	}
	if at := v.Own.SeenAt.Add(v.otherDuration() / 2); v.Now.Before(at) {
		next.NextAt = at
	} else {
		next.Write = Acquire
	}
	return next
}

// refuted says that the API server shows a holder that lives: one that renews the
// Lease, or has acquired it since this director claimed the group, and is not
// known to have died since.
func (v View) refuted() bool {
	if v.away() || !v.Lease.Known || !v.Lease.Exists || v.Lease.Holder == "" || v.Lease.Holder == v.Self.Node {
		return false
	}
	_, died := v.died()
	return !died && (v.Lease.ChangedAt.After(v.Own.SeenAt) || v.Lease.Epoch >= v.Own.Provisional)
}

// contested says that another director announces what this one claims, and that
// it is this one's turn to stop.
func (v View) contested() bool {
	since := v.Own.ContestedSince
	patience := max(contestStep, contestLimit-contestStep*(v.turn()/rankDelay))
	return !since.IsZero() && v.Sounding.VIP && !v.Sounding.Begun.Before(since.Add(patience))
}

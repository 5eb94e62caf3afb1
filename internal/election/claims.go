package election

import (
	"bytes"
	"slices"
	"time"
)

// Claim is what a director that announces a group tells its peers by gossip. A
// director that does not announce tells the zero Claim.
type Claim struct {
	// Epoch of the Lease by which it announces or, if it never had the Lease in
	// this epoch, of its provisional claim. Zero: it does not announce.
	Epoch int64
	// Confirmed says that the Lease is its own and valid.
	Confirmed bool
	// Yielding says that it goes on only until another one announces.
	Yielding bool
}

// Witness is what gossip tells of another director, as to one group. Its times
// are of the Elector's own clock. A member that left is not listed; one that is
// expected but was never heard is listed without HeardAt.
type Witness struct {
	// Peer is how it stands, in its own words.
	Peer
	// Claim is the last one that was heard of it; dead ones keep theirs.
	Claim Claim
	// HeardAt is when it was last heard itself, and not only others tell of it.
	HeardAt time.Time
	// DeadAt is since when gossip holds it for dead after it was heard; zero if it
	// does not. Never heard is unknown, and not dead.
	DeadAt time.Time
	// APIReachable says that the API server answers it.
	APIReachable bool
}

// live says that gossip hears it.
func (w Witness) live() bool { return !w.HeardAt.IsZero() && w.DeadAt.IsZero() }

// dead says that gossip heard it, and then saw it die.
func (w Witness) dead() bool { return !w.HeardAt.IsZero() && !w.DeadAt.IsZero() }

// claims says that it announces, and means to go on.
func (w Witness) claims() bool { return w.live() && w.Claim.Epoch > 0 && !w.Claim.Yielding }

// Sounding is what was heard on the announcement interface when the segment was
// asked, by ARP or neighbour solicitations that the asked kernels answer, for a
// machine and for a VIP. Whoever takes it has to have read all that came in
// before it calls a silence one. Its times are of the Elector's own clock.
type Sounding struct {
	// Node is the director whose machine was asked for; this director's own name
	// if there was none to ask for.
	Node string
	// Begun is when the first question was sent, Ended when the last answer was
	// waited for.
	Begun, Ended time.Time
	// Machine says that the node's own address was answered for.
	Machine bool
	// VIP says that a process of another director answered for a VIP of the group.
	// The kernel of a director that is dead does not count.
	VIP bool
	// Asked and Answered count third machines that were asked for at the same
	// time, and those that answered: gateways, neighbours, other directors; only
	// those that answered some time before, Node not included.
	Asked, Answered int
}

// isolated says that nobody answered who used to: it is this machine that has
// lost the segment.
func (s Sounding) isolated() bool { return s.Asked > 0 && s.Answered == 0 && !s.Machine && !s.VIP }

// silent says that the machine and the VIP have not answered, but others have, or
// there are none.
func (s Sounding) silent() bool { return !s.Machine && !s.VIP && !s.isolated() }

// witness returns what gossip tells of a node.
func (v View) witness(node string) (Witness, bool) {
	i := slices.IndexFunc(v.Witnesses, func(w Witness) bool { return w.Node == node })
	if i < 0 || node == v.Self.Node {
		return Witness{}, false
	}
	return v.Witnesses[i], true
}

// anyWitness says whether there is one like that.
func (v View) anyWitness(like func(Witness) bool) bool {
	return slices.ContainsFunc(v.Witnesses, func(w Witness) bool { return w.Node != v.Self.Node && like(w) })
}

// own is the epoch by which this director announces or would go on to, and
// whether it is one that no Lease is known to bear out.
func (v View) own() (epoch int64, provisional bool) {
	switch {
	case v.Own.Provisional > 0:
		return v.Own.Provisional, true
	case v.Lease.Known && v.Lease.Exists && v.Lease.Holder == v.Self.Node:
		return v.Lease.Epoch, false
	case v.Own.Restored:
		return v.Own.Epoch, true
	default:
		return v.Own.Claimed, false
	}
}

// outclaimed says that a live peer has a better claim than this director, which
// has none that is confirmed: one of a higher epoch or, of the same, one that is
// confirmed, or else whom the group's name falls to. An epoch that is made up
// counts for nothing beside a Lease that is valid.
func (v View) outclaimed() bool {
	epoch, provisional := v.own()
	known := int64(0)
	if v.Lease.Known && v.Lease.Exists {
		known = v.Lease.Epoch
	}
	return v.anyWitness(func(w Witness) bool {
		switch {
		case !w.claims():
			return false
		case w.Claim.Confirmed && provisional && w.Claim.Epoch >= known:
			return true
		case w.Claim.Epoch != epoch:
			return w.Claim.Epoch > epoch
		default:
			mine, other := v.weight(v.Self.Node), v.weight(w.Node)
			return w.Claim.Confirmed || bytes.Compare(other[:], mine[:]) > 0
		}
	})
}

// overtaken says that a live peer tells that it has acquired the Lease since this
// director did.
func (v View) overtaken() bool {
	return v.anyWitness(func(w Witness) bool { return w.claims() && w.Claim.Confirmed && w.Claim.Epoch > v.Lease.Epoch })
}

// claimed says that a live peer announces by a later epoch than the Lease's, and
// is to write it.
func (v View) claimed() bool {
	return v.anyWitness(func(w Witness) bool { return w.claims() && w.Claim.Epoch > v.Lease.Epoch })
}

// heardSince says that another director was heard to announce the group, or to
// tell that it does by a later epoch than this one.
func (v View) heardSince(t time.Time) bool {
	return v.HeardAt.After(t) || v.anyWitness(func(w Witness) bool {
		return w.claims() && w.Claim.Epoch > v.Own.Claimed && w.HeardAt.After(t)
	})
}

// awaitsGossip says until when a director that has just started leaves peers that
// it has not heard yet the time to tell what they claim; zero if it does not.
func (v View) awaitsGossip() time.Time {
	until := v.Own.Started.Add(gossipPatience)
	unheard := v.anyWitness(func(w Witness) bool { return w.HeardAt.IsZero() })
	if v.Own.Started.IsZero() || !unheard || !v.Now.Before(until) {
		return time.Time{}
	}
	return until
}

// claim is what to tell by gossip of a decision.
func (v View) claim(d Decision) Claim {
	if !d.Announce {
		return Claim{}
	}
	c := Claim{Confirmed: d.Confirmed}
	switch epoch, _ := v.own(); {
	case v.holds() && d.Reason != Provisional:
		c.Epoch = v.Lease.Epoch
	case d.Reason == Provisional && v.Own.Provisional == 0:
		c.Epoch = d.Epoch
	default:
		c.Epoch = epoch
	}
	y := v.Own.Yield
	c.Yielding = v.Self.Terminating || d.Write == Release || !y.Begun.IsZero() || !y.Asked.IsZero() || v.blinded() || v.Self.Unfit && !d.Confirmed
	return c
}

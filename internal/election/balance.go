package election

import (
	"bytes"
	"slices"
)

// Balanced is a reason too: it hands over to a director of the same rank that holds
// fewer groups.
const Balanced Reason = "Balanced"

// Spread is who holds the groups of a pool, as far as their Leases tell.
type Spread struct {
	Pool string
	// Holders are the nodes that the Leases name, in order of the groups; empty
	// where nobody holds one, or none has been read.
	Holders []string
}

// Held counts the groups that a node holds.
func (s Spread) Held(node string) int {
	held := 0
	for _, holder := range s.Holders {
		if holder == node {
			held++
		}
	}
	return held
}

// Wanted returns the group that a director is to ask for so that the groups are
// spread evenly, false if it is not to ask for any. Only those that hold least ask,
// and only the fullest of their equals that hold at least two more: so no more
// groups move than have to. It is the group that falls to the asking director
// before the others. As long as a group has no holder all wait, since it may be on
// its way to one of them. A director asks for one at a time: the next one may be
// another's to give then.
func (s Spread) Wanted(self Peer, peers []Peer) (group int, any bool) {
	if slices.Contains(s.Holders, "") {
		return 0, false
	}
	self.Held = s.Held(self.Node)
	fullest := Peer{}
	for _, peer := range peers {
		peer.Held = s.Held(peer.Node)
		switch {
		case !equals(self, peer):
		case peer.Candidate && peer.Held < self.Held:
			return 0, false
		case peer.Held > fullest.Held:
			fullest = peer
		}
	}
	if !evens(self, fullest) {
		return 0, false
	}
	var best []byte
	for number, holder := range s.Holders {
		weight := View{Group: LeaseName(s.Pool, number)}.weight(self.Node)
		if holder == fullest.Node && bytes.Compare(weight[:], best) > 0 {
			group, any, best = number, true, weight[:]
		}
	}
	return group, any
}

// equals says whether nothing but what they hold tells two directors apart, and
// nothing stands against either.
func equals(a, b Peer) bool { return a.burden() == 0 && b.burden() == 0 && a.Priority == b.Priority }

// evens says whether a group that moved from b to a would make the pool more even.
// Each such move lessens the sum of the squares of what directors hold, so there
// is an end of them; in the end no two equals differ by more than one.
func evens(a, b Peer) bool {
	return equals(a, b) && b.Held >= a.Held+2
}

// relieves says whether a may ask for what b holds so that both hold as much.
func (v View) relieves(a, b Peer) bool { return !v.Preemption.Never && evens(a, b) }

// asksToEven says whether this director is to ask the holder for the group so that
// groups are spread evenly. Where another one asks already that one is left to.
func (v View) asksToEven(holder Peer) bool {
	asking, known := v.peer(v.Lease.RequestedBy)
	taken := known && asking.Candidate && (v.preempts(asking, holder) || v.relieves(asking, holder))
	return v.Self.Wants && !taken && v.relieves(v.self(), holder)
}

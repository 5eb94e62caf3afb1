package election

import "testing"

// TestGossipDoesNotKnowWhatAPeerHolds: it knows better than the API server how a
// peer stands, but who holds how many groups the Leases tell.
func TestGossipDoesNotKnowWhatAPeerHolds(t *testing.T) {
	b := belief{
		self:      Self{Node: "a"},
		peers:     []Peer{{Node: "b", Held: 3}},
		contact:   Contact{Answered: at(0)},
		witnesses: []Witness{{Peer: Peer{Node: "b", Candidate: true, Priority: 7}, HeardAt: at(0)}},
	}
	if got, want := b.electorate()[0], (Peer{Node: "b", Candidate: true, Priority: 7, Held: 3}); got != want {
		t.Errorf("electorate() = %+v, want %+v", got, want)
	}
}

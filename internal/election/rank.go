package election

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"
	"time"
)

const (
	// rankDelay is how long each rank leaves the better ones to take a Lease: as
	// long as a write takes.
	rankDelay = 100 * time.Millisecond
	// successorDelay is how long a successor that is named is left to take it.
	successorDelay = 300 * time.Millisecond
)

// self is this director as its peers see it.
func (v View) self() Peer {
	return Peer{
		Node: v.Self.Node, Candidate: v.Self.Candidate,
		Impaired: v.Self.Impaired, Cordoned: v.Self.Cordoned, Cold: v.Self.Cold, Priority: v.Self.Priority, Held: v.Self.Held,
	}
}

// burden is what stands against a director whatever its priority. What clients
// miss for good weighs more than connections that are lost once, and these more
// than what is going to happen to the node: a cordoned director can hand over
// again when the other one is warm.
func (p Peer) burden() int {
	burden := 0
	if p.Impaired {
		burden += 4
	}
	if p.Cold {
		burden += 2
	}
	if p.Cordoned {
		burden++
	}
	return burden
}

// ranks compares two directors, the preferred one first: one that serves all,
// then one that is not cold, then one whose node is not to be emptied, then one of higher priority, then the
// one that the group's name falls to, so that the groups of a pool spread and few
// of them move when a director comes or goes (rendezvous hashing, Thaler and
// Ravishankar 1996).
func (v View) ranks(a, b Peer) int {
	if order := cmp.Or(cmp.Compare(a.burden(), b.burden()), cmp.Compare(b.Priority, a.Priority)); order != 0 {
		return order
	}
	x, y := v.weight(a.Node), v.weight(b.Node)
	return cmp.Or(bytes.Compare(y[:], x[:]), cmp.Compare(a.Node, b.Node))
}

func (v View) weight(node string) [sha256.Size]byte {
	return sha256.Sum256([]byte(v.Group + "\x00" + node))
}

// candidates lists the peers that could take the group over, the preferred one
// first, but those last that gossip saw die: the API server takes longer to see
// it.
func (v View) candidates() []Peer {
	var all []Peer
	for _, peer := range v.Peers {
		if peer.Candidate && peer.Node != v.Self.Node {
			all = append(all, peer)
		}
	}
	slices.SortFunc(all, func(a, b Peer) int { return cmp.Or(v.deaths(a)-v.deaths(b), v.ranks(a, b)) })
	return all
}

func (v View) deaths(p Peer) int {
	if w, known := v.witness(p.Node); known && w.dead() {
		return 1
	}
	return 0
}

// turn is how long this director leaves a free Lease to those before it. Who is
// named as successor waits for nobody. The present holder has had its time. Who is
// isolated leaves it to all others for a duration: it may be the last that lives.
func (v View) turn() time.Duration {
	wait := time.Duration(0)
	switch {
	case v.isolated():
		wait = v.LeaseDuration
	case v.Lease.Holder == "" && v.Lease.Successor == v.Self.Node:
		return 0
	}
	if v.Lease.Holder == "" && v.Lease.Successor != "" {
		wait += successorDelay
	}
	for _, peer := range v.Peers {
		if peer.Candidate && peer.Node != v.Self.Node && peer.Node != v.Lease.Holder && v.ranks(peer, v.self()) < 0 {
			wait += rankDelay
		}
	}
	return wait
}

// peer returns the peer of that name, if it is known.
func (v View) peer(node string) (Peer, bool) {
	i := slices.IndexFunc(v.Peers, func(p Peer) bool { return p.Node == node })
	if i < 0 {
		return Peer{}, false
	}
	return v.Peers[i], true
}

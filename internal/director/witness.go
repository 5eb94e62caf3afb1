package director

import (
	"slices"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
)

// testify tells the electors what gossip knows of the other directors.
func (s *session) testify() {
	if s.d.cfg.Gossip == nil {
		return
	}
	view, peers := s.gossip.view(), s.d.expected(s.name)
	for _, g := range s.groups {
		g.elector.SetGossip(witnesses(view, peers, g.number))
	}
}

// expected lists the other directors of the pool that gossip should hear, as the
// election knows them: those that are live, since a director that starts waits a
// moment for whoever was not heard. Until the API server has told, those count that
// an earlier process knew. Without keys nobody can be heard.
func (d *Director) expected(pool string) []election.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gossipKeys) == 0 {
		return nil
	}
	known := d.peers
	if !d.peersKnown && d.restored != nil && d.restored.Pool == pool {
		known = peersIn(*d.restored)
	}
	var all []election.Peer
	for _, p := range known {
		if p.Live {
			all = append(all, p.elector())
		}
	}
	return all
}

// elector returns the peer as the election knows it.
func (p Peer) elector() election.Peer {
	return election.Peer{
		Node: p.Node, Candidate: p.Candidate, Impaired: p.Impaired, Cordoned: p.Rank.Cordoned, Cold: p.Cold, Priority: p.Rank.Priority,
	}
}

// witnesses returns what gossip tells of a group: of each peer that is expected, and
// of who else is there, in the order of their nodes. Who took its leave claims
// nothing any more, and is not among them.
func witnesses(view gossip.View, peers []election.Peer, group int) []election.Witness {
	all := make([]election.Witness, 0, len(peers))
	for _, peer := range peers {
		m, known := view.Member(peer.Node)
		if !m.Left {
			all = append(all, witness(peer, m, known, group))
		}
	}
	for _, m := range view.Members {
		expected := slices.ContainsFunc(peers, func(p election.Peer) bool { return p.Node == m.Node })
		if !expected && !m.Left {
			all = append(all, witness(election.Peer{Node: m.Node}, m, true, group))
		}
	}
	return all
}

// witness returns what gossip tells of one peer. What others say in its name says
// neither that it was heard nor what it claims: a takeover rests on its own word.
func witness(peer election.Peer, m gossip.Member, known bool, group int) election.Witness {
	w := election.Witness{Peer: peer}
	if !known || m.HeardAt.IsZero() {
		return w
	}
	w.HeardAt = m.HeardAt
	if m.Dead {
		w.DeadAt = m.DeadAt
	}
	for _, c := range m.Said {
		if c.Group == group {
			w.Claim = election.Claim{Epoch: c.Epoch, Confirmed: c.Confirmed, Yielding: c.Yielding}
		}
	}
	if m.Relayed {
		return w
	}
	w.APIReachable = m.State.APIReachable
	w.Candidate, w.Impaired, w.Cordoned = m.State.Candidate, m.State.Impaired, m.State.Cordoned
	w.Cold, w.Priority = m.State.Cold, m.State.Priority
	return w
}

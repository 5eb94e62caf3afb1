package election

import (
	"math"
	"slices"
	"time"
)

// This is what a belief learns from gossip and from soundings.

// gossip takes in what gossip tells.
func (b *belief) gossip(now time.Time, witnesses []Witness) {
	b.wake(now)
	b.witnesses = witnesses
	for _, w := range witnesses {
		// A number that cannot be exceeded must not stop the counting.
		if w.Node != b.self.Node && w.Claim.Epoch < math.MaxInt64/2 {
			b.own.Heard = max(b.own.Heard, w.Claim.Epoch)
		}
		if w.live() && w.HeardAt.After(b.sounding.Begun) {
			b.own.Silence.Isolated = time.Time{}
		}
	}
}

// sounded takes in how the segment answered. What was asked before the process
// last stood still says nothing: the answers may have come while nobody listened.
func (b *belief) sounded(now time.Time, s Sounding) {
	b.wake(now)
	if !s.Begun.After(b.sounding.Begun) || !s.Begun.After(b.pausedAt) {
		return
	}
	row := &b.own.Silence
	if s.Begun.Sub(b.sounding.Ended) > silenceGap {
		*row = Silence{}
	}
	if row.Node != s.Node {
		row.Node, row.Machine = s.Node, time.Time{}
	}
	note(&row.Machine, s.silent(), s.Ended)
	note(&row.VIP, !s.VIP, s.Begun)
	note(&row.Isolated, s.isolated(), s.Begun)
	if s.VIP && b.own.Announcing {
		b.heard(now, s.Ended)
	} else if s.Begun.After(b.own.ContestedSince) {
		b.own.ContestedSince = time.Time{}
	}
	b.sounding = s
}

// note keeps since when something lasts.
func note(since *time.Time, lasts bool, at time.Time) {
	switch {
	case !lasts:
		*since = time.Time{}
	case since.IsZero():
		*since = at
	}
}

// electorate is the peers as the API server has them. Of those that gossip hears
// it knows better how they stand, though not what they hold; and while the API server
// does not answer, whether they are there at all.
func (b *belief) electorate() []Peer {
	if len(b.witnesses) == 0 {
		return b.peers
	}
	all := slices.Clone(b.peers)
	for _, w := range b.witnesses {
		i := slices.IndexFunc(all, func(p Peer) bool { return p.Node == w.Node })
		switch {
		case !w.live() || w.Node == b.self.Node:
		case i >= 0:
			held := all[i].Held
			all[i] = w.Peer
			all[i].Held = held
		case !b.contact.Reachable():
			all = append(all, w.Peer)
		}
	}
	return all
}

// claims notes by which claim the director announces from now on.
func (b *belief) claims(now time.Time, c Claim, d Decision) {
	b.claim = c
	own := &b.own
	own.Claimed = c.Epoch
	switch {
	case !d.Announce || d.Confirmed:
		own.Provisional, own.ProvisionalSince, own.ContestedSince = 0, time.Time{}, time.Time{}
	case d.Reason == Provisional && own.Provisional == 0:
		own.Provisional, own.ProvisionalSince = d.Epoch, now
		own.Epoch = max(own.Epoch, d.Epoch)
	}
}

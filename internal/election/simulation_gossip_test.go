package election

import "time"

// This is the simulated segment: machines that answer or not, and gossip. A
// process that crashes leaves its machine behind, which goes on answering for its
// own address.

const (
	// gossipEvery is how often a director tells the others of itself, and
	// deathAfter how long it takes until its silence is a death, to which comes up
	// to a quarter.
	gossipEvery = 100 * time.Millisecond
	deathAfter  = 400 * time.Millisecond
	// soundingTime is how long a sounding takes.
	soundingTime = 60 * time.Millisecond
)

// medium is the segment between the directors.
type medium struct {
	// gossips says that there is gossip at all; blocked that a firewall drops it;
	// loss is how much of it gets lost.
	gossips, blocked bool
	loss             float64
	// lonely is a segment that has nobody on it but directors, else there is a
	// gateway.
	lonely bool
	// silent are pairs that do not hear each other's gossip, and split those that
	// do not hear each other at all.
	silent, split map[[2]string]bool
	// early counts the decisions to take the Lease of a holder that is dead.
	early int
}

func (m *medium) heal() { m.blocked, m.loss, m.silent, m.split = false, 0, nil, nil }

func pair(a, b *node) [2]string { return [2]string{min(a.name, b.name), max(a.name, b.name)} }

// part cuts two directors off from each other, or only their gossip.
func (m *medium) part(a, b *node, gossipOnly bool) {
	of := &m.split
	if gossipOnly {
		of = &m.silent
	}
	if *of == nil {
		*of = map[[2]string]bool{}
	}
	(*of)[pair(a, b)] = true
}

// place is what a node has to do with the segment.
type place struct {
	// unplugged says that its announcement interface reaches nobody, though its
	// link is up; down that the machine is.
	unplugged, down bool
	// slept is when the process last stopped, woke when it last went on.
	slept, woke time.Time
	records     map[*node]*record
}

// record is what gossip tells a process of another one.
type record struct {
	at, dead time.Time
	limit    time.Duration
	peer     Peer
	api      bool
	claims   []Claim
}

// begin is what a new process does.
func (l *place) begin() {
	l.down, l.records, l.slept, l.woke = false, map[*node]*record{}, time.Time{}, time.Time{}
}

// gossip has the directors of a new world gossip.
func (w *world) gossip() {
	w.medium.gossips = true
	for _, n := range w.nodes {
		n.tell(n.starts)
	}
}

// linked says whether frames get from one director to the other.
func (w *world) linked(a, b *node) bool {
	return !a.place.unplugged && !b.place.unplugged && !w.medium.split[pair(a, b)]
}

// tell has a process tell all others of itself again and again.
func (n *node) tell(start int) {
	w := n.w
	n.live(start, func() {
		for _, m := range w.nodes {
			if m == n || !w.linked(n, m) || w.medium.blocked || w.medium.silent[pair(n, m)] || w.rand.Float64() < w.medium.loss {
				continue
			}
			told, listener := n.record(), m.starts
			w.after(time.Millisecond+time.Duration(w.rand.IntN(10))*time.Millisecond, func() {
				m.live(listener, func() {
					told.at = w.now
					m.place.records[n] = told
				})
			})
		}
		w.after(gossipEvery, func() { n.tell(start) })
	})
}

func (n *node) record() *record {
	r := &record{limit: deathAfter + time.Duration(n.w.rand.Float64()*float64(deathAfter/4)), api: true, peer: Peer{
		Node: n.name, Candidate: n.candidate && !n.unfit, Impaired: n.impaired, Cordoned: n.cordoned, Priority: n.priority,
	}}
	for _, p := range n.parts {
		r.claims = append(r.claims, p.belief.claim)
		r.api = r.api && p.belief.contact.Reachable()
	}
	return r
}

// goodbye is how a process ends that was told to.
func (n *node) goodbye() {
	for _, m := range n.w.nodes {
		if n.leaving && n.w.linked(n, m) && !n.w.medium.blocked {
			delete(m.place.records, n)
		}
	}
}

// crashMachine ends process and machine.
func (n *node) crashMachine() {
	n.crash()
	n.place.down = true
}

// listen tells the belief what gossip tells.
func (p *part) listen() {
	w := p.w
	if !w.medium.gossips {
		return
	}
	var witnesses []Witness
	for _, m := range w.nodes {
		r := p.place.records[m]
		switch {
		case m == p.node:
			continue
		case r == nil:
			witnesses = append(witnesses, Witness{Peer: Peer{Node: m.name}})
			continue
		case r.dead.IsZero() && w.now.Sub(r.at) > r.limit:
			r.dead = w.now
		}
		witness := Witness{Peer: r.peer, HeardAt: r.at, DeadAt: r.dead, APIReachable: r.api}
		for i, g := range w.groups {
			if g == p.group {
				witness.Claim = r.claims[i]
			}
		}
		witnesses = append(witnesses, witness)
	}
	p.belief.gossip(w.now, witnesses)
}

// sound does what the decision wants asked of the segment.
func (p *part) sound(d Decision) {
	w := p.w
	if d.Write == Acquire && d.Reason == HolderDead {
		w.medium.early++
	}
	if d.Probe == "" || p.probing {
		return
	}
	p.probing = true
	begun, start := w.now, p.starts
	w.after(soundingTime, func() {
		p.live(start, func() {
			p.probing = false
			s := Sounding{Node: d.Probe, Begun: begun, Ended: w.now}
			if slept := p.place.slept; slept.After(begun) && p.place.woke.Sub(slept) > Fence {
				// Who was not listening heard nothing, or what it likes.
				s.Asked, s.Answered = 1, 1
			} else {
				p.answers(&s)
			}
			p.belief.sounded(w.now, s)
			p.decide()
		})
	})
}

// answers is how the segment answers.
func (p *part) answers(s *Sounding) {
	w := p.w
	if !w.medium.lonely {
		s.Asked++
		if !p.place.unplugged {
			s.Answered++
		}
	}
	for i, m := range w.nodes {
		if m == p.node {
			continue
		}
		there := !m.place.down && w.linked(p.node, m)
		if m.name == s.Node {
			s.Machine = there
		} else {
			s.Asked++
			if there {
				s.Answered++
			}
		}
		for _, q := range p.group.parts {
			s.VIP = s.VIP || w.nodes[i] == q.node && there && q.announces()
		}
	}
}

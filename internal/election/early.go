package election

import "time"

const (
	// gossipPatience is how long a director that has just started waits for peers
	// to tell what they claim.
	gossipPatience = 500 * time.Millisecond
	// soundingLimit is how long a sounding says how things are.
	soundingLimit = 500 * time.Millisecond
	// soundingPause is between two soundings while much depends on them, and
	// soundingRest when that has been so for soundingRush.
	soundingPause = 200 * time.Millisecond
	soundingRest  = time.Second
	soundingRush  = 2 * time.Second
	// silenceGap is how far apart two soundings may be in a row.
	silenceGap = 2 * soundingRest
	// isolationPatience is how long nobody has to answer before a holder gives the
	// group to another.
	isolationPatience = 500 * time.Millisecond
)

// Silence is since when soundings have gone unanswered, all in a row.
type Silence struct {
	// Node is whom the row is about, and Machine the end of its first sounding that
	// neither the node's machine nor the VIP answered; zero if the last one was
	// answered, or nobody answered at all.
	Node    string
	Machine time.Time
	// VIP is when the first sounding began for which no process answered for the
	// VIP; zero if the last one was.
	VIP time.Time
	// Isolated is when the first sounding began that nobody answered who used to;
	// zero if the last one was.
	Isolated time.Time
}

// died says that gossip saw the holder die, in the epoch of the Lease, and that
// no renewal was seen since. Who was never heard in this epoch may be kept from
// being heard: if it counted as dead, a firewall would have the group go round.
func (v View) died() (Witness, bool) {
	w, known := v.witness(v.Lease.Holder)
	return w, known && w.dead() && w.Claim.Epoch == v.Lease.Epoch && !v.Lease.ChangedAt.After(w.DeadAt)
}

// deathAt is when this director may take what the dead one had, if the segment
// has neither the machine of that one nor its VIP; else zero.
func (v View) deathAt(w Witness) time.Time {
	s, since := v.Sounding, v.Own.Silence
	fresh := v.Now.Before(s.Ended.Add(soundingLimit))
	if s.Node != w.Node || !s.Begun.After(w.DeadAt) || !s.silent() || !fresh || since.Node != w.Node || since.Machine.IsZero() {
		return time.Time{}
	}
	return later(since.Machine, w.DeadAt)
}

// early is when this director may take the unexpired Lease of a holder that is
// dead; zero if it may not. If there is nobody else on the segment to ask, it may
// be this director that is cut off: then the renewal that a holder would have
// sent meanwhile has to be missing too.
func (v View) early() time.Time {
	w, died := v.died()
	if !died {
		return time.Time{}
	}
	at := v.deathAt(w)
	if at.IsZero() {
		return at
	}
	if v.Sounding.Asked == 0 {
		at = later(at, v.Lease.ChangedAt.Add(v.otherDuration()/2))
	}
	return at.Add(v.turn())
}

// isolated says that nobody on the segment answers this director.
func (v View) isolated() bool {
	since, s := v.Own.Silence.Isolated, v.Sounding
	return !since.IsZero() && s.Ended.Sub(since) >= isolationPatience && v.Now.Before(s.Ended.Add(silenceGap))
}

// probe names the node that is to be asked for on the segment now, if any.
func (v View) probe(d Decision) string {
	node, since := v.suspect(d)
	if node == "" {
		return ""
	}
	pause := soundingPause
	if v.Now.Sub(since) > soundingRush {
		pause = soundingRest
	}
	if s := v.Sounding; s.Node == node && s.Begun.After(since) && v.Now.Before(s.Ended.Add(pause)) {
		return ""
	}
	return node
}

// suspect is whom it matters to ask for, and since when it does. Answers from
// before say nothing. Without gossip nobody is asked for.
func (v View) suspect(d Decision) (node string, since time.Time) {
	switch {
	case v.Self.Terminating, len(v.Witnesses) == 0:
		return "", since
	case !v.Own.ContestedSince.IsZero():
		return v.Self.Node, v.Own.ContestedSince
	case d.Announce:
		return v.companion()
	case v.away() && v.Self.Candidate && !v.anyWitness(Witness.claims):
		return v.incumbent()
	}
	if w, died := v.died(); died && v.Self.Candidate && !v.away() {
		return w.Node, w.DeadAt
	}
	if !v.Own.Silence.Isolated.IsZero() {
		// It has to notice that it is back.
		return v.Sounding.Node, v.Own.Silence.Isolated
	}
	return "", since
}

// companion is a peer that a director that announces asks for when gossip has
// lost all that it ever heard, though the API server may know better; without the
// API server, when it has lost any: that one may announce too.
func (v View) companion() (node string, since time.Time) {
	if !v.away() && v.anyWitness(Witness.live) {
		return "", since
	}
	for _, p := range v.candidates() {
		w, _ := v.witness(p.Node)
		if w.dead() && w.DeadAt.After(since) {
			node, since = w.Node, w.DeadAt
		}
	}
	return node, since
}

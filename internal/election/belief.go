package election

import (
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// belief is what a director remembers from one decision to the next. It is
// pure: the loop tells it what happened and when, and asks it to decide.
type belief struct {
	self       Self
	duration   time.Duration
	group      string
	preemption Preemption

	peers   []Peer
	lease   Lease
	contact Contact
	own     Own
	heardAt time.Time

	witnesses []Witness
	sounding  Sounding
	// claim is what to tell peers of the last decision.
	claim Claim
	// pausedAt is when the process last woke after it had stood still for longer
	// than Fence.
	pausedAt time.Time

	// object is the Lease as last read or written; what is written next starts
	// from it. It outlives a deletion, so that a late event is known for one.
	object *coordinationv1.Lease
	// asOf is when the request was sent, the write answered, or the event heard,
	// that object is from: an answer to an older request is no news.
	asOf time.Time
	// sent is the decision whose write was last sent, at sentAt.
	sent   Decision
	sentAt time.Time
	// unsureSince is when a write was last refused or left unanswered.
	unsureSince time.Time
	decidedAt   time.Time
	// stalledAt is when the process last found that it had stood still for so
	// long that requests may have failed for that alone.
	stalledAt time.Time
	// acquired says why the last acquisition was made, and since when nobody had
	// been seen to hold or renew the Lease before it.
	acquired acquisition
}

// acquisition is how this process came to hold the Lease.
type acquisition struct {
	reason Reason
	since  time.Time
}

// decide decides, and remembers that it did.
func (b *belief) decide(now time.Time) Decision {
	if b.decidedAt.IsZero() {
		b.own.Started = now
	} else if now.Sub(b.decidedAt) > Fence {
		b.pausedAt = now
	}
	if !b.decidedAt.IsZero() && now.Sub(b.decidedAt) > b.duration/6 {
		b.stalledAt = now
	}
	note(&b.own.CandidateSince, b.self.Candidate, now)
	v := View{
		Now: now, LeaseDuration: b.duration, Group: b.group, Preemption: b.preemption,
		Self: b.self, Peers: b.electorate(), Lease: b.lease, Contact: b.contact, Own: b.own, HeardAt: b.heardAt,
		Witnesses: b.witnesses, Sounding: b.sounding,
	}
	note(&b.own.OutdoneSince, v.outdone(), now)
	note(&b.own.BlindSince, v.blind(), now)
	v.Own.OutdoneSince, v.Own.BlindSince = b.own.OutdoneSince, b.own.BlindSince
	d := Decide(v)
	b.claims(now, v.claim(d), d)
	b.own.Announcing = d.Announce
	if !d.Announce {
		// A release that is under way still is: who was heard since may have
		// taken the Lease.
		b.own.Yield = Yield{Asked: b.own.Yield.Asked, Why: b.own.Yield.Why}
	}
	b.decidedAt = now
	return d
}

// heard takes in that another director of the pool announced a VIP of the group.
func (b *belief) heard(now, at time.Time) {
	b.wake(now)
	if at.After(b.heardAt) {
		b.heardAt = at
	}
	if b.own.Provisional > 0 && b.own.ContestedSince.IsZero() && at.After(b.own.ProvisionalSince) {
		b.own.ContestedSince = at
	}
}

// answered takes in that the API server did.
func (b *belief) answered(now time.Time) {
	c := &b.contact
	if !c.Answered.IsZero() && !c.Reachable() && now.Sub(c.Answered) >= b.duration/3 {
		c.BackAt = now
	}
	c.Answered = now
}

// set takes in how things stand besides the Lease.
func (b *belief) set(now time.Time, settings Settings, standing Standing, peers []Peer, heardAt time.Time, terminating bool) {
	if heardAt.After(b.heardAt) {
		b.heard(now, heardAt)
	}
	b.duration, b.preemption, b.peers = settings.LeaseDuration, settings.Preemption, peers
	b.self.Candidate, b.self.Unfit, b.self.Impaired = standing.Candidate, standing.Unfit, standing.Impaired
	b.self.Cordoned, b.self.Priority, b.self.Terminating = standing.Cordoned, standing.Priority, terminating
	b.self.Held, b.self.Wants = standing.Held, standing.Wants
	b.self.Cold = standing.Cold
}

// wake must be called before anything is told to the belief. If the last
// decision is too old to answer by, the process stood still, and what it learns
// now may hide that. So it decides on what was known before: then a director
// that may have lost the Lease meanwhile does not count as one that has been
// announcing.
func (b *belief) wake(now time.Time) {
	if now.Sub(b.decidedAt) > Fence {
		b.decide(now)
	}
}

// read takes in the answer to a GET that was sent at the given time; object is
// nil if there is no Lease. GETs are linearizable, so one that was sent after
// all that is known is believed even if its resourceVersion is lower, as after
// a restore of the API server's store.
func (b *belief) read(now, sent time.Time, object *coordinationv1.Lease) {
	b.wake(now)
	b.answered(now)
	if !sent.Before(b.unsureSince) {
		b.lease.Unsure = false
		if b.own.Yield.Asked.Before(b.unsureSince) {
			b.own.Yield.Asked = time.Time{}
		}
	}
	if sent.Before(b.asOf) && (object == nil || !newer(object, b.object)) {
		return
	}
	b.asOf = sent
	if object == nil {
		b.absent(now)
		return
	}
	b.present(now, object)
}

// event takes in a version of the Lease that a watch delivered. Versions that
// are known already, as after a write of ours, are ignored.
func (b *belief) event(now time.Time, object *coordinationv1.Lease, deleted bool) {
	b.wake(now)
	b.answered(now)
	switch {
	case !newer(object, b.object):
		return
	case deleted:
		b.object = object
		b.absent(now)
	default:
		b.present(now, object)
	}
	// A GET that was sent before tells what was before.
	b.asOf = now
}

// sending takes in that the decision's write is about to be sent. Whatever shows
// the Lease with its renewTime, be it the answer, an event or a later GET, shows
// that it was carried out.
func (b *belief) sending(now time.Time, d Decision) {
	b.sent, b.sentAt = d, now
	b.own.Yield.Asked = time.Time{}
	if d.Write == Release {
		b.own.Yield.Asked = now
		if b.own.Yield.Begun.IsZero() {
			b.own.Yield.Why = d.Why
		}
	}
}

// wrote takes in the answer to a write that was carried out.
func (b *belief) wrote(now time.Time, object *coordinationv1.Lease) {
	b.wake(now)
	b.answered(now)
	b.asOf = now
	if newer(object, b.object) {
		b.present(now, object)
	}
}

// confirm takes in a claim that may be the one that was last sent. A renewal
// counts from when it was sent.
func (b *belief) confirm(c claim) {
	ours := c.holder == b.self.Node && c.instance == b.self.Instance
	stamped := c.renewed == b.sentAt.UnixMicro()
	// The successor may be faster than the news of the release.
	taken := c.holder != "" && !ours && View{Self: b.self, Lease: b.lease}.holds()
	switch {
	case b.sent.Write == Release && !b.own.Yield.LastAt.Equal(b.sentAt) && (taken || stamped && c.holder == ""):
		b.released()
	case !stamped:
	case ours && !b.own.RenewSent.Equal(b.sentAt):
		b.renewed()
	}
}

func (b *belief) renewed() {
	b.own.RenewSent = b.sentAt
	if b.sent.Write != Acquire && b.sent.Write != Create {
		return
	}
	b.acquired = acquisition{reason: b.sent.Reason, since: b.lastServed()}
	if !b.own.Yield.Begun.IsZero() {
		b.own.TookBackAt = b.sentAt
	}
	b.own.Yield = Yield{}
}

// released notes that a release was carried out. It is known by when it was
// sent.
func (b *belief) released() {
	y := &b.own.Yield
	if b.sent.Successor == "" {
		return
	}
	if y.Begun.IsZero() {
		y.Begun = b.sentAt
	}
	y.Asked, y.LastAt = time.Time{}, b.sentAt
	y.Tried = append(slices.Clone(y.Tried), b.sent.Successor)
}

// lastServed returns when somebody was last seen to hold the group.
func (b *belief) lastServed() time.Time {
	if b.lease.Exists {
		return b.lease.ChangedAt
	}
	return b.lease.AbsentSince
}

// refused takes in that a write met another version of the Lease than it
// started from, or another or no Lease.
func (b *belief) refused(now time.Time) {
	b.wake(now)
	b.answered(now)
	b.doubt(now)
}

// unanswered takes in that a write that was sent at the given time had no answer
// that says what became of it.
func (b *belief) unanswered(now, sent time.Time) {
	b.failed(now, sent)
	b.doubt(now)
}

// failed takes in that a request that was sent at the given time had no answer
// that means anything. If the process stood still meanwhile that is no sign that
// the API server is away.
func (b *belief) failed(now, sent time.Time) {
	b.wake(now)
	if b.stalledAt.Before(sent) {
		b.contact.Failed = now
		b.own.SeenAt = time.Time{}
	}
}

func (b *belief) doubt(now time.Time) {
	b.lease.Unsure = true
	b.unsureSince = now
}

func (b *belief) absent(now time.Time) {
	if b.lease.Known && !b.lease.Exists {
		return
	}
	b.lease = Lease{Known: true, Unsure: b.lease.Unsure, AbsentSince: now}
	b.own.SeenAt = now
}

func (b *belief) present(now time.Time, object *coordinationv1.Lease) {
	changedAt := now
	c := claimOf(object)
	b.confirm(c)
	if b.lease.Exists && c == claimOf(b.object) {
		changedAt = b.lease.ChangedAt
	}
	if b.lease.Known && c.holder != "" && c.epoch != b.lease.Epoch {
		b.own.Moves = append(slices.Clone(b.own.Moves), now)
		b.own.Moves = b.own.Moves[max(0, len(b.own.Moves)-movesLimit):]
	}
	// A later epoch of a Lease that is vacant again is one that was missed.
	taken := c.holder != "" && c.holder != b.self.Node || c.holder == "" && c.epoch > b.lease.Epoch
	if y := &b.own.Yield; !y.Begun.IsZero() && y.TakenAt.IsZero() && taken {
		y.TakenAt = now
	}
	if b.own.SeenAt.IsZero() {
		b.own.SeenAt = now
	}
	if b.own.Restored && b.own.Announcing && c.holder != b.self.Node && c.epoch < b.own.Epoch {
		// What the checkpoint had it announce was claimed provisionally.
		b.own.Provisional, b.own.ProvisionalSince = b.own.Epoch, now
	}
	b.object = object
	b.lease = Lease{
		Known: true, Unsure: b.lease.Unsure, Exists: true,
		Holder: c.holder, Instance: c.instance, Epoch: c.epoch, Duration: c.duration, Successor: c.successor,
		RequestedBy: object.Annotations[RequestedByAnnotation],
		ChangedAt:   changedAt,
	}
	b.own.Restored = false
	b.own.Epoch = max(b.own.Epoch, c.epoch)
}

// gone says that the Lease is for all that is known not this process's.
func (b *belief) gone() bool {
	v := View{Self: b.self, Lease: b.lease}
	return !b.lease.Unsure && !v.holds()
}

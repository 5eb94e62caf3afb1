package election

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tick is the longest time between two decisions.
const tick = 50 * time.Millisecond

// Restored is what the checkpoint of an earlier process on this node knows of
// the group.
type Restored struct {
	// Epoch is the highest epoch that it had seen.
	Epoch int64
	// Active says that it announced the group.
	Active bool
}

// RoleChange is a change of what this director does for the group.
type RoleChange struct {
	At     time.Time
	Active bool
	// Confirmed, Epoch and Reason are those of the decision; but for a director
	// that became active by acquiring the Lease, Reason says why it could:
	// Expired, HolderDead, Vacant, Absent, Restarted or Reclaiming.
	Confirmed bool
	Epoch     int64
	Reason    Reason
	// Gap is how long, as far as this director could see, nobody had held or
	// renewed the Lease when this director became active by acquiring it; else,
	// and after a handover, zero. Clients may have noticed less of it, since a director whose process
	// is dead goes on forwarding.
	Gap time.Duration
}

// Options of an Elector. Those not said to be optional are required.
type Options struct {
	// Leases of the operator's namespace.
	Leases Leases
	// Namespace and Name of the group's Lease; see LeaseName.
	Namespace, Name string
	// Node and Instance of this director; see Self.
	Node, Instance string
	// Settings to begin with.
	Settings Settings
	// Restored is what the checkpoint says; zero if there is none.
	Restored Restored
	// OnDecision, if set, is called after each decision, at least every 50 ms
	// and before the decision's write is sent. It must not block.
	OnDecision func(Decision)
	// OnRole, if set, is called when a decision begins or ends an announcement,
	// after OnDecision. It must not block.
	OnRole func(RoleChange)
	// Now is the clock; nil means time.Now. A clock that goes on while the
	// machine is suspended notices that, which time.Now does not.
	Now func() time.Time
	// Jitter returns a number in [0, 1); nil means a random one.
	Jitter func() float64
}

// Settings are what all directors of a pool are to have in common.
type Settings struct {
	// LeaseDuration is 2 to 60 whole seconds.
	LeaseDuration time.Duration
	Preemption    Preemption
}

// Standing is how a director stands; the fields are those of Self.
type Standing struct {
	Candidate, Unfit, Impaired, Cordoned, Cold bool
	Priority                                   int32
	Held                                       int
	Wants                                      bool
}

// Status is a snapshot of an Elector.
type Status struct {
	// Decision is the last one.
	Decision Decision
	// Lease is what was last read of it.
	Lease Lease
	// Contact tells when the API server last answered and when it last did not.
	Contact Contact
	// RenewSent is when the last successful renewal was sent; zero if none was.
	RenewSent time.Time
}

// Elector takes part in the election of one group. Its methods but Run may be
// called at any time from any goroutine.
type Elector struct {
	options  Options
	writer   writer
	messages chan message
	again    chan struct{}
	nudge    chan struct{}
	yielded  chan struct{}

	mu          sync.Mutex
	settings    Settings
	standing    Standing
	peers       []Peer
	heardAt     time.Time
	witnesses   []Witness
	sounding    Sounding
	terminating bool
	status      Status
}

// New returns an Elector that does nothing until Run.
func New(options Options) *Elector {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Jitter == nil {
		options.Jitter = rand.Float64
	}
	return &Elector{
		options: options,
		writer: writer{
			namespace: options.Namespace, name: options.Name,
			self: Self{Node: options.Node, Instance: options.Instance},
		},
		settings: options.Settings,
		messages: make(chan message, 16),
		again:    make(chan struct{}, 1),
		nudge:    make(chan struct{}, 1),
		yielded:  make(chan struct{}),
	}
}

// SetStanding says how this director stands. An Elector starts as no candidate.
func (e *Elector) SetStanding(standing Standing) {
	e.mu.Lock()
	same := e.standing == standing
	e.standing = standing
	e.mu.Unlock()
	if !same {
		signal(e.nudge)
	}
}

// SetPeers says which other directors of the pool are alive. The Elector keeps
// the slice.
func (e *Elector) SetPeers(peers []Peer) {
	e.change(func() { e.peers = peers })
}

// Configure changes the settings.
func (e *Elector) Configure(settings Settings) {
	e.change(func() { e.settings = settings })
}

// Heard says that another director of the pool announced a VIP of the group now.
func (e *Elector) Heard() {
	now := e.options.Now()
	e.change(func() { e.heardAt = now })
}

// SetGossip says what gossip tells of the other directors of the pool, as to this
// group; nil if there is no gossip. To be called at each change, and before Run
// with those that the checkpoint knows: who was never heard is waited for a moment
// before this director announces by what an earlier process knew. The Elector
// keeps the slice.
func (e *Elector) SetGossip(witnesses []Witness) {
	e.change(func() { e.witnesses = witnesses })
}

// SetSounding tells how the segment answered when Decision.Probe asked for it.
func (e *Elector) SetSounding(sounding Sounding) {
	e.change(func() { e.sounding = sounding })
}

// change takes in something new, and has it decided on.
func (e *Elector) change(set func()) {
	e.mu.Lock()
	set()
	e.mu.Unlock()
	signal(e.nudge)
}

// duration is the present LeaseDuration.
func (e *Elector) duration() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settings.LeaseDuration
}

// Yield ends this director's part in the election: it hands the group over to a
// peer that can take it and announces until that one is heard; without such a
// peer it stops announcing at once and releases the Lease. It returns when the
// Lease is not this process's any more and the announcement has ended, or with
// an error when ctx is done. There is no way back. Run has to be running.
func (e *Elector) Yield(ctx context.Context) error {
	e.mu.Lock()
	e.terminating = true
	e.mu.Unlock()
	signal(e.nudge)
	select {
	case <-e.yielded:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("releasing Lease %s: %w", e.options.Name, ctx.Err())
	}
}

// Status returns how things stand.
func (e *Elector) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// APIReachable says whether the API server answered the last request for the
// Lease. It is false until the first answer.
func (e *Elector) APIReachable() bool { return e.Status().Contact.Reachable() }

// Run takes part in the election until ctx is done. It may be called once. It
// makes no last decision: who is told of decisions stops announcing when they
// cease to come.
func (e *Elector) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	w := &watcher{
		leases: e.options.Leases, name: e.options.Name, duration: e.duration,
		now: e.options.Now, jitter: e.options.Jitter, again: e.again, out: e.messages,
	}
	running.Go(func() { w.run(ctx) })

	loop := &loop{
		Elector: e,
		belief: belief{
			self: e.writer.self, duration: e.duration(), group: e.options.Name,
			own: Own{Restored: e.options.Restored.Active, Epoch: e.options.Restored.Epoch},
		},
		start: func(write func()) { running.Go(write) },
	}
	loop.run(ctx)
}

// loop is the state of Run.
type loop struct {
	*Elector
	belief belief
	// writing is true while a write is under way.
	writing bool
	// start runs a write on a goroutine of its own.
	start  func(write func())
	active bool
}

func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		d := l.decide()
		if d.Write != None && !l.writing {
			l.write(ctx, d)
		}
		timer.Reset(l.until(d))
		select {
		case <-ctx.Done():
			return
		case m := <-l.messages:
			m(&l.belief, l.options.Now())
		case <-l.nudge:
			l.belief.wake(l.options.Now())
		case <-timer.C:
		}
	}
}

// until returns how long to wait for an event before deciding again.
func (l *loop) until(d Decision) time.Duration {
	if d.NextAt.IsZero() {
		return tick
	}
	return max(0, min(tick, d.NextAt.Sub(l.options.Now())))
}

// decide decides and tells whoever wants to know.
func (l *loop) decide() Decision {
	now := l.options.Now()
	l.mu.Lock()
	l.belief.set(now, l.settings, l.standing, l.peers, l.heardAt, l.terminating)
	l.belief.gossip(now, l.witnesses)
	l.belief.sounded(now, l.sounding)
	l.mu.Unlock()
	d := l.belief.decide(now)
	d.Claim = l.belief.claim

	l.mu.Lock()
	l.status = Status{Decision: d, Lease: l.belief.lease, Contact: l.belief.contact, RenewSent: l.belief.own.RenewSent}
	l.mu.Unlock()

	if l.options.OnDecision != nil {
		l.options.OnDecision(d)
	}
	l.tellRole(now, d)
	if l.belief.self.Terminating && !d.Announce && !l.writing && l.belief.gone() {
		l.closeYielded()
	}
	return d
}

func (l *loop) tellRole(now time.Time, d Decision) {
	change := RoleChange{At: now, Active: d.Announce, Confirmed: d.Confirmed, Epoch: d.Epoch, Reason: d.Reason}
	if how := l.belief.acquired; d.Confirmed && how.reason != "" {
		change.Reason = how.reason
		if how.reason != Handover {
			change.Gap = now.Sub(how.since)
		}
		l.belief.acquired = acquisition{}
	}
	if d.Announce == l.active {
		return
	}
	l.active = d.Announce
	if l.options.OnRole != nil {
		l.options.OnRole(change)
	}
}

func (l *loop) closeYielded() {
	select {
	case <-l.yielded:
	default:
		close(l.yielded)
	}
}

// write sends the decision's write. Its answer comes as a message.
func (l *loop) write(ctx context.Context, d Decision) {
	l.writing = true
	sent := l.options.Now()
	l.belief.sending(sent, d)
	read, duration := l.belief.object, l.belief.duration
	l.start(func() {
		answer := l.send(ctx, d, read, sent, duration)
		select {
		case <-ctx.Done():
		case l.messages <- func(b *belief, now time.Time) {
			l.writing = false
			answer(b, now)
			if b.lease.Unsure {
				signal(l.again)
			}
		}:
		}
	})
}

// send performs the write and returns what it means to the belief.
func (l *loop) send(ctx context.Context, d Decision, read *coordinationv1.Lease, sent time.Time, duration time.Duration) message {
	ctx, cancel := context.WithTimeout(ctx, duration/3)
	defer cancel()
	object := l.writer.object(d, read, sent, duration)
	var err error
	if d.Write == Create {
		object, err = l.options.Leases.Create(ctx, object, metav1.CreateOptions{})
	} else {
		object, err = l.options.Leases.Update(ctx, object, metav1.UpdateOptions{})
	}
	switch {
	case err == nil:
		return func(b *belief, now time.Time) { b.wrote(now, object) }
	case isRefusal(err):
		return func(b *belief, now time.Time) { b.refused(now) }
	default:
		return func(b *belief, now time.Time) { b.unanswered(now, sent) }
	}
}

// isRefusal says that the API server answered, and that the Lease is not what
// the write started from.
func isRefusal(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}

// signal puts a token into a channel with room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

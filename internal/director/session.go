package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// group is the only group of a pool: all its VIPs move together.
const group = 0

// How long a director that leaves waits for its Lease to be given up, and, if
// there is a peer to take it, for that one to be heard.
const (
	releasePatience  = 2 * time.Second
	handoverPatience = 10 * time.Second
)

const (
	// judgeEvery is how often it is looked whether the director could become
	// active, without any news; judgeGather is how long news are gathered.
	judgeEvery  = 500 * time.Millisecond
	judgeGather = 10 * time.Millisecond
	// pendingPatience is how long it is not said that a director is active no more
	// while it has yet to find out.
	pendingPatience = 3 * time.Second
	// peersFade is how long after a takeover frames of peers are taken for what
	// was under way.
	peersFade = 2 * time.Second
)

// ErrKubeProxyIPVS says that kube-proxy's ipvs mode runs on the node.
var ErrKubeProxyIPVS = errors.New("kube-proxy runs in ipvs mode here and would delete the services")

// session is a director's membership in one pool: its Lease, its announcer and
// the preparation of its node.
type session struct {
	d       *Director
	name    string
	fence   *announce.Fence
	elector *election.Elector
	gossip  *gossiping
	ended   chan struct{}
	// nudge asks for a look at what is announced, reconfigured says that the
	// pool's settings changed, relinked that the links may have by which real
	// servers are reached.
	nudge, reconfigured, relinked chan struct{}

	// started and startedBoot are the same moment by two clocks.
	started     time.Time
	startedBoot time.Duration

	// answered is when it last announced against a dead peer's kernel. It is
	// hearClaims's own.
	answered time.Time

	mu        sync.Mutex
	pool      Pool
	announcer *announce.Announcer
	announced []netip.Addr
	decision  election.Decision
	since     time.Time
	// pendingSince is since when the decision has been pending; zero if it is not.
	pendingSince time.Time
	term         term
	last         *Transition
	waiting      Waiting
	// refused are the keys that the kernel has refused for a while, if VIPs can be
	// served here at all.
	refused []Failure
	node    nodeState
	// links are the interfaces that the node was last prepared with, besides the
	// announcement interface.
	links     []string
	conflicts conflicts
	relay     relay
	// plannedAt is when it was first known what is to be served.
	plannedAt time.Time
	// programmed says that all that was to be served has been in the kernel since
	// VIPs can be served here. What is added later takes its moment, and does not
	// make a director that serves the others one that cannot.
	programmed bool
	// owed says that the Lease was this director's when it left the pool, and
	// could not be given up.
	owed bool
}

// term is the time for which the Lease is this director's; zero if it is not, or
// if nobody knows.
type term struct {
	epoch int64
	since time.Time
}

// nodeState is what the session knows of its node.
type nodeState struct {
	link  kernel.Link
	facts kernel.Facts
	// err is why VIPs cannot be served here; ErrPending before the first look.
	err error
	// refused is why the link cannot be announced on.
	refused error
}

// Waiting is why a director should not become active; the zero Waiting is that
// it may.
type Waiting struct {
	For     Wait
	Message string
}

// Wait is what a director waits for before it may become active.
type Wait int

// What there is to wait for. WaitingForPeer lies with a peer: its kernel answers
// for the VIPs until it has seen that this director is ready.
const (
	WaitingForNothing Wait = iota
	WaitingForPool
	WaitingForNode
	WaitingForLink
	WaitingForPlan
	WaitingForKernel
	WaitingForVerdicts
	WaitingForPeer
)

// Transition is a change between active and standby.
type Transition struct {
	Active bool
	Reason string
	At     time.Time
	// Gap is how long nobody was seen to hold the group before; 0 if unknown.
	Gap time.Duration
}

// ErrPending says that the node has not been prepared yet.
var ErrPending = errors.New("the node has not been prepared yet")

func newSession(d *Director, pool Pool, restored *checkpoint.Checkpoint) *session {
	role := roleIn(restored, pool.Name)
	s := &session{
		d:            d,
		name:         pool.Name,
		pool:         pool,
		fence:        announce.NewFence(d.cfg.Clock),
		ended:        make(chan struct{}),
		nudge:        make(chan struct{}, 1),
		reconfigured: make(chan struct{}, 1),
		relinked:     make(chan struct{}, 1),
		started:      time.Now(),
		startedBoot:  d.cfg.Clock(),
		node:         nodeState{err: ErrPending},
		links:        linksIn(restored, pool.Name),
		decision:     election.Decision{Epoch: role.Epoch},
		pendingSince: time.Now(),
		relay:        relay{previous: previousIn(restored, pool.Name)},
	}
	s.gossip = newGossiping(d, pool.Name, s.now, s.refresh)
	s.elector = election.New(election.Options{
		Leases:     d.cfg.Leases,
		Namespace:  d.cfg.Namespace,
		Name:       election.LeaseName(pool.Name, group),
		Node:       d.cfg.Node,
		Instance:   d.cfg.Instance,
		Settings:   settings(pool),
		Restored:   role,
		Now:        s.now,
		OnDecision: s.decided,
		OnRole:     s.changedRole,
	})
	return s
}

// settings are the pool's for the election.
func settings(pool Pool) election.Settings {
	s := pool.Election
	s.LeaseDuration = cmp.Or(s.LeaseDuration, LeaseDuration)
	return s
}

// now is the elector's clock. It goes on while the machine is suspended, and a
// time can be read back as one of the fence's.
func (s *session) now() time.Time { return s.started.Add(s.fence.Now() - s.startedBoot) }

// run serves the pool until ctx ends; then the Lease is given up.
func (s *session) run(ctx context.Context) {
	s.d.worker.Block(ErrPending)
	working, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { s.elector.Run(working) })
	running.Go(func() { s.judge(working) })
	running.Go(func() { s.gossip.run(working) })
	running.Go(func() { s.onInterfaces(working) })
	<-ctx.Done()
	s.yield(working)
	end()
	running.Wait()
}

// yield gives the Lease up. If that fails it is still this director's, and the
// next process has to know, in case the API server stays away: so the checkpoint
// says that the group is.
func (s *session) yield(ctx context.Context) {
	s.mu.Lock()
	s.owed = s.decision.Announce
	s.mu.Unlock()
	patience := releasePatience
	if slices.ContainsFunc(s.d.electorate(), func(p election.Peer) bool { return p.Candidate }) {
		patience = handoverPatience
	}
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := s.elector.Yield(ctx); err != nil {
		s.d.cfg.Log.Warn("Leaving the pool without having given up its Lease", "pool", s.name, "error", err)
		return
	}
	s.mu.Lock()
	s.owed = false
	s.mu.Unlock()
	s.d.store.changed()
}

// part returns the director's part in the group, for the checkpoint.
func (s *session) part() checkpoint.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return checkpoint.Group{
		Group: group, Epoch: s.decision.Epoch, Active: s.decision.Announce || s.owed, Previous: s.relay.previous,
	}
}

// onInterfaces works on one announcement interface after the other, as the
// pool's settings have it, until ctx ends.
func (s *session) onInterfaces(ctx context.Context) {
	for ctx.Err() == nil {
		inner, end := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() { s.onInterface(inner) })
		select {
		case <-ctx.Done():
		case <-s.reconfigured:
		}
		end()
		running.Wait()
	}
}

// configure hands new settings of the pool to the session.
func (s *session) configure(pool Pool) {
	s.elector.Configure(settings(pool))
	s.mu.Lock()
	before := s.pool
	s.pool = pool
	s.mu.Unlock()
	if before.Election, before.Gossip = pool.Election, pool.Gossip; before.equal(pool) {
		s.refresh()
		return
	}
	select {
	case s.reconfigured <- struct{}{}:
	default:
	}
}

// refresh asks for a look at what is announced.
func (s *session) refresh() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// judge keeps up to date whether this director could become active, and what
// it announces if it is.
func (s *session) judge(ctx context.Context) {
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	for {
		waiting, refused := s.whyNoCandidate(), s.d.worker.Refused()
		s.mu.Lock()
		if s.node.err != nil {
			refused = nil
		}
		faded := s.conflicts.fade()
		changed := s.waiting != waiting || faded || fmt.Sprint(s.refused) != fmt.Sprint(refused)
		s.waiting, s.refused = waiting, refused
		s.mu.Unlock()
		s.elector.SetPeers(s.d.electorate())
		standing := s.standing(waiting)
		s.elector.SetStanding(standing)
		s.gossipOn(standing)
		s.announce()
		s.answer()
		s.relayOn(ctx)
		s.measure()
		if changed {
			s.d.cfg.Changed(netstate.Key{})
		}
		select {
		case <-ctx.Done():
			return
		case <-s.nudge:
			// A thousand VIPs that change at once are looked at once.
			if !wait(ctx, judgeGather) {
				return
			}
		case <-ticker.C:
		}
	}
}

// measure keeps the metrics of the Lease.
func (s *session) measure() {
	renewed := s.elector.Status().RenewSent
	if !renewed.IsZero() {
		renewed = time.Now().Add(renewed.Sub(s.now()))
	}
	s.mu.Lock()
	relaying := s.relay.set != nil && len(s.relay.set.To) > 0
	s.mu.Unlock()
	s.d.cfg.Metrics.lease(fmt.Sprint(group), renewed, relaying)
}

// standing is how this director stands in the election. A holder whose link is
// down, or whose kernel refuses all, is unfit; one that has yet to find out is
// not. One whose kernel refuses some of the VIPs is impaired.
func (s *session) standing(waiting Waiting) election.Standing {
	s.mu.Lock()
	node, impaired := s.node, len(s.refused) > 0
	s.mu.Unlock()
	refused := node.err != nil && !errors.Is(node.err, ErrPending)
	down := node.link.Exists() && (!node.link.Up || !node.link.Running)
	rank := s.d.ownRank()
	return election.Standing{
		Candidate: waiting == Waiting{}, Unfit: refused || down || node.refused != nil,
		Impaired: impaired, Cordoned: rank.Cordoned, Priority: rank.Priority,
	}
}

// whyNoCandidate returns why this director should not become active, or the
// zero Waiting if it may.
func (s *session) whyNoCandidate() Waiting {
	planned := s.d.planned(s.name)
	inKernel := planned && len(s.d.worker.Unready()) == 0
	s.mu.Lock()
	if planned && s.plannedAt.IsZero() {
		s.plannedAt = time.Now()
	}
	s.programmed = s.node.err == nil && (s.programmed || inKernel)
	node, plannedAt, programmed := s.node, s.plannedAt, s.programmed
	s.mu.Unlock()
	switch {
	case node.err != nil:
		return Waiting{WaitingForNode, node.err.Error()}
	case node.refused != nil:
		return Waiting{WaitingForLink, node.refused.Error()}
	case !node.link.Up || !node.link.Running:
		return Waiting{WaitingForLink, fmt.Sprintf("interface %s is down", node.link.Name)}
	case !planned:
		return Waiting{WaitingForPlan, "the VirtualServers have not been read yet"}
	case !programmed:
		return Waiting{WaitingForKernel, "VIPs are not in the kernel yet"}
	case time.Since(plannedAt) < verdictPatience && s.d.verdictsMissing():
		return Waiting{WaitingForVerdicts, "real servers have no verdict yet"}
	case s.d.peerKernelAnswers() != "":
		return Waiting{WaitingForPeer, "the VIPs are still answered for by the kernel of " + s.d.peerKernelAnswers()}
	default:
		return Waiting{}
	}
}

// decided carries out a decision of the elector: it is called after each, at
// least every 50 ms.
func (s *session) decided(decision election.Decision) {
	s.mu.Lock()
	changed := decision.Announce != s.decision.Announce
	told := decision.Epoch != s.decision.Epoch || decision.Confirmed != s.decision.Confirmed
	s.decision = decision
	settled := s.pend(decision.Pending())
	followed := s.relay.follow(decision.Holder, s.d.cfg.Node, decision.Announce)
	if changed {
		s.since, s.conflicts = time.Now(), conflicts{}
		s.relay.first, s.relay.probed = true, time.Time{}
	}
	if held := decision.Announce && decision.Confirmed; !held {
		s.term = term{}
	} else if s.term.epoch != decision.Epoch {
		s.term = term{decision.Epoch, time.Now()}
	}
	s.mu.Unlock()
	if changed {
		s.announce()
	}
	if changed || followed {
		s.refresh()
	}
	s.fence.Beat(s.startedBoot + decision.At.Sub(s.started))
	s.tell()
	if changed || told || followed || settled {
		s.d.store.changed()
		s.d.cfg.Changed(netstate.Key{})
	}
}

// pend notes whether the decision is pending, and says whether it is no more. s.mu
// is held.
func (s *session) pend(pending bool) (settled bool) {
	switch {
	case !pending:
		settled = !s.pendingSince.IsZero()
		s.pendingSince = time.Time{}
	case s.pendingSince.IsZero():
		s.pendingSince = time.Now()
	}
	return settled
}

// awake says whether the last decision is young enough to go by. While a process
// stands still it is not, and whoever asks first when it wakes must not be told that
// the director is active. s.mu is held.
func (s *session) awake() bool {
	return s.now().Sub(s.decision.At) < settings(s.pool).LeaseDuration
}

// changedRole notes a change of role.
func (s *session) changedRole(change election.RoleChange) {
	s.transition(Transition{Active: change.Active, Reason: string(change.Reason), At: time.Now(), Gap: change.Gap})
}

// transition notes a change of role.
func (s *session) transition(t Transition) {
	s.d.cfg.Metrics.role(fmt.Sprint(group), t.Active, t.Reason)
	s.d.cfg.Log.Info("Changed role", "pool", s.name, "group", group, "active", t.Active, "reason", t.Reason, "gap", t.Gap)
	s.mu.Lock()
	s.last = &t
	s.mu.Unlock()
	s.d.cfg.Changed(netstate.Key{})
	for _, key := range s.d.worker.Served() {
		s.d.cfg.Changed(key)
	}
}

// announce brings the announcer to what is decided and in the kernel.
func (s *session) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announcer == nil {
		return
	}
	var all []netip.Addr
	for _, key := range s.d.worker.Announceable() {
		if key.Addr.IsValid() {
			all = append(all, key.Addr)
		}
	}
	s.announcer.SetVIPs(all)
	if !s.decision.Announce {
		all = nil
	}
	s.announcer.SetActive(all)
	if !slices.Equal(all, s.announced) {
		s.announced = all
		s.d.cfg.Changed(netstate.Key{})
		for _, addr := range all {
			s.d.cfg.Changed(netstate.Key{Addr: addr})
		}
	}
}

// answer lets the kernel answer for the VIPs while no other director could.
// A crash gives no warning, so it does as soon as the director is alone. What an
// earlier process left is taken away once there is company, or another
// director holds the Lease, and not because this one has yet to find out.
func (s *session) answer() {
	company := s.d.company()
	s.mu.Lock()
	decision, link, served := s.decision, s.node.link.Name, s.node.err == nil
	s.mu.Unlock()
	switch {
	case company == accompanied || decision.Reason == election.HeldByOther || decision.Reason == election.Expired:
		s.d.worker.Answer("")
	case company == alone && decision.Announce && served && link != "":
		s.d.worker.Answer(link)
	}
	_, _, _, answers := s.d.worker.Counts()
	s.d.cfg.Metrics.serving(len(s.d.worker.Announceable()), s.d.worker.QuorumsLost(), answers)
}

package director

import (
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
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// How long a director that leaves waits for its Leases to be given up, and, if
// there is a peer to take them, for that one to be heard.
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

// session is a director's membership in one pool: its part in the groups, its
// announcer and the preparation of its node.
type session struct {
	d     *Director
	name  string
	fence *announce.Fence
	// groups are those of the pool, by their numbers.
	groups  []*group
	ended   chan struct{}
	gossip  *gossiping
	sounder sounder
	// nudge asks for a look at what is announced, reconfigured says that the
	// pool's settings changed, relinked that the links may have by which real
	// servers are reached.
	nudge, reconfigured, relinked chan struct{}
	// resync asks for a look at the connections that are shared.
	resync chan struct{}

	// started and startedBoot are the same moment by two clocks.
	started     time.Time
	startedBoot time.Duration

	// peerClaims are to be looked into.
	peerClaims chan announce.Claim

	// answered is when it last announced against a dead peer's kernel. It is
	// hearClaims's own.
	answered time.Time

	mu        sync.Mutex
	pool      Pool
	announcer *announce.Announcer
	announced []netip.Addr
	waiting   Waiting
	// refused are the keys that the kernel has refused for a while, if VIPs can be
	// served here at all.
	refused []Failure
	node    nodeState
	// links are the interfaces that the node was last prepared with, besides the
	// announcement interface.
	links []string
	// told is what IPVS was told of connections in their middle; nil if nothing yet.
	told   *netstate.Sloppy
	relay  relay
	naming naming
	// words are what the active directors of the groups said of their servers of late.
	// The map is replaced, and never changed.
	words   map[gossip.Service]word
	syncing syncing
	// plannedAt is when it was first known what is to be served.
	plannedAt time.Time
	// programmed says that all that was to be served has been in the kernel since
	// VIPs can be served here. What is added later takes its moment, and does not
	// make a director that serves the others one that cannot.
	programmed bool
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

// What there is to wait for. The last two lie with a peer: with WaitingForPeer its
// kernel answers for the VIPs until it has seen that this director is ready, with
// WaitingForPeerGuard its guard does not tell this director from clients yet.
const (
	WaitingForNothing Wait = iota
	WaitingForPool
	WaitingForNode
	WaitingForLink
	WaitingForPlan
	WaitingForKernel
	WaitingForVerdicts
	WaitingForPeer
	WaitingForPeerGuard
)

// mine says that what is waited for lies with this director, or with the cluster.
func (w Waiting) mine() bool {
	return w.For != WaitingForNothing && w.For != WaitingForPeer && w.For != WaitingForPeerGuard
}

// Transition is a change between active and standby.
type Transition struct {
	Group  int
	Active bool
	Reason string
	At     time.Time
	// Gap is how long nobody was seen to hold the group before; 0 if unknown.
	Gap time.Duration
}

// ErrPending says that the node has not been prepared yet.
var ErrPending = errors.New("the node has not been prepared yet")

func newSession(d *Director, pool Pool, restored *checkpoint.Checkpoint) *session {
	s := &session{
		d:            d,
		name:         pool.Name,
		pool:         pool,
		fence:        announce.NewFence(d.cfg.Clock),
		ended:        make(chan struct{}),
		nudge:        make(chan struct{}, 1),
		reconfigured: make(chan struct{}, 1),
		relinked:     make(chan struct{}, 1),
		peerClaims:   make(chan announce.Claim, 1),
		resync:       make(chan struct{}, 1),
		started:      time.Now(),
		startedBoot:  d.cfg.Clock(),
		node:         nodeState{err: ErrPending},
		links:        linksIn(restored, pool.Name),
	}
	s.sounder.asked = make(chan struct{}, 1)
	s.gossip = newGossiping(d, pool.Name, s.now, func() { s.testify(); s.refresh() })
	for number := range pool.groups() {
		s.groups = append(s.groups, newGroup(s, number, restored))
	}
	d.cfg.Metrics.groups(len(s.groups))
	return s
}

// now is the electors' clock. It goes on while the machine is suspended, and a
// time can be read back as one of the fence's.
func (s *session) now() time.Time { return s.started.Add(s.fence.Now() - s.startedBoot) }

// run serves the pool until ctx ends; then the Leases are given up.
func (s *session) run(ctx context.Context) {
	s.d.worker.Block(ErrPending)
	working, end := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	// Before the electors' first decision: they are to hear whom to wait for.
	s.testify()
	for _, g := range s.groups {
		running.Go(func() { g.elector.Run(working) })
	}
	running.Go(func() { s.judge(working) })
	running.Go(func() { s.gossip.run(working) })
	running.Go(func() { s.onInterfaces(working) })
	<-ctx.Done()
	s.yield(working)
	end()
	running.Wait()
}

// yield gives the Leases up, all at once. If that fails one is still this
// director's, and the next process has to know, in case the API server stays away:
// so the checkpoint says that the group is.
func (s *session) yield(ctx context.Context) {
	patience := releasePatience
	if slices.ContainsFunc(s.d.electorate(), func(p election.Peer) bool { return p.Candidate }) {
		patience = handoverPatience
	}
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	var yielding sync.WaitGroup
	for _, g := range s.groups {
		s.mu.Lock()
		g.owed = g.decision.Announce
		s.mu.Unlock()
		yielding.Go(func() {
			if err := g.elector.Yield(ctx); err != nil {
				s.d.cfg.Log.Warn("Leaving the pool without having given up a Lease", "pool", s.name, "group", g.number, "error", err)
				return
			}
			s.mu.Lock()
			g.owed = false
			s.mu.Unlock()
		})
	}
	yielding.Wait()
	s.d.store.changed()
}

// parts returns the director's part in each group, for the checkpoint.
func (s *session) parts() []checkpoint.Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []checkpoint.Group
	for _, g := range s.groups {
		parts = append(parts, g.part())
	}
	return parts
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
	for _, g := range s.groups {
		g.elector.Configure(settings(pool))
	}
	s.mu.Lock()
	before := s.pool
	s.pool = pool
	s.mu.Unlock()
	before.Election, before.ConnectionSync, before.Gossip = pool.Election, pool.ConnectionSync, pool.Gossip
	if before.equal(pool) {
		s.resyncSoon()
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
		faded := false
		for _, g := range s.groups {
			faded = g.conflicts.fade() || faded
		}
		changed := s.waiting != waiting || faded || fmt.Sprint(s.refused) != fmt.Sprint(refused)
		s.waiting, s.refused = waiting, refused
		s.mu.Unlock()
		s.gossipOn(s.takePart(waiting))
		s.announce()
		s.answer()
		s.nameDirectors(ctx)
		s.converse()
		s.relayOn(ctx)
		s.slop()
		s.resyncSoon()
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

// measure keeps the metrics of the Leases.
func (s *session) measure() {
	relaying := s.relaying()
	s.d.cfg.Metrics.isolated(s.isolated())
	for _, g := range s.groups {
		renewed := g.elector.Status().RenewSent
		if !renewed.IsZero() {
			renewed = time.Now().Add(renewed.Sub(s.now()))
		}
		s.d.cfg.Metrics.lease(fmt.Sprint(g.number), renewed, relaying[g])
	}
}

// isolated says whether an election found that nobody on the segment answers any
// more.
func (s *session) isolated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.groups, func(g *group) bool { return g.decision.Isolated })
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
	}
	if node := s.unknownTo(); node != "" {
		return Waiting{WaitingForPeerGuard, "the guard on " + node + " does not know this director's MAC address yet"}
	}
	return Waiting{}
}

// announce brings the announcer to what is decided and in the kernel.
func (s *session) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announcer == nil {
		return
	}
	var all, active []netip.Addr
	for _, key := range s.d.worker.Announceable() {
		if !key.Addr.IsValid() {
			continue
		}
		all = append(all, key.Addr)
		if s.of(key.Addr).decision.Announce {
			active = append(active, key.Addr)
		}
	}
	s.announcer.SetVIPs(all)
	s.announcer.SetOwn(s.d.ownAddresses(s.node.link))
	s.announcer.SetActive(active)
	if slices.Equal(active, s.announced) {
		return
	}
	before := s.announced
	s.announced = active
	s.d.cfg.Changed(netstate.Key{})
	for _, addr := range active {
		if !slices.Contains(before, addr) {
			s.d.cfg.Changed(netstate.Key{Addr: addr})
		}
	}
}

// answer lets the kernel answer for the VIPs that are this director's while no
// other director could take them. A crash gives no warning, so it does as soon as
// the director is alone. What an earlier process left is taken away once there is
// company, or another director holds the Lease, and not because this one has yet to
// find out.
func (s *session) answer() {
	company := s.d.company()
	s.mu.Lock()
	link, served := s.node.link.Name, s.node.err == nil
	how := answers{groups: len(s.groups)}
	for _, g := range s.groups {
		reason := g.decision.Reason
		switch {
		case company == accompanied || reason == election.HeldByOther || reason == election.Expired || reason == election.HolderDead:
			how.decided = how.decided.with(g.number)
		case company == alone && g.decision.Announce && served && link != "":
			how.decided, how.on, how.link = how.decided.with(g.number), how.on.with(g.number), link
		}
	}
	s.mu.Unlock()
	if how.decided != 0 {
		s.d.worker.Answer(how)
	}
	_, _, _, answering := s.d.worker.Counts()
	s.d.cfg.Metrics.serving(len(s.d.worker.Announceable()), s.d.worker.QuorumsLost(), answering)
}

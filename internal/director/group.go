package director

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// group is a session's part in one of the pool's groups: the VIPs of a group move
// together, and what happens to one group is nothing to the others. Fields that
// change are guarded by the session's mu.
type group struct {
	s       *session
	number  int
	elector *election.Elector

	decision election.Decision
	since    time.Time
	// facts is when those of the last decision that was carried out were read, by
	// the fence's clock; before the first it is nothing.
	facts   time.Duration
	decided bool
	// pendingSince is since when the decision has been pending; zero if it is not.
	pendingSince time.Time
	term         term
	holding      holding
	last         *Transition
	conflicts    conflicts
	// previous is the node of the last other director that held the Lease.
	previous string
	// sounded is when the elector was last told how the segment answered.
	sounded time.Time
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

// holding is who holds the Lease, in which epoch, and since when that has been
// known here.
type holding struct {
	node  string
	epoch int64
	since time.Time
}

func newGroup(s *session, number int, c *checkpoint.Checkpoint) *group {
	part := partIn(c, s.pool, number)
	g := &group{
		s: s, number: number,
		decision: election.Decision{Epoch: part.Epoch}, pendingSince: time.Now(), previous: part.Previous,
	}
	g.elector = election.New(election.Options{
		Leases:     s.d.cfg.Leases,
		Namespace:  s.d.cfg.Namespace,
		Name:       election.LeaseName(s.name, number),
		Node:       s.d.cfg.Node,
		Instance:   s.d.cfg.Instance,
		Settings:   settings(s.pool),
		Restored:   election.Restored{Epoch: part.Epoch, Active: part.Active},
		Now:        s.now,
		OnDecision: g.decide,
		OnRole:     g.changedRole,
	})
	return g
}

// partIn returns what a checkpoint says of the director's part in a group of the
// pool. Where the pool had another number of groups it says nothing: its VIPs
// were in others.
func partIn(c *checkpoint.Checkpoint, pool Pool, number int) checkpoint.Group {
	if c == nil || c.Pool != pool.Name || poolIn(*c).groups() != pool.groups() {
		return checkpoint.Group{}
	}
	for _, g := range c.Groups {
		if g.Group == number {
			return g
		}
	}
	return checkpoint.Group{}
}

// settings are the pool's for the election.
func settings(pool Pool) election.Settings {
	s := pool.Election
	s.LeaseDuration = cmp.Or(s.LeaseDuration, LeaseDuration)
	return s
}

// part returns the director's part in the group, for the checkpoint. The session's
// mu is held.
func (g *group) part() checkpoint.Group {
	return checkpoint.Group{
		Group: g.number, Epoch: g.decision.Epoch, Active: g.decision.Announce || g.owed, Previous: g.previous,
	}
}

// decide carries out a decision of the elector: it is called after each, at
// least every 50 ms.
func (g *group) decide(decision election.Decision) {
	s, lease := g.s, g.elector.Status().Lease
	s.mu.Lock()
	changed := decision.Announce != g.decision.Announce
	told := decision.Epoch != g.decision.Epoch || decision.Confirmed != g.decision.Confirmed
	moved := decision.Holder != g.decision.Holder
	g.decision = decision
	settled := g.pend(decision.Pending())
	followed := g.follow(decision.Holder, decision.Announce)
	if changed {
		g.since, g.conflicts = time.Now(), conflicts{}
		s.relay.expect(g.previous)
	}
	if held := decision.Announce && decision.Confirmed; !held {
		g.term = term{}
	} else if g.term.epoch != decision.Epoch {
		g.term = term{decision.Epoch, time.Now()}
	}
	if decision.Holder != g.holding.node || lease.Epoch != g.holding.epoch {
		g.holding = holding{decision.Holder, lease.Epoch, time.Now()}
	}
	s.mu.Unlock()
	if changed {
		s.announce()
	}
	if changed || followed || moved {
		s.refresh()
	}
	s.beat(g, s.startedBoot+decision.At.Sub(s.started))
	s.tell()
	if decision.Probe != "" {
		s.sound()
	}
	if changed || told || moved || settled {
		s.d.store.changed()
		s.d.cfg.Changed(netstate.Key{})
	}
}

// beat lets the announcer speak by the decision of which the facts are as old as
// that. There is one announcer for all groups, and one fence: it is as old as the
// oldest decision among them. So a group whose elector stands still silences the
// others too, and none is answered for by a decision that was made before the
// process stood still.
func (s *session) beat(g *group, facts time.Duration) {
	s.mu.Lock()
	g.facts, g.decided = facts, true
	for _, other := range s.groups {
		if !other.decided {
			s.mu.Unlock()
			return
		}
		facts = min(facts, other.facts)
	}
	s.mu.Unlock()
	s.fence.Beat(facts)
}

// pend notes whether the decision is pending, and says whether it is no more. The
// session's mu is held.
func (g *group) pend(pending bool) (settled bool) {
	switch {
	case !pending:
		settled = !g.pendingSince.IsZero()
		g.pendingSince = time.Time{}
	case g.pendingSince.IsZero():
		g.pendingSince = time.Now()
	}
	return settled
}

// awake says whether the last decision is young enough to go by. While a process
// stands still it is not, and whoever asks first when it wakes must not be told that
// the director is active. The session's mu is held.
func (g *group) awake() bool {
	return g.s.now().Sub(g.decision.At) < settings(g.s.pool).LeaseDuration
}

// changedRole notes a change of role.
func (g *group) changedRole(change election.RoleChange) {
	g.transition(Transition{
		Group: g.number, Active: change.Active, Reason: string(change.Reason), At: time.Now(), Gap: change.Gap,
	})
}

func (g *group) transition(t Transition) {
	s := g.s
	s.d.cfg.Metrics.role(fmt.Sprint(g.number), t.Active, t.Reason)
	s.d.cfg.Log.Info("Changed role", "pool", s.name, "group", g.number, "active", t.Active, "reason", t.Reason, "gap", t.Gap)
	s.mu.Lock()
	g.last = &t
	if t.Active && t.Reason == string(election.HolderDead) && g.previous != "" {
		// It was asked for and did not answer: nobody is left to hand connections to.
		s.relay.lose(g.previous)
	}
	s.mu.Unlock()
	s.d.cfg.Changed(netstate.Key{})
	for _, key := range s.d.worker.Served() {
		if s.of(key.Addr) == g {
			s.d.cfg.Changed(key)
		}
	}
}

// standing is how this director stands in the group's election. A holder whose
// link is down, or whose kernel refuses all, is unfit; one that has yet to find out
// is not. One whose kernel refuses some of the group's VIPs is impaired.
func (g *group) standing(waiting Waiting, rank Rank) election.Standing {
	s := g.s
	cold := s.cold()
	s.mu.Lock()
	defer s.mu.Unlock()
	node := s.node
	refused := node.err != nil && !errors.Is(node.err, ErrPending)
	down := node.link.Exists() && (!node.link.Up || !node.link.Running)
	impaired := false
	for _, failure := range s.refused {
		impaired = impaired || s.of(failure.Key.Addr) == g
	}
	return election.Standing{
		Candidate: waiting == Waiting{}, Unfit: refused || down || node.refused != nil,
		Impaired: impaired, Cordoned: rank.Cordoned, Cold: cold, Priority: rank.Priority,
	}
}

// of returns the group that a VIP is in.
func (s *session) of(vip netip.Addr) *group { return s.groups[election.GroupOf(vip, len(s.groups))] }

// takePart takes part in the elections as the director and its peers stand now. It
// returns how the director stands whatever the group.
func (s *session) takePart(waiting Waiting) election.Standing {
	rank, cold := s.d.ownRank(), s.cold()
	s.mu.Lock()
	spread := election.Spread{Pool: s.name}
	for _, g := range s.groups {
		spread.Holders = append(spread.Holders, g.decision.Holder)
	}
	self := election.Peer{
		Node: s.d.cfg.Node, Candidate: waiting == Waiting{}, Impaired: len(s.refused) > 0, Cordoned: rank.Cordoned, Cold: cold, Priority: rank.Priority,
	}
	s.mu.Unlock()
	peers := s.d.electorate()
	for i := range peers {
		peers[i].Held = spread.Held(peers[i].Node)
	}
	wanted, any := spread.Wanted(self, peers)
	for _, g := range s.groups {
		standing := g.standing(waiting, rank)
		standing.Held, standing.Wants = spread.Held(s.d.cfg.Node), any && wanted == g.number
		g.elector.SetPeers(peers)
		g.elector.SetStanding(standing)
	}
	s.testify()
	return election.Standing{
		Candidate: self.Candidate, Impaired: self.Impaired, Cordoned: self.Cordoned, Cold: self.Cold, Priority: self.Priority,
	}
}

package election

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func dying(_ *world, n *node, _ *group)      { n.crashMachine() }
func unplugging(_ *world, n *node, _ *group) { n.place.unplugged = true }
func plugging(_ *world, n *node, _ *group)   { n.place.unplugged = false }
func blocking(w *world, _ *node, _ *group)   { w.medium.blocked = true }
func unblocking(w *world, _ *node, _ *group) { w.medium.blocked = false }
func muffling(w *world, _ *node, _ *group)   { w.medium.loss = 0.3 }
func clearing(w *world, _ *node, _ *group)   { w.medium.loss = 0 }
func cuttingAll(w *world, _ *node, _ *group) { w.away(true) }
func joiningAll(w *world, _ *node, _ *group) { w.away(false) }
func splitting(w *world, n *node, _ *group) {
	w.medium.part(n, w.nodes[w.rand.IntN(len(w.nodes))], false)
}

func estranging(w *world, n *node, _ *group) {
	w.medium.part(n, w.nodes[w.rand.IntN(len(w.nodes))], true)
}
func reconciling(w *world, _ *node, _ *group) { w.medium.silent, w.medium.split = nil, nil }

// away takes the API server from all directors, or gives it back.
func (w *world) away(away bool) {
	for _, n := range w.nodes {
		n.cut = away
	}
}

// gossiping draws a world with gossip in which nothing takes longer on its way
// than slowest.
func gossiping(t *rapid.T, slowest time.Duration) *world {
	w := newFastWorld(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"), rapid.SampledFrom([]int{1, 1, 2}).Draw(t, "groups"), slowest)
	w.gossip()
	return w
}

// moment lets up to two seconds pass, so that what follows happens at any phase.
func (w *world) moment(t *rapid.T) {
	w.run(time.Duration(rapid.IntRange(0, 2000).Draw(t, "moment")) * time.Millisecond)
}

// stays checks for a while that nothing moves.
func (w *world) stays(t *rapid.T, holders []*part, while time.Duration) {
	t.Helper()
	for end := w.now.Add(while); w.now.Before(end); {
		w.run(tick)
		if got := w.holders(t); !slices.Equal(got, holders) {
			t.Fatalf("another announces at %s: %v", w.now.Sub(epochZero), w.state())
		}
	}
}

// served lets time pass until each group is announced by somebody who can be
// heard, and fails if that takes longer than the limit.
func (w *world) served(t *rapid.T, limit time.Duration) {
	t.Helper()
	for end := w.now.Add(limit); !w.allServed(); {
		if !w.now.Before(end) {
			t.Fatalf("a group is not served after %s at %s: %v", limit, w.now.Sub(epochZero), w.state())
		}
		w.run(tick / 5)
	}
}

func (w *world) allServed() bool {
	return !slices.ContainsFunc(w.groups, func(g *group) bool {
		return !slices.ContainsFunc(g.announcers(), func(p *part) bool { return !p.place.unplugged })
	})
}

// takeoverLimit is how long it takes with gossip until a machine that is dead is
// replaced: half a second until its silence is a death, a decision, a sounding,
// a decision, the turn of the last of five, a write of two times 20 ms, and as
// much again if a renewal was under way.
const takeoverLimit = 500*time.Millisecond + tick + soundingTime + tick + 4*rankDelay + 4*20*time.Millisecond

// TestADeadMachineIsReplacedBeforeItsLeaseExpires, within takeoverLimit, and not
// before it is dead. If there is nobody on the segment to ask but the two, half a
// duration has to have passed since the last renewal.
func TestADeadMachineIsReplacedBeforeItsLeaseExpires(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		w.medium.lonely = rapid.Bool().Draw(t, "lonely")
		dead := w.settle(t)[0].node
		w.moment(t)
		dead.crashMachine()
		limit := takeoverLimit
		if w.medium.lonely && len(w.nodes) == 2 {
			limit = max(limit, duration/2) + 200*time.Millisecond
		}
		w.served(t, limit)
		if w.overlap() > 0 || w.violation != "" || w.medium.early == 0 {
			t.Fatalf("two directors announced for %s, %d early: %s", w.overlap(), w.medium.early, w.violation)
		}
		w.run(2 * duration)
		w.stays(t, w.holders(t), 2*duration)
	})
}

// TestGossipThatIsBlockedMovesNothing, from the start or later, for good or now
// and then, as long as nothing else fails.
func TestGossipThatIsBlockedMovesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, duration/13)
		w.medium.lonely = rapid.Bool().Draw(t, "lonely")
		w.medium.blocked = rapid.Bool().Draw(t, "from the start")
		holders := w.settle(t)
		for range rapid.IntRange(1, 5).Draw(t, "times") {
			w.medium.blocked = !w.medium.blocked
			w.stays(t, holders, time.Duration(rapid.IntRange(0, 12_000).Draw(t, "while"))*time.Millisecond)
		}
		w.medium.blocked = true
		w.stays(t, holders, 30*time.Second)
	})
}

// TestNobodyIsReplacedEarlyForLackOfCPU: processes crash, and stand still for up
// to ten seconds, and gossip gets lost; the machines answer. Then a Lease is only
// taken when it has expired.
func TestNobodyIsReplacedEarlyForLackOfCPU(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, duration/13)
		suffer(t, w, map[string]fault{
			"pause": pausing, "crash": crashing, "start": starting, "muffle": muffling, "clear": clearing, "block": blocking, "unblock": unblocking,
		})
		if w.medium.early > 0 || w.overlap() > 0 || w.violation != "" {
			t.Fatalf("%d early, two directors announced for %s: %s", w.medium.early, w.overlap(), w.violation)
		}
	})
}

// TestTwoDirectorsNeverAnnounceAtOnceWithGossipEither, while the API server
// answers and no segment is cut, though machines crash.
func TestTwoDirectorsNeverAnnounceAtOnceWithGossipEither(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, duration/13)
		w.prefer(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "die": dying, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"deafen": deafening, "break": breaking, "cordon": cordoning, "impair": impairing,
			"muffle": muffling, "clear": clearing, "block": blocking, "unblock": unblocking,
		})
		if w.violation != "" || w.overlap() > 0 {
			t.Fatalf("two directors announced for %s: %s", w.overlap(), w.violation)
		}
		if limit := HandoverLimit + duration/6 + tick; w.handover() > limit {
			t.Fatalf("two directors announced for %s in a handover, want at most %s", w.handover(), limit)
		}
	})
}

// everything is all that can happen.
func everything() map[string]fault {
	return map[string]fault{
		"crash": crashing, "die": dying, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
		"cut": cutting, "join": joining, "cut all": cuttingAll, "join all": joiningAll, "lose": losing, "deliver": delivering,
		"vacate": vacating, "deafen": deafening, "break": breaking, "cordon": cordoning, "impair": impairing,
		"unplug": unplugging, "plug": plugging, "split": splitting, "estrange": estranging, "reconcile": reconciling,
		"muffle": muffling, "clear": clearing, "block": blocking, "unblock": unblocking,
	}
}

// TestEpochsHaveOneHolderWithGossip, whatever happens.
func TestEpochsHaveOneHolderWithGossip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 900*time.Millisecond)
		suffer(t, w, everything())
		if w.violation != "" {
			t.Fatal(w.violation)
		}
	})
}

// TestOneDirectorAnnouncesInTheEndWithGossip: after any history one announces,
// confirmed, and then nothing moves.
func TestOneDirectorAnnouncesInTheEndWithGossip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, duration/13)
		suffer(t, w, everything())
		w.heal()
		w.run(4 * duration)
		for _, p := range w.holders(t) {
			if !p.decision.Confirmed {
				t.Fatalf("%s announces %s unconfirmed in the end: %v", p.name, p.group.name, w.state())
			}
		}
	})
}

// TestACutSegmentIsNotServedBehindALiveManagementNetwork: a holder whose segment
// is cut gives its groups to one whose segment is not, within 2.5 s: a death by
// gossip, soundings for isolationPatience, a release. Those of others stay where
// they are, and so do all if it is a standby's that is cut.
func TestACutSegmentIsNotServedBehindALiveManagementNetwork(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		holders := w.settle(t)
		w.moment(t)
		cut := w.anyNode(t)
		cut.place.unplugged = true
		w.served(t, 2500*time.Millisecond)
		w.run(3 * time.Second)
		for i, p := range w.holders(t) {
			if p.place.unplugged || holders[i].node != cut && p != holders[i] {
				t.Fatalf("%s announces %s: %v", p.name, p.group.name, w.state())
			}
		}
		w.stays(t, w.holders(t), 40*time.Second)
		cut.place.unplugged = false
		w.stays(t, w.holders(t), 10*time.Second)
	})
}

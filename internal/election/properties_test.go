package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fault is something that happens to a node, in all groups, or to the Lease of a
// group.
type fault func(w *world, n *node, g *group)

func crashing(_ *world, n *node, _ *group) { n.crash() }

func starting(_ *world, n *node, _ *group) {
	if !n.running {
		n.start()
	}
}

func pausing(w *world, n *node, _ *group) {
	start := n.starts
	n.paused, n.place.slept = true, w.now
	w.after(time.Duration(w.rand.IntN(10_000))*time.Millisecond, func() {
		if n.running && n.starts == start && n.paused {
			n.resume()
		}
	})
}
func leaving(_ *world, n *node, _ *group)    { n.leaving = true }
func deafening(_ *world, n *node, _ *group)  { n.deaf = !n.deaf }
func breaking(_ *world, n *node, _ *group)   { n.unfit = !n.unfit }
func cordoning(_ *world, n *node, _ *group)  { n.cordoned = !n.cordoned }
func cutting(_ *world, n *node, _ *group)    { n.cut = true }
func joining(_ *world, n *node, _ *group)    { n.cut = false }
func impairing(_ *world, n *node, _ *group)  { n.impair(!n.impaired) }
func wavering(_ *world, n *node, _ *group)   { n.candidate = !n.candidate }
func deleting(_ *world, _ *node, g *group)   { g.remove() }
func vacating(_ *world, _ *node, g *group)   { g.vacate() }
func losing(w *world, _ *node, _ *group)     { w.loss = 0.3 }
func delivering(w *world, _ *node, _ *group) { w.loss = 0 }

// suffer lets a random history of faults happen.
func suffer(t *rapid.T, w *world, faults map[string]fault) {
	names := make([]string, 0, len(faults))
	for name := range faults {
		names = append(names, name)
	}
	// Draws have to be repeatable, which the order of a map is not.
	slices.Sort(names)
	for range rapid.IntRange(0, 25).Draw(t, "faults") {
		w.run(time.Duration(rapid.IntRange(0, 5000).Draw(t, "wait")) * time.Millisecond)
		name := rapid.SampledFrom(names).Draw(t, "fault")
		faults[name](w, w.anyNode(t), w.anyGroup(t))
	}
	w.run(2 * time.Second)
}

func (w *world) anyNode(t *rapid.T) *node {
	return w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "node")]
}

func (w *world) anyGroup(t *rapid.T) *group {
	return w.groups[rapid.IntRange(0, len(w.groups)-1).Draw(t, "group")]
}

func draw(t *rapid.T) *world {
	return newWorld(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"), someGroups(t))
}

func someGroups(t *rapid.T) int { return rapid.SampledFrom([]int{1, 1, 2, 3, 4}).Draw(t, "groups") }

// prefer gives the directors of a world priorities.
func (w *world) prefer(t *rapid.T) {
	for _, n := range w.nodes {
		n.priority = int32(rapid.IntRange(0, 2).Draw(t, "priority"))
	}
}

// TestTwoDirectorsNeverAnnounceAtOnceWhileTheAPIAnswers: processes crash, stop,
// wake, restart and leave, links break, nodes are cordoned, but every request is
// answered in time. Then two announce only while one hands over, and not for
// longer than HandoverLimit, even if it is deaf.
func TestTwoDirectorsNeverAnnounceAtOnceWhileTheAPIAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"deafen": deafening, "break": breaking, "cordon": cordoning, "impair": impairing,
		})
		if w.violation != "" {
			t.Fatal(w.violation)
		}
		if w.overlap() > 0 {
			t.Fatalf("two directors announced for %s", w.overlap())
		}
		// Seeing that the Lease is another's takes an answer.
		if limit := HandoverLimit + duration/6 + tick; w.handover() > limit {
			t.Fatalf("two directors announced for %s in a handover, want at most %s", w.handover(), limit)
		}
	})
}

// TestAHandoverThatIsHeardIsShort: who hands over stops as soon as it hears the
// successor.
func TestAHandoverThatIsHeardIsShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "leave": leaving, "candidate": wavering, "break": breaking, "cordon": cordoning, "impair": impairing,
		})
		if limit := tick + 10*time.Millisecond; w.handover() > limit {
			t.Fatalf("two directors announced for %s in a handover, want at most %s", w.handover(), limit)
		}
	})
}

// TestTwoDirectorsAnnounceForOneDurationAtMostAfterAnEdit: besides, somebody
// deletes or vacates the Lease by hand.
func TestTwoDirectorsAnnounceForOneDurationAtMostAfterAnEdit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"delete": deleting, "vacate": vacating,
		})
		if w.overlap() > duration {
			t.Fatalf("two directors announced for %s", w.overlap())
		}
	})
}

// TestEpochsHaveOneHolder: whatever the network does, each epoch of a Lease is
// one process's, and only it ever announces it as confirmed.
func TestEpochsHaveOneHolder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.slowest = 900 * time.Millisecond // Some answers come too late, and some writes after they were given up.
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving,
			"cut": cutting, "join": joining, "lose": losing, "deliver": delivering, "vacate": vacating,
			"deafen": deafening, "break": breaking, "cordon": cordoning, "impair": impairing,
		})
		if w.violation != "" {
			t.Fatal(w.violation)
		}
	})
}

// TestOneDirectorAnnouncesInTheEnd: after any history one of those that live and
// reach the API server announces, and only one.
func TestOneDirectorAnnouncesInTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"cut": cutting, "join": joining, "lose": losing, "deliver": delivering,
			"delete": deleting, "vacate": vacating, "deafen": deafening, "break": breaking, "cordon": cordoning, "impair": impairing,
		})
		w.heal()
		// A Lease that is another's for a duration more after the API server is
		// back, then the time to read and to acquire.
		w.run(4 * duration)
		gone := w.holders(t)[0].node
		for _, p := range w.holders(t) {
			if !p.decision.Confirmed {
				t.Fatalf("%s announces %s unconfirmed in the end: %+v", p.name, p.group.name, w.state())
			}
		}
		gone.crash()
		// Expiry, an acquisition that takes two round trips of 600 ms at most.
		w.run(duration + 2*time.Second + 5*rankDelay)
		w.holders(t)
	})
}

// holders returns who announces each group, which has to be one director.
func (w *world) holders(t *rapid.T) []*part {
	t.Helper()
	holders := make([]*part, 0, len(w.groups))
	for _, g := range w.groups {
		active := g.announcers()
		if len(active) != 1 {
			t.Fatalf("%d directors announce %s at %s: %s", len(active), g.name, w.now.Sub(epochZero), strings.Join(w.state(), "\n"))
		}
		holders = append(holders, active[0])
	}
	return holders
}

// state says for a failed test how things stand.
func (w *world) state() []string {
	var states []string
	for _, g := range w.groups {
		for _, p := range g.parts {
			states = append(states, fmt.Sprintf("%s: %s (priority %d, impaired %t, running %t, cut %t): %t for %s, and %s; Lease %d of %q",
				g.name, p.name, p.priority, p.impaired, p.running, p.cut, p.decision.Announce, p.decision.Reason, p.decision.Write, p.belief.lease.Epoch, p.belief.lease.Holder))
		}
	}
	return states
}

// TestALoneHolderNeverStops: without the API server, and through restarts of
// its process, the holder goes on.
func TestALoneHolderNeverStops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"), 1, someGroups(t))
		holder := w.nodes[0]
		w.run(3 * duration)
		w.holders(t)
		holder.cut = true
		for range rapid.IntRange(1, 10).Draw(t, "stretches") {
			if rapid.Bool().Draw(t, "restart") {
				holder.crash()
				w.run(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "down")) * time.Millisecond)
				holder.start()
				// It learns that the API server is away by a request that is not
				// answered within a third of the duration.
				w.run(duration/3 + tick)
			}
			end := w.now.Add(time.Duration(rapid.IntRange(0, 60_000).Draw(t, "up")) * time.Millisecond)
			for w.now.Before(end) {
				w.run(tick / 2)
				w.holders(t)
			}
		}
		holder.cut = false
		for range 200 {
			w.run(tick)
			w.holders(t)
		}
		for _, p := range w.holders(t) {
			if !p.decision.Confirmed {
				t.Fatalf("its claim is not confirmed: %+v", p.decision)
			}
		}
	})
}

// TestALiveHolderKeepsTheGroup: what others do, and how late news of it comes,
// does not make a holder stop that reaches the API server; nor does a deletion
// of its Lease, if those that could make it anew know of it as soon.
func TestALiveHolderKeepsTheGroup(t *testing.T) {
	cases := map[string][]fault{
		"others come and go":   {crashing, starting, pausing, wavering, cutting, joining},
		"the Lease is deleted": {crashing, starting, wavering, deleting},
	}
	for name, faults := range cases {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { holdOn(t, faults) })
		})
	}
}

func holdOn(t *rapid.T, faults []fault) {
	w := draw(t)
	w.run(3 * duration)
	holder := w.holders(t)[0].node
	held := slices.DeleteFunc(slices.Clone(holder.parts), func(p *part) bool { return !p.announces() })
	others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == holder })
	for range rapid.IntRange(0, 15).Draw(t, "faults") {
		happens := faults[rapid.IntRange(0, len(faults)-1).Draw(t, "fault")]
		happens(w, others[rapid.IntRange(0, len(others)-1).Draw(t, "node")], w.anyGroup(t))
		for range rapid.IntRange(0, 60).Draw(t, "wait") {
			w.run(tick)
			for _, p := range held {
				if !p.announces() {
					t.Fatalf("%s stopped to announce %s: %s", p.name, p.group.name, strings.Join(w.state(), "\n"))
				}
			}
		}
	}
}

// settle lets a new world come to rest and returns who announces each group.
func (w *world) settle(t *rapid.T) []*part {
	t.Helper()
	w.run(3 * duration)
	return w.holders(t)
}

// TestAtRestOnlyTheHolderWrites, every third of the duration, and nobody reads:
// the watch tells all.
func TestAtRestOnlyTheHolderWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		w.run(4*duration + preemptionDelay + 3*time.Second)
		for _, g := range w.groups {
			clear(g.writes)
			clear(g.reads)
		}
		const minute = 60
		w.run(minute * time.Second)
		for _, p := range w.holders(t) {
			g := p.group
			if len(g.reads) > 0 || len(g.writes) != 1 || float64(g.writes[p.name]) > 1.2*minute {
				t.Fatalf("in a minute, of %s: writes %v, reads %v: %v", g.name, g.writes, g.reads, w.state())
			}
		}
	})
}

// TestAReleaseIsTakenAtOnce bounds the time without an announcer when a
// director leaves.
func TestAReleaseIsTakenAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"), 2, someGroups(t))
		w.slowest = 10 * time.Millisecond
		before := w.settle(t)[0].node
		w.run(time.Duration(rapid.IntRange(0, 1000).Draw(t, "phase")) * time.Millisecond)
		before.leaving = true
		// The next decision, a release, an event, an acquisition; or first the
		// end of a renewal that is under way, and a read.
		w.run(tick + 150*time.Millisecond)
		for _, p := range w.holders(t) {
			if p.node == before {
				t.Fatalf("%s announces %s still: %v", p.name, p.group.name, w.state())
			}
		}
	})
}

// TestAHandoverHasNoGap: somebody announces at every moment, whatever the reason
// for the handover, also if the successor died a moment ago and nobody knows.
func TestAHandoverHasNoGap(t *testing.T) {
	reasons := map[string]fault{
		"leave": leaving, "unfit": breaking, "cordon": cordoning,
		"impaired": func(w *world, n *node, _ *group) {
			n.impair(true)
			w.run(outdonePatience - tick)
		},
		"priority": func(w *world, n *node, _ *group) {
			for _, m := range w.nodes {
				m.priority = 1
			}
			n.priority = 0
		},
	}
	for name, happens := range reasons {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := draw(t)
				holders := w.settle(t)
				before := holders[0].node
				w.run(time.Duration(rapid.IntRange(0, 1000).Draw(t, "phase")) * time.Millisecond)
				var dead *node
				if len(w.nodes) > 2 && rapid.Bool().Draw(t, "a peer is dead") {
					dead = w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n != before })]
					dead.crash()
				}
				happens(w, before, w.groups[0])
				for range 800 {
					w.run(5 * time.Millisecond)
					for _, p := range holders {
						// What the dead one held has to expire.
						if p.node != dead && len(p.group.announcers()) == 0 {
							t.Fatalf("nobody announces %s at %s: %v", p.group.name, w.now.Sub(epochZero), w.state())
						}
					}
				}
				w.run(2 * duration)
				for _, p := range w.holders(t) {
					if p.node == before {
						t.Fatalf("%s announces %s in the end: %v", p.name, p.group.name, w.state())
					}
				}
			})
		})
	}
}

// TestTheBestDirectorAnnouncesInTheEnd, that is one that serves all, if there is
// any, and of those one of the highest priority. Then nothing moves any more.
func TestTheBestDirectorAnnouncesInTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"cut": cutting, "join": joining, "break": breaking, "cordon": cordoning, "impair": impairing,
		})
		w.heal()
		w.run(4*duration + preemptionDelay + outdonePatience + 3*time.Second)
		if w.unruly(t) != "" {
			// A group that moved much has to wait.
			w.run(movesWindow)
		}
		if wrong := w.unruly(t); wrong != "" {
			t.Fatalf("%s: %v", wrong, w.state())
		}
		w.rest(t, 20*time.Second)
	})
}

// unruly says which group a director holds although another stands better.
func (w *world) unruly(t *rapid.T) string {
	t.Helper()
	for _, p := range w.holders(t) {
		for _, n := range w.nodes {
			if p.impaired && !n.impaired || p.impaired == n.impaired && n.priority > p.priority {
				return fmt.Sprintf("%s announces %s, not %s", p.name, p.group.name, n.name)
			}
		}
	}
	return ""
}

// rest checks that no group moves for a while.
func (w *world) rest(t *rapid.T, while time.Duration) {
	t.Helper()
	epochs := map[*part]int64{}
	for _, p := range w.holders(t) {
		epochs[p] = p.belief.lease.Epoch
	}
	w.run(while)
	for _, p := range w.holders(t) {
		if before, same := epochs[p]; !same || p.belief.lease.Epoch != before {
			t.Fatalf("%s moved although nothing happened: %v", p.group.name, w.state())
		}
	}
}

// TestAHolderWithoutTheAPIStopsWhenItHearsAnother, and not before.
func TestAHolderWithoutTheAPIStopsWhenItHearsAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		before := w.settle(t)[0].node
		before.cut = true
		for range 1000 {
			w.run(10 * time.Millisecond)
			for _, g := range w.groups {
				if len(g.announcers()) == 0 {
					t.Fatalf("nobody announces %s at %s: %v", g.name, w.now.Sub(epochZero), w.state())
				}
			}
		}
		for _, p := range w.holders(t) {
			if p.node == before {
				t.Fatalf("%s announces %s in the end: %v", p.name, p.group.name, w.state())
			}
		}
		if limit := 10 * time.Millisecond; w.overlap() > limit {
			t.Fatalf("two directors announced for %s, want at most %s", w.overlap(), limit)
		}
	})
}

// TestNobodyLosesAGroupForTheAPIServersAbsence: when it is back for all, the
// holder still is who it was.
func TestNobodyLosesAGroupForTheAPIServersAbsence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.slowest = 20 * time.Millisecond
		before := w.settle(t)
		for _, n := range w.nodes {
			n.cut = true
		}
		away := time.Duration(rapid.IntRange(0, 90_000).Draw(t, "away")) * time.Millisecond
		for end := w.now.Add(away + 4*duration); w.now.Before(end); {
			w.run(tick)
			if got := w.holders(t); !slices.Equal(got, before) {
				t.Fatalf("another announces at %s: %v", w.now.Sub(epochZero), w.state())
			}
			if w.now.After(end.Add(-4 * duration)) {
				for _, n := range w.nodes {
					n.cut = false
				}
			}
		}
	})
}

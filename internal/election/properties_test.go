package election

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fault is something that happens to a node or to the Lease.
type fault func(w *world, n *node)

func crashing(_ *world, n *node) { n.crash() }

func starting(_ *world, n *node) {
	if !n.running {
		n.start()
	}
}

func pausing(w *world, n *node) {
	start := n.starts
	n.paused = true
	w.after(time.Duration(w.rand.IntN(10_000))*time.Millisecond, func() {
		if n.running && n.starts == start && n.paused {
			n.resume()
		}
	})
}
func leaving(_ *world, n *node)    { n.leaving = true }
func deafening(_ *world, n *node)  { n.deaf = !n.deaf }
func breaking(_ *world, n *node)   { n.unfit = !n.unfit }
func cordoning(_ *world, n *node)  { n.cordoned = !n.cordoned }
func cutting(_ *world, n *node)    { n.cut = true }
func joining(_ *world, n *node)    { n.cut = false }
func wavering(_ *world, n *node)   { n.candidate = !n.candidate }
func deleting(w *world, _ *node)   { w.remove() }
func vacating(w *world, _ *node)   { w.vacate() }
func losing(w *world, _ *node)     { w.loss = 0.3 }
func delivering(w *world, _ *node) { w.loss = 0 }

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
		faults[name](w, w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "node")])
	}
	w.run(2 * time.Second)
}

func draw(t *rapid.T) *world {
	return newWorld(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"))
}

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
			"deafen": deafening, "break": breaking, "cordon": cordoning,
		})
		if w.violation != "" {
			t.Fatal(w.violation)
		}
		if w.overlap.longest > 0 {
			t.Fatalf("two directors announced for %s", w.overlap.longest)
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
			"crash": crashing, "start": starting, "leave": leaving, "candidate": wavering, "break": breaking, "cordon": cordoning,
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
		if w.overlap.longest > duration {
			t.Fatalf("two directors announced for %s", w.overlap.longest)
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
			"deafen": deafening, "break": breaking, "cordon": cordoning,
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
			"delete": deleting, "vacate": vacating, "deafen": deafening, "break": breaking, "cordon": cordoning,
		})
		w.heal()
		// A Lease that is another's for a duration more after the API server is
		// back, then the time to read and to acquire.
		w.run(4 * duration)
		if got := w.announcers(); len(got) != 1 || !got[0].decision.Confirmed {
			t.Fatalf("%d directors announce in the end: %+v", len(got), w.state())
		}
		gone := w.announcers()[0]
		gone.crash()
		// Expiry, an acquisition that takes two round trips of 600 ms at most.
		w.run(duration + 2*time.Second + 5*rankDelay)
		if got := w.announcers(); len(got) != 1 || got[0] == gone {
			t.Fatalf("%d directors announce after %s crashed: %+v", len(got), gone.name, w.state())
		}
	})
}

func (w *world) state() []string {
	var states []string
	for _, n := range w.nodes {
		states = append(states, fmt.Sprintf("%s (priority %d, running %t, cut %t): %t for %s, and %s; Lease %d of %q",
			n.name, n.priority, n.running, n.cut, n.decision.Announce, n.decision.Reason, n.decision.Write, n.belief.lease.Epoch, n.belief.lease.Holder))
	}
	return states
}

// TestALoneHolderNeverStops: without the API server, and through restarts of
// its process, the holder goes on.
func TestALoneHolderNeverStops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"), 1)
		holder := w.nodes[0]
		w.run(3 * duration)
		if len(w.announcers()) != 1 {
			t.Fatal("it did not begin to announce")
		}
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
				if len(w.announcers()) != 1 {
					t.Fatalf("nobody announces at %s: %+v", w.now.Sub(epochZero), holder.decision)
				}
			}
		}
		holder.cut = false
		for range 200 {
			w.run(tick)
			if len(w.announcers()) != 1 {
				t.Fatalf("it stopped when the API server came back: %+v", holder.decision)
			}
		}
		if !holder.decision.Confirmed {
			t.Fatalf("its claim is not confirmed: %+v", holder.decision)
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
	holders := w.announcers()
	if len(holders) != 1 {
		t.Fatalf("%d directors announce", len(holders))
	}
	others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == holders[0] })
	for range rapid.IntRange(0, 15).Draw(t, "faults") {
		happens := faults[rapid.IntRange(0, len(faults)-1).Draw(t, "fault")]
		happens(w, others[rapid.IntRange(0, len(others)-1).Draw(t, "node")])
		for range rapid.IntRange(0, 60).Draw(t, "wait") {
			w.run(tick)
			if !slices.Contains(w.announcers(), holders[0]) {
				t.Fatalf("%s stopped: %+v", holders[0].name, w.state())
			}
		}
	}
}

// settle lets a new world come to rest and returns the one that announces.
func (w *world) settle(t *rapid.T) *node {
	t.Helper()
	w.run(3 * duration)
	active := w.announcers()
	if len(active) != 1 {
		t.Fatalf("%d directors announce", len(active))
	}
	return active[0]
}

// TestAtRestOnlyTheHolderWrites, every third of the duration, and nobody reads:
// the watch tells all.
func TestAtRestOnlyTheHolderWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		w.run(4*duration + preemptionDelay + 3*time.Second)
		clear(w.writes)
		clear(w.reads)
		const minute = 60
		w.run(minute * time.Second)
		holder := w.announcers()
		if len(holder) != 1 || len(w.reads) > 0 || len(w.writes) != 1 || float64(w.writes[holder[0].name]) > 1.2*minute {
			t.Fatalf("in a minute: writes %v, reads %v: %v", w.writes, w.reads, w.state())
		}
	})
}

// TestAReleaseIsTakenAtOnce bounds the time without an announcer when a
// director leaves.
func TestAReleaseIsTakenAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"), 2)
		w.slowest = 10 * time.Millisecond
		before := w.settle(t)
		w.run(time.Duration(rapid.IntRange(0, 1000).Draw(t, "phase")) * time.Millisecond)
		before.leaving = true
		// The next decision, a release, an event, an acquisition; or first the
		// end of a renewal that is under way, and a read.
		w.run(tick + 150*time.Millisecond)
		if got := w.announcers(); len(got) != 1 || got[0] == before {
			t.Fatalf("%d directors announce: %+v", len(got), w.state())
		}
	})
}

// TestAHandoverHasNoGap: somebody announces at every moment, whatever the reason
// for the handover, also if the successor died a moment ago and nobody knows.
func TestAHandoverHasNoGap(t *testing.T) {
	reasons := map[string]fault{
		"leave": leaving, "unfit": breaking, "cordon": cordoning,
		"priority": func(w *world, n *node) {
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
				before := w.settle(t)
				w.run(time.Duration(rapid.IntRange(0, 1000).Draw(t, "phase")) * time.Millisecond)
				if len(w.nodes) > 2 && rapid.Bool().Draw(t, "a peer is dead") {
					for _, n := range w.nodes {
						if n != before {
							n.crash()
							break
						}
					}
				}
				happens(w, before)
				for range 800 {
					w.run(5 * time.Millisecond)
					if len(w.announcers()) == 0 {
						t.Fatalf("nobody announces at %s: %+v", w.now.Sub(epochZero), w.state())
					}
				}
				w.run(2 * duration)
				if got := w.announcers(); len(got) != 1 || got[0] == before {
					t.Fatalf("%d directors announce in the end: %+v", len(got), w.state())
				}
			})
		})
	}
}

// TestTheHighestPriorityAnnouncesInTheEnd, and then nothing moves any more.
func TestTheHighestPriorityAnnouncesInTheEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		w.prefer(t)
		suffer(t, w, map[string]fault{
			"crash": crashing, "start": starting, "pause": pausing, "leave": leaving, "candidate": wavering,
			"cut": cutting, "join": joining, "break": breaking, "cordon": cordoning,
		})
		w.heal()
		w.run(4*duration + preemptionDelay + 3*time.Second + movesWindow)
		got := w.announcers()
		if len(got) != 1 {
			t.Fatalf("%d directors announce in the end: %+v", len(got), w.state())
		}
		for _, n := range w.nodes {
			if n.priority > got[0].priority {
				t.Fatalf("%s announces with priority %d, %s has %d: %+v", got[0].name, got[0].priority, n.name, n.priority, w.state())
			}
		}
		epoch := got[0].belief.lease.Epoch
		w.run(time.Minute)
		if now := got[0].belief.lease.Epoch; now != epoch {
			t.Fatalf("the group moved %d times although nothing happened: %+v", now-epoch, w.state())
		}
	})
}

// TestAHolderWithoutTheAPIStopsWhenItHearsAnother, and not before.
func TestAHolderWithoutTheAPIStopsWhenItHearsAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		before := w.settle(t)
		before.cut = true
		for range 1000 {
			w.run(10 * time.Millisecond)
			if len(w.announcers()) == 0 {
				t.Fatalf("nobody announces at %s: %+v", w.now.Sub(epochZero), w.state())
			}
		}
		if got := w.announcers(); len(got) != 1 || got[0] == before {
			t.Fatalf("%d directors announce in the end: %+v", len(got), w.state())
		}
		if limit := 10 * time.Millisecond; w.overlap.longest > limit {
			t.Fatalf("two directors announced for %s, want at most %s", w.overlap.longest, limit)
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
			if got := w.announcers(); len(got) != 1 || got[0] != before {
				t.Fatalf("%d directors announce at %s: %+v", len(got), w.now.Sub(epochZero), w.state())
			}
			if w.now.After(end.Add(-4 * duration)) {
				for _, n := range w.nodes {
					n.cut = false
				}
			}
		}
	})
}

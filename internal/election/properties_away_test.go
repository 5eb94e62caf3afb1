package election

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// crashLimit is how long it takes without the API server until a machine that is
// dead is replaced: as takeoverLimit, without a write.
const crashLimit = 500*time.Millisecond + tick + soundingTime + tick + 4*rankDelay + tick

// noticing is how long it takes at most until a director knows that the API
// server is away: half a duration until it asks, a third until it gives up.
const noticing = duration/2 + duration/3 + 200*time.Millisecond

// ends gives the API server back and checks that each group has an announcer all
// the while, but for the given time, and that there is one in the end, confirmed.
func (w *world) ends(t *rapid.T, gap time.Duration) {
	t.Helper()
	w.away(false)
	bare := stretch{}
	for end := w.now.Add(4 * duration); w.now.Before(end); {
		w.run(tick / 5)
		bare.note(w.now, !w.allServed())
	}
	if bare.longest > gap {
		t.Fatalf("a group was not served for %s, want at most %s: %v", bare.longest, gap, w.state())
	}
	for _, p := range w.holders(t) {
		if !p.decision.Confirmed {
			t.Fatalf("%s announces %s unconfirmed in the end: %v", p.name, p.group.name, w.state())
		}
	}
	if w.violation != "" {
		t.Fatal(w.violation)
	}
}

// TestADeadMachineIsReplacedWithoutTheAPIServer within crashLimit, by one that
// goes on when the API server is back. So is the one after it. Who finds nobody at
// all on the segment first waits a duration.
func TestADeadMachineIsReplacedWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		w.medium.lonely = rapid.Bool().Draw(t, "lonely")
		w.settle(t)
		w.away(true)
		w.run(noticing)
		for range rapid.IntRange(1, len(w.nodes)-1).Draw(t, "deaths") {
			w.moment(t)
			w.holders(t)[0].crashMachine()
			limit := crashLimit
			if w.medium.lonely {
				limit += duration
			}
			w.served(t, limit)
			w.run(time.Second)
		}
		before := w.holders(t)
		w.stays(t, before, time.Duration(rapid.IntRange(0, 20_000).Draw(t, "away"))*time.Millisecond)
		w.ends(t, 0)
		if got := w.holders(t); !slices.Equal(got, before) {
			t.Fatalf("another announces: %v", w.state())
		}
	})
}

// TestTheAPIServerMayDieWithTheHolder: then it takes the time to notice that it is
// away, besides.
func TestTheAPIServerMayDieWithTheHolder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		holder := w.settle(t)[0].node
		w.moment(t)
		for _, happens := range rapid.Permutation([]func(){func() { w.away(true) }, holder.crashMachine}).Draw(t, "order") {
			happens()
			w.run(time.Duration(rapid.IntRange(0, 500).Draw(t, "between")) * time.Millisecond)
		}
		w.served(t, noticing+crashLimit)
		w.run(time.Second)
		before := w.holders(t)
		for i, p := range before {
			// The last that the API server did may be an acquisition; nobody knows yet.
			if taker := claimOf(p.group.lease).holder; taker != holder.name {
				before[i] = p.group.parts[slices.IndexFunc(p.group.parts, func(q *part) bool { return q.name == taker })]
			}
		}
		w.ends(t, 0)
		if got := w.holders(t); !slices.Equal(got, before) {
			t.Fatalf("another announces: %v", w.state())
		}
	})
}

// TestAKilledProcessWithoutTheAPIServer: kill -9 and the API server away in any
// order, and the process comes back after any time, or never. Then one director
// announces after a duration and crashLimit, noticing included, and it is one that
// goes on when the API server is back; without gossip the one that comes back may
// take over then, since it cannot know what the other claims, and the answer to
// its write may be later than the news of it.
func TestAKilledProcessWithoutTheAPIServer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		if rapid.Bool().Draw(t, "gossip is blocked") {
			w.medium.blocked = true
		}
		killed := w.settle(t)[0].node
		w.moment(t)
		for _, happens := range rapid.Permutation([]func(){func() { w.away(true) }, killed.crash}).Draw(t, "order") {
			happens()
			w.run(time.Duration(rapid.IntRange(0, 1000).Draw(t, "between")) * time.Millisecond)
		}
		if down := rapid.IntRange(0, 8000).Draw(t, "down"); down < 7000 {
			w.after(time.Duration(down)*time.Millisecond, killed.start)
		}
		w.served(t, duration+crashLimit+noticing)
		w.run(10 * time.Second)
		before := w.holders(t)
		w.stays(t, before, 5*time.Second)
		gap := time.Duration(0)
		if w.medium.blocked {
			gap = 50 * time.Millisecond
		}
		w.ends(t, gap)
		if got := w.holders(t); !slices.Equal(got, before) && !w.medium.blocked {
			t.Fatalf("another announces: %v", w.state())
		}
	})
}

// TestWhoStartsWithoutTheAPIServerServesInTheEnd: all processes and machines die,
// and some come back while the API server is away. Then one announces, a duration
// and noticing later.
func TestWhoStartsWithoutTheAPIServerServesInTheEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		w.settle(t)
		w.away(true)
		w.moment(t)
		for _, n := range w.nodes {
			if rapid.Bool().Draw(t, "machine") {
				n.crashMachine()
			} else {
				n.crash()
			}
		}
		w.moment(t)
		first := w.anyNode(t)
		first.start()
		w.moment(t)
		for _, n := range w.nodes {
			if n != first && rapid.Bool().Draw(t, "comes back") {
				n.start()
			}
		}
		w.run(2*duration + noticing)
		w.stays(t, w.holders(t), 5*time.Second)
		w.ends(t, 0)
	})
}

// halves takes the API server away and splits the segment in two, each of which
// then serves for itself. It returns who announced before.
func (w *world) halves(t *rapid.T) []*part {
	t.Helper()
	holders := w.settle(t)
	w.away(true)
	w.run(noticing)
	for _, n := range w.nodes {
		if n == holders[0].node || rapid.Bool().Draw(t, "with the holder") {
			continue
		}
		for _, m := range w.nodes {
			w.medium.part(n, m, false)
			w.medium.part(n, m, true)
		}
	}
	w.run(duration + crashLimit + 5*time.Second)
	for _, n := range w.nodes {
		alone := !slices.ContainsFunc(w.nodes, func(m *node) bool { return m != n && w.linked(n, m) })
		for _, p := range n.parts {
			if alone && !p.announces() {
				t.Fatalf("%s is alone, and does not announce %s: %v", n.name, p.group.name, w.state())
			}
		}
	}
	return holders
}

// TestTwoHalvesBecomeOne: when the segment is whole again, but gossip is not, one
// director is left within 6 s, those of a sounding, of contestLimit and of a
// sounding again, and all agree when all is well.
func TestTwoHalvesBecomeOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		w.halves(t)
		w.medium.split = nil
		if rapid.Bool().Draw(t, "frames first") {
			w.run(6 * time.Second)
			w.holders(t)
		}
		w.medium.silent = nil
		w.run(time.Second)
		w.holders(t)
		w.ends(t, 0)
	})
}

// TestTheAPIServerDecidesBetweenTwoHalves, if it is back before they hear each
// other: who had the Lease renews it, and within a duration nobody else announces.
func TestTheAPIServerDecidesBetweenTwoHalves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		holders := w.halves(t)
		w.away(false)
		w.run(duration)
		// What a standby held is in the other half now.
		for i, p := range w.holders(t) {
			if p != holders[i] {
				t.Fatalf("%s announces %s, not %s: %v", p.name, p.group.name, holders[i].name, w.state())
			}
		}
		w.stays(t, holders, duration)
	})
}

// TestABlindDirectorLeavesTheGroupToOneThatSees: who announces without the API
// server does so no more after blindLimit beside a candidate that the API server
// answers, and nobody misses it.
func TestABlindDirectorLeavesTheGroupToOneThatSees(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := gossiping(t, 20*time.Millisecond)
		w.settle(t)
		w.away(true)
		w.run(noticing)
		if rapid.Bool().Draw(t, "provisionally") && len(w.nodes) > 2 {
			w.holders(t)[0].crashMachine()
			w.served(t, crashLimit)
			w.run(time.Second)
		}
		living := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.place.down })
		sees := living[rapid.IntRange(0, len(living)-1).Draw(t, "sees")]
		sees.cut = false
		bare := stretch{}
		for end := w.now.Add(blindLimit + 2*duration + time.Second); w.now.Before(end); {
			w.run(tick / 5)
			bare.note(w.now, !w.allServed())
		}
		for _, p := range w.holders(t) {
			if p.node != sees {
				t.Fatalf("%s announces %s, and does not see: %v", p.name, p.group.name, w.state())
			}
		}
		if bare.longest > 0 {
			t.Fatalf("a group was not served for %s: %v", bare.longest, w.state())
		}
	})
}

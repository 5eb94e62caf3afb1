package election

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestEqualDirectorsShareTheGroupsByRank: directors that start together hold
// each group where its name falls to, and what happens to one director moves its
// groups only, each to the next in rank. A director that comes back gets nothing.
func TestEqualDirectorsShareTheGroupsByRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Ranks are told apart by time.
		w := newFastWorld(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 5).Draw(t, "nodes"), rapid.IntRange(1, 4).Draw(t, "groups"), rankDelay/5)
		where := map[*group]*node{}
		w.run(3 * duration)
		for _, g := range w.groups {
			where[g] = g.first()
		}
		w.expect(t, where)
		for range rapid.IntRange(0, 8).Draw(t, "events") {
			n, g := w.anyNode(t), w.anyGroup(t)
			moved, vacated := map[*group]bool{}, false
			switch event := rapid.SampledFrom([]string{"crash", "leave", "start", "vacate", "delete"}).Draw(t, "event"); {
			case event == "start" && !n.running:
				n.start()
			case event == "crash" && w.others(n):
				moved = w.held(n, where)
				n.crash()
			case event == "leave" && n.running && w.others(n):
				moved = w.held(n, where)
				n.leaving = true
				w.after(2*time.Second, n.crash)
			case event == "vacate":
				vacated, moved[g] = true, true
				g.vacate()
			case event == "delete":
				moved[g] = true
				g.remove()
			}
			for end := w.now.Add(3 * duration); w.now.Before(end); {
				w.run(tick)
				for g, n := range where {
					if !moved[g] && (len(g.announcers()) != 1 || g.announcers()[0].node != n) {
						t.Fatalf("%s moved from %s at %s for nothing: %v", g.name, n.name, w.now.Sub(epochZero), w.state())
					}
				}
			}
			for g := range moved {
				switch {
				case !where[g].running:
					where[g] = g.first()
				case vacated:
					// The holder and the first in rank both take it at once.
					where[g] = w.holders(t)[slices.Index(w.groups, g)].node
				}
			}
			w.expect(t, where)
		}
	})
}

// first returns the running director that the group falls to.
func (g *group) first() *node {
	running := slices.DeleteFunc(slices.Clone(g.w.nodes), func(n *node) bool { return !n.running })
	return slices.MaxFunc(running, func(a, b *node) int {
		x, y := sha256.Sum256([]byte(g.name+"\x00"+a.name)), sha256.Sum256([]byte(g.name+"\x00"+b.name))
		return bytes.Compare(x[:], y[:])
	})
}

// others says whether directors besides this one run.
func (w *world) others(n *node) bool {
	return slices.ContainsFunc(w.nodes, func(m *node) bool { return m != n && m.running && !m.leaving })
}

// held returns the groups that the director holds.
func (w *world) held(n *node, where map[*group]*node) map[*group]bool {
	held := map[*group]bool{}
	for g, holder := range where {
		if holder == n {
			held[g] = true
		}
	}
	return held
}

// expect checks who holds the groups.
func (w *world) expect(t *rapid.T, where map[*group]*node) {
	t.Helper()
	for _, p := range w.holders(t) {
		if where[p.group] != p.node {
			t.Fatalf("%s announces %s, want %s: %v", p.name, p.group.name, where[p.group].name, w.state())
		}
	}
}

// TestDirectorsThatAreImpairedAlikeMoveNothing: what all kernels refuse, each
// finds out at another moment, and each is mended at another.
func TestDirectorsThatAreImpairedAlikeMoveNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t)
		before := w.settle(t)
		for _, impaired := range []bool{true, false} {
			for _, n := range w.nodes {
				delay := time.Duration(rapid.IntRange(0, 2500).Draw(t, "delay")) * time.Millisecond
				w.after(delay, func() { n.impair(impaired) })
			}
			for end := w.now.Add(4 * outdonePatience); w.now.Before(end); {
				w.run(tick)
				if got := w.holders(t); !slices.Equal(got, before) {
					t.Fatalf("another announces at %s: %v", w.now.Sub(epochZero), w.state())
				}
			}
		}
	})
}

// TestAGroupDoesNotFollowAKernelThatWavers: a holder that serves all, and then
// not, and then all again, does not take the group along for ever.
func TestAGroupDoesNotFollowAKernelThatWavers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(2, 3).Draw(t, "nodes"), 1)
		before := w.settle(t)
		first := before[0].belief.lease.Epoch
		for end := w.now.Add(movesWindow); w.now.Before(end); {
			for _, n := range w.nodes {
				n.impair(n == w.holders(t)[0].node)
			}
			w.run(2 * outdonePatience)
		}
		if moves := w.holders(t)[0].belief.lease.Epoch - first; moves < 2 || moves > movesLimit {
			t.Fatalf("the group moved %d times in %s", moves, movesWindow)
		}
	})
}

package director

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// gate is removals with what they work on.
type gate struct {
	*removals
	mu     sync.Mutex
	keys   []netstate.Key
	wanted map[netstate.Key]struct{}
	err    error
	lists  int
	left   []netstate.Key
}

func vips(n int) []netstate.Key {
	keys := make([]netstate.Key, n)
	for i := range keys {
		keys[i] = netstate.Key{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
	}
	return keys
}

// newGate serves keys, all of which the API wants.
func newGate(t *testing.T, keys []netstate.Key) *gate {
	t.Helper()
	g := &gate{keys: slices.Clone(keys), wanted: map[netstate.Key]struct{}{}}
	for _, key := range keys {
		g.wanted[key] = struct{}{}
	}
	g.removals = newRemovals(func(context.Context) (map[netstate.Key]struct{}, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.lists++
		return g.wanted, g.err
	}, func() []netstate.Key {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Clone(g.keys)
	}, func(key netstate.Key) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.left = append(g.left, key)
		g.keys = slices.DeleteFunc(g.keys, func(k netstate.Key) bool { return k == key })
	}, slog.New(slog.DiscardHandler))
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { g.run(ctx) })
	t.Cleanup(func() { end(); running.Wait() })
	return g
}

// deleted takes keys from the API and says so.
func (g *gate) deleted(keys ...netstate.Key) {
	g.mu.Lock()
	wanted := map[netstate.Key]struct{}{}
	for key := range g.wanted {
		if !slices.Contains(keys, key) {
			wanted[key] = struct{}{}
		}
	}
	g.wanted = wanted
	g.mu.Unlock()
	for _, key := range keys {
		g.request(key)
	}
}

func (g *gate) gone() []netstate.Key {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(slices.Values(g.left), netstate.Key.Compare)
}

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

func TestTheFirstRemovalNeedsASecondList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := vips(10)
		g := newGate(t, keys)
		g.deleted(keys[0])
		time.Sleep(removalGather + removalDoubt - time.Millisecond)
		synctest.Wait()
		if len(g.gone()) > 0 {
			t.Fatal("removed on the word of one list")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if diff := cmp.Diff(keys[:1], g.gone(), addr); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
		// From now on one of many goes at once.
		g.deleted(keys[1])
		time.Sleep(removalGather)
		synctest.Wait()
		if diff := cmp.Diff(keys[:2], g.gone(), addr); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
		// More than half does not.
		g.deleted(keys[2:8]...)
		time.Sleep(removalDoubt)
		synctest.Wait()
		if len(g.gone()) != 2 {
			t.Error("a mass removal was not doubted")
		}
		time.Sleep(removalGather)
		synctest.Wait()
		if len(g.gone()) != 8 || g.lists != 2 {
			t.Errorf("%d gone after %d lists", len(g.gone()), g.lists)
		}
	})
}

func TestNothingIsRemovedWhileTheAPIServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := vips(3)
		g := newGate(t, keys)
		g.set(func() { g.err = errors.New("connection refused") })
		g.deleted(keys...)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(g.gone()) > 0 {
			t.Fatal("removed without an answer")
		}
		g.set(func() { g.err = nil })
		time.Sleep(removalDoubt)
		synctest.Wait()
		if len(g.gone()) != 3 {
			t.Errorf("gone: %v", g.gone())
		}
	})
}

func TestWhatIsWantedAgainStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := vips(4)
		g := newGate(t, keys)
		g.deleted(keys[0], keys[1])
		time.Sleep(2 * removalGather)
		g.withdraw(keys[0])
		time.Sleep(time.Minute)
		synctest.Wait()
		if diff := cmp.Diff(keys[1:2], g.gone(), addr); diff != "" {
			t.Errorf("gone (-want +got):\n%s", diff)
		}
	})
}

func TestWhatIsNotServedIsNotRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, vips(2))
		g.deleted(vips(3)[2]) // A VirtualServer that is refused.
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(g.gone()) > 0 || g.lists > 0 {
			t.Errorf("gone %v after %d lists", g.gone(), g.lists)
		}
	})
}

func TestAnotherPoolIsDoubtedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := vips(10)
		g := newGate(t, keys)
		g.deleted(keys[0])
		time.Sleep(time.Minute)
		g.deleted(keys[1])
		g.reset()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(g.gone()) != 1 {
			t.Errorf("gone: %v", g.gone())
		}
		g.deleted(keys[2])
		time.Sleep(removalDoubt)
		synctest.Wait()
		if len(g.gone()) != 1 {
			t.Error("the first removal of the pool was not doubted")
		}
	})
}

// One list may say anything: as long as the next one has them, no VIP goes.
func TestNoVIPGoesOnOneEmptyList(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := vips(rapid.IntRange(1, 40).Draw(rt, "served"))
		missing := rapid.SliceOfNDistinct(rapid.SampledFrom(keys), len(keys)/2+1, len(keys), rapid.ID[netstate.Key]).Draw(rt, "missing")
		pauses := rapid.SliceOfN(rapid.IntRange(0, 300), len(missing), len(missing)).Draw(rt, "pauses in ms")
		warm := rapid.Bool().Draw(rt, "not the first round")
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, keys)
			if warm {
				g.doubtful = false
			}
			// All of the missing are asked for within the time that is gathered.
			left := removalGather
			for i, key := range missing {
				g.request(key)
				pause := min(time.Duration(pauses[i])*time.Millisecond, left-time.Millisecond)
				left -= pause
				time.Sleep(pause)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if len(g.gone()) > 0 {
				rt.Fatalf("%d of %d removed: %v", len(g.gone()), len(keys), g.gone())
			}
		})
	})
}

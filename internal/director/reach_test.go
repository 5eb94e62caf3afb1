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

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// router is a kernel whose routes change.
type router struct {
	mu      sync.Mutex
	routes  map[netip.Addr]kernel.Reach
	broken  error
	stuck   bool
	looks   int
	watches []chan struct{}
}

func (r *router) Reach(ctx context.Context, addr netip.Addr) (kernel.Reach, error) {
	r.mu.Lock()
	r.looks++
	reach, broken, stuck := r.routes[addr], r.broken, r.stuck
	r.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return kernel.Reach{}, ctx.Err()
	}
	return reach, broken
}

func (r *router) WatchRoutes(context.Context) (<-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	watch := make(chan struct{}, 1)
	r.watches = append(r.watches, watch)
	return watch, nil
}

// set changes a route, and tells.
func (r *router) set(addr netip.Addr, reach kernel.Reach) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes[addr] = reach
	r.watches[len(r.watches)-1] <- struct{}{}
}

func (r *router) lookUps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.looks
}

// watched runs reaches over a router, and counts what is told.
func watched(t *testing.T) (*router, *reaches, func() int) {
	t.Helper()
	r := &router{routes: map[netip.Addr]kernel.Reach{}}
	var mu sync.Mutex
	told := 0
	known := newReaches(r, func() { mu.Lock(); defer mu.Unlock(); told++ }, slog.New(slog.DiscardHandler))
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { known.run(ctx); close(done) }()
	t.Cleanup(func() { end(); <-done })
	synctest.Wait()
	return r, known, func() int { mu.Lock(); defer mu.Unlock(); return told }
}

var (
	podAddr, farAddr = netip.MustParseAddr("10.244.0.5"), netip.MustParseAddr("10.1.2.3")
	byVeth           = kernel.Reach{Link: "veth-pod"}
	byGateway        = kernel.Reach{Link: "eth0", Gateway: netip.MustParseAddr("192.168.11.1")}
)

func TestARouteIsLookedUpOnceUntilItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, known, told := watched(t)
		r.routes[podAddr], r.routes[farAddr] = byVeth, byGateway
		for range 3 {
			if got, ok := known.of(podAddr); !ok || got != plan.Reach(byVeth) {
				t.Fatalf("of() = %+v, %t", got, ok)
			}
			known.of(farAddr)
		}
		if r.lookUps() != 2 {
			t.Errorf("looked up %d times, want 2", r.lookUps())
		}
		// A route that concerns nobody.
		r.set(netip.MustParseAddr("10.9.9.9"), byVeth)
		pass(time.Second)
		if told() != 0 {
			t.Error("told of a change that concerns nobody")
		}
		r.set(podAddr, byGateway)
		pass(time.Second)
		if got, ok := known.of(podAddr); !ok || got != plan.Reach(byGateway) || told() != 1 {
			t.Errorf("after the change of() = %+v, %t, told %d times", got, ok, told())
		}
	})
}

func TestWhatChangedUnwatchedIsSeenWithTheNextWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, known, told := watched(t)
		r.routes[podAddr] = byVeth
		known.of(podAddr)
		r.mu.Lock()
		close(r.watches[0])
		r.routes[podAddr] = kernel.Reach{}
		r.mu.Unlock()
		pass(2 * time.Second)
		if got, ok := known.of(podAddr); !ok || got != (plan.Reach{}) || told() != 1 {
			t.Errorf("of() = %+v, %t, told %d times", got, ok, told())
		}
	})
}

func TestAStuckKernelHoldsNoPlanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, known, told := watched(t)
		r.stuck = true
		begun := time.Now()
		for i := range 1000 {
			if _, ok := known.of(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})); ok {
				t.Fatal("something is known")
			}
		}
		if took := time.Since(begun); took > lookUpPatience {
			t.Errorf("a thousand look-ups took %s", took)
		}
		r.mu.Lock()
		r.stuck = false
		r.routes[podAddr] = byVeth
		r.mu.Unlock()
		pass(lookUpPause + time.Second)
		if told() != 1 {
			t.Errorf("told %d times that plans can be made anew", told())
		}
		if got, ok := known.of(podAddr); !ok || got.Link != "veth-pod" {
			t.Errorf("of() = %+v, %t", got, ok)
		}
	})
}

func TestWhatTheKernelTellsNoMoreIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, known, told := watched(t)
		r.routes[podAddr] = byVeth
		known.of(podAddr)
		r.mu.Lock()
		r.broken = errors.New("no memory")
		r.mu.Unlock()
		r.set(podAddr, byGateway)
		pass(time.Second)
		if _, ok := known.of(podAddr); ok || told() != 1 {
			t.Errorf("known %t, told %d times", ok, told())
		}
	})
}

func TestAddressesOfLongAgoAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, known, told := watched(t)
		for i := range manyReaches + 1 {
			known.of(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		}
		r.set(podAddr, byVeth)
		pass(time.Second)
		known.mu.Lock()
		defer known.mu.Unlock()
		if len(known.known) > 0 || told() != 1 {
			t.Errorf("%d are known, told %d times", len(known.known), told())
		}
	})
}

func TestTheNodeIsPreparedForThePodsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n, dir := &leases{}, newNode(11), t.TempDir()
		first := start(t, "lb-1", n, l, dir)
		prepared := func() []string {
			node, _ := n.fake.Node()
			return node.Links
		}
		look := func() []string {
			n.guard <- struct{}{} // has the node prepared
			pass(time.Second)
			return prepared()
		}
		planWith := func(p *process, servers []netip.Addr, links ...string) {
			d := desired(vip1, servers...)
			d.Links = links
			p.mu.Lock()
			p.wanted[vip1] = struct{}{}
			p.mu.Unlock()
			p.Program(d)
			p.Synced("default")
		}
		first.Join(pool())
		pass(time.Second)
		planWith(first, []netip.Addr{rs1, rs2}, "veth-b", "veth-a")
		pass(time.Second)
		if got := prepared(); !slices.Equal(got, []string{"veth-a", "veth-b"}) {
			t.Errorf("prepared %v", got)
		}
		first.stop()

		// The next process keeps them until it knows better.
		second := start(t, "lb-1", n, l, dir)
		second.Join(pool())
		pass(time.Second)
		if got := look(); !slices.Equal(got, []string{"veth-a", "veth-b"}) {
			t.Errorf("after a restart prepared %v", got)
		}
		// A server that leaves is heard until its connections have ended.
		n.fake.SetConnections(destinationOf(vip1, rs2), netstate.Connections{Active: 1})
		planWith(second, []netip.Addr{rs1}, "veth-b")
		pass(time.Second)
		if got := look(); !slices.Equal(got, []string{"veth-a", "veth-b"}) {
			t.Errorf("while a server leaves prepared %v", got)
		}
		n.fake.SetConnections(destinationOf(vip1, rs2), netstate.Connections{})
		pass(2 * drainLook)
		if got := look(); !slices.Equal(got, []string{"veth-b"}) {
			t.Errorf("at the end prepared %v", got)
		}
	})
}

package director

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

const (
	// lookUpPatience bounds how long a plan waits for a route.
	lookUpPatience = 200 * time.Millisecond
	// lookUpPause is how long nothing is looked up after the kernel did not tell,
	// so that a thousand real servers do not wait one after the other.
	lookUpPause = 5 * time.Second
	// routesGather is how long changes of routes are gathered: a node that starts
	// ten pods has everything planned once.
	routesGather = 500 * time.Millisecond
	// manyReaches is how many addresses are remembered before all are forgotten, and
	// those that still matter looked up again: pods come and go.
	manyReaches = 4096
)

// routing is the part of the kernel that knows routes.
type routing interface {
	// Reach looks a route up.
	Reach(context.Context, netip.Addr) (kernel.Reach, error)
	// WatchRoutes sends a value after a change that may make look-ups differ.
	WatchRoutes(context.Context) (<-chan struct{}, error)
}

// reaches remembers how the node gets to real servers, for as long as its routes
// stay as they are.
type reaches struct {
	kernel routing
	// changed is told when something that was asked for is no longer so.
	changed func()
	log     *slog.Logger
	// missed says that something was asked for and could not be told.
	missed chan struct{}

	mu    sync.Mutex
	known map[netip.Addr]plan.Reach
	// looks counts the looks at changed routes: what was read before one is not
	// remembered after it.
	looks int
	// paused is until when nothing is looked up.
	paused time.Time
}

func newReaches(k routing, changed func(), log *slog.Logger) *reaches {
	return &reaches{kernel: k, changed: changed, log: log, missed: make(chan struct{}, 1), known: map[netip.Addr]plan.Reach{}}
}

// of returns how the node gets to an address, false if that is not known now. It
// waits for no longer than lookUpPatience.
func (r *reaches) of(addr netip.Addr) (plan.Reach, bool) {
	r.mu.Lock()
	known, found := r.known[addr]
	looks, paused := r.looks, time.Now().Before(r.paused)
	r.mu.Unlock()
	if found || paused {
		return known, found
	}
	ctx, done := context.WithTimeout(context.Background(), lookUpPatience)
	defer done()
	reach, err := r.kernel.Reach(ctx, addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.log.Error("Looking up how a real server is reached; taking it for adjacent", "address", addr, "error", err)
		r.paused = time.Now().Add(lookUpPause)
		select {
		case r.missed <- struct{}{}:
		default:
		}
		return plan.Reach{}, false
	}
	if r.looks == looks {
		r.known[addr] = plan.Reach(reach)
	}
	return plan.Reach(reach), true
}

// run forgets what routes make untrue, until ctx ends.
func (r *reaches) run(ctx context.Context) {
	for ctx.Err() == nil {
		changes, err := r.kernel.WatchRoutes(ctx)
		if err != nil {
			r.log.Error("Watching routes", "error", err)
		}
		for err == nil && ctx.Err() == nil {
			// First of all: what changed while nobody watched.
			r.look(ctx)
			if !r.next(ctx, changes) {
				break
			}
		}
		if !wait(ctx, time.Second) {
			return
		}
	}
}

// next waits for a change, and for those that come with it. False says that the
// watch, or ctx, has ended.
func (r *reaches) next(ctx context.Context, changes <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case _, open := <-changes:
		return open && wait(ctx, routesGather)
	case <-r.missed:
		if wait(ctx, lookUpPause) {
			r.changed()
		}
		return true
	}
}

// look looks up anew what is known, and tells if anything of it has changed. It
// does not tell of routes that lead to no real server.
func (r *reaches) look(ctx context.Context) {
	r.mu.Lock()
	r.looks++
	before := r.known
	if len(before) > manyReaches {
		r.known = map[netip.Addr]plan.Reach{}
		r.mu.Unlock()
		r.changed()
		return
	}
	addrs := make([]netip.Addr, 0, len(before))
	for addr := range before {
		addrs = append(addrs, addr)
	}
	r.mu.Unlock()
	fresh, err := r.lookUp(ctx, addrs)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.log.Error("Looking at changed routes", "error", err)
	}
	r.mu.Lock()
	differs := err != nil && len(addrs) > 0
	for _, addr := range addrs {
		reach, told := fresh[addr]
		differs = differs || reach != r.known[addr]
		if told {
			r.known[addr] = reach
		} else {
			delete(r.known, addr)
		}
	}
	r.mu.Unlock()
	if differs {
		r.changed()
	}
}

// lookUp looks addresses up until the kernel does not tell.
func (r *reaches) lookUp(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]plan.Reach, error) {
	fresh := make(map[netip.Addr]plan.Reach, len(addrs))
	for _, addr := range addrs {
		limited, done := context.WithTimeout(ctx, lookUpPatience)
		reach, err := r.kernel.Reach(limited, addr)
		done()
		if err != nil {
			return fresh, fmt.Errorf("after %d of %d addresses: %w", len(fresh), len(addrs), err)
		}
		fresh[addr] = plan.Reach(reach)
	}
	return fresh, nil
}

// Reach returns how the node gets to an address; false says that it is not known.
// What it returned is true until SiteChanged is called. It waits for the kernel
// only briefly.
func (d *Director) Reach(addr netip.Addr) (plan.Reach, bool) { return d.reaches.of(addr) }

package director

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

const (
	// removalGather is how long removals are gathered before they are judged:
	// many at once look like few if each is judged as it comes.
	removalGather = time.Second
	// removalDoubt is how long a mass removal waits for a second list that says
	// the same. An API server restored from a backup, or a CRD made anew, lists
	// nothing for a moment, and a site's VIPs must not go with it.
	removalDoubt = 10 * time.Second
)

// removals holds back the removal of keys until it is believed. It is judged
// as a whole: at start, and whenever more than half of what is served would go
// at once, a second list has to agree.
type removals struct {
	// list asks the API, not a cache, which keys are wanted.
	list func(context.Context) (map[netstate.Key]struct{}, error)
	// served returns the keys that are served now.
	served func() []netstate.Key
	// leave carries out a removal.
	leave func(netstate.Key)
	log   *slog.Logger

	mu      sync.Mutex
	pending map[netstate.Key]struct{}
	wake    chan struct{}
	// doubtful is true until the first round was confirmed: what an earlier
	// process left in the kernel is not removed on the word of one list.
	doubtful bool
}

func newRemovals(list func(context.Context) (map[netstate.Key]struct{}, error), served func() []netstate.Key, leave func(netstate.Key), log *slog.Logger) *removals {
	return &removals{
		list:     list,
		served:   served,
		leave:    leave,
		log:      log,
		pending:  map[netstate.Key]struct{}{},
		wake:     make(chan struct{}, 1),
		doubtful: true,
	}
}

// request asks for the removal of a key that no VirtualServer names any more.
func (r *removals) request(key netstate.Key) {
	r.mu.Lock()
	r.pending[key] = struct{}{}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// reset forgets all requests, and doubts the next ones as at a start: the pool
// is another.
func (r *removals) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.pending)
	r.doubtful = true
}

// withdraw takes a request back: the key is wanted again.
func (r *removals) withdraw(key netstate.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pending, key)
}

// run judges the requests until ctx ends. What is pending then is left in
// place; the next start finds it.
func (r *removals) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		if !wait(ctx, removalGather) {
			return
		}
		if r.mass() && !r.confirm(ctx) {
			return
		}
		r.carryOut()
	}
}

// mass says whether the pending removals need a second list.
func (r *removals) mass() bool {
	served := r.served()
	r.mu.Lock()
	defer r.mu.Unlock()
	going := 0
	for _, key := range served {
		if _, pending := r.pending[key]; pending {
			going++
		}
	}
	return going > 0 && (r.doubtful || 2*going > len(served))
}

// confirm waits for a list that is later by removalDoubt, and drops every
// request that it does not bear out. It asks until the API answers; false
// means that ctx ended first.
func (r *removals) confirm(ctx context.Context) bool {
	for {
		if !wait(ctx, removalDoubt) {
			return false
		}
		wanted, err := r.list(ctx)
		if err != nil {
			r.log.Warn("Asking again which VIPs are wanted before removing any", "error", err)
			continue
		}
		r.mu.Lock()
		for key := range wanted {
			delete(r.pending, key)
		}
		r.doubtful = false
		r.mu.Unlock()
		return true
	}
}

// carryOut removes what is pending and served; the rest never was, as with a
// VirtualServer that is refused.
func (r *removals) carryOut() {
	r.mu.Lock()
	going := r.pending
	r.pending = map[netstate.Key]struct{}{}
	r.mu.Unlock()
	for _, key := range r.served() {
		if _, pending := going[key]; !pending {
			continue
		}
		r.log.Info("Withdrawing a VIP that no VirtualServer names", "vip", key)
		r.leave(key)
	}
}

// wait returns true after d, or false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

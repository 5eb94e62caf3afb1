package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// A namespace that can't be opened, or put back, is tried again after these times.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// keeper keeps one network namespace, in a goroutine of its own. It is the Plan of
// its realserver.Keeper.
type keeper struct {
	podUID          string
	netns, stateDir string
	open            func(netns, stateDir string) (Host, error)
	slots           chan struct{}
	interval        time.Duration
	changed         func()
	log             *slog.Logger

	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine ends

	mu      sync.Mutex
	tenancy tenancy
	adopted bool // what an earlier process left is in tenancy
	outcome realserver.Outcome
	problem string // other than outcome's
	over    bool   // nothing is left to be done, or it was stopped
}

// run works until ctx ends, which leaves all as it is, or until nothing is wanted
// and all is put back.
func (k *keeper) run(ctx context.Context) {
	wait := firstPause
	for {
		started := time.Now()
		err := k.attend(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		k.fail(err)
		if time.Since(started) > longestPause {
			wait = firstPause
		}
		if !pause(ctx, wait) {
			return
		}
		wait = min(2*wait, longestPause)
	}
}

// attend opens the namespace, keeps it, and puts it back at the end.
func (k *keeper) attend(ctx context.Context) (err error) {
	opened, err := k.open(k.netns, k.stateDir)
	if err != nil {
		return fmt.Errorf("opening the network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	host := limited{Host: opened, slots: k.slots}
	state, err := host.Observe(ctx)
	if err != nil {
		return fmt.Errorf("looking at the network namespace: %w", err)
	}
	k.adopt(state.Recorded)
	inner := realserver.Keeper{Host: host, Plan: k, Interval: k.interval, Log: k.log}
	inner.Run(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := host.Restore(ctx); err != nil {
		return fmt.Errorf("putting back what was found: %w", err)
	}
	if err := os.RemoveAll(k.stateDir); err != nil {
		return fmt.Errorf("removing the record: %w", err)
	}
	k.end()
	return nil
}

// want replaces what is wanted. It makes no difference to a keeper that is over;
// another one is started then.
func (k *keeper) want(vips []VIP) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tenancy.want(vips, time.Now()) {
		signal(k.wake)
	}
}

// stop ends the keeper, which leaves everything in place. What was there is not
// reported any more.
func (k *keeper) stop() {
	k.end()
	k.cancel()
}

func (k *keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.outcome = realserver.Outcome{}
}

// ended says whether the keeper has let go of its namespace.
func (k *keeper) ended() bool {
	select {
	case <-k.done:
		return true
	default:
		return false
	}
}

// found is what was last found, and what there is to complain of.
func (k *keeper) found() (realserver.Outcome, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.problem != "" {
		return k.outcome, k.problem
	}
	return k.outcome, k.outcome.Problem
}

func (k *keeper) adopt(recorded []netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.adopted {
		k.tenancy.adopt(recorded, time.Now())
		k.adopted = true
	}
}

// fail reports what keeps the keeper from its work.
func (k *keeper) fail(err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	k.mu.Lock()
	same := k.problem == text || k.over
	if !k.over {
		k.problem, k.outcome = text, realserver.Outcome{}
	}
	k.mu.Unlock()
	if !same {
		k.log.Error("the pod can't be kept a real server; trying again", "err", err)
		k.changed()
	}
}

// Wanted implements realserver.Plan. What is not to stay is not reported any
// more, before it is taken off.
func (k *keeper) Wanted() realserver.Wanted {
	k.mu.Lock()
	wanted := k.tenancy.at(time.Now())
	changed := k.set(k.outcome, wanted)
	k.mu.Unlock()
	if changed {
		k.changed()
	}
	return wanted
}

// Changed implements realserver.Plan.
func (k *keeper) Changed() <-chan struct{} { return k.wake }

// Checked implements realserver.Plan.
func (k *keeper) Checked(outcome realserver.Outcome) {
	k.mu.Lock()
	changed := k.set(outcome, k.tenancy.at(time.Now())) || k.problem != ""
	k.problem = ""
	k.mu.Unlock()
	if changed {
		k.changed()
	}
}

// set keeps an outcome, without what is not to stay, and says whether it is
// another one. The lock is held.
func (k *keeper) set(outcome realserver.Outcome, wanted realserver.Wanted) (changed bool) {
	if k.over {
		return false
	}
	before := k.outcome
	outcome.VIPs = slices.DeleteFunc(slices.Clone(outcome.VIPs), func(vip netip.Addr) bool {
		return !slices.Contains(wanted.VIPs, vip) && !slices.Contains(wanted.Leaving, vip)
	})
	slices.SortFunc(outcome.VIPs, netip.Addr.Compare)
	k.outcome = outcome
	return !slices.Equal(before.VIPs, outcome.VIPs) || !slices.Equal(before.Addresses, outcome.Addresses) ||
		before.Problem != outcome.Problem
}

package realserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// Host is what is made a real server; kernel.RealServer is one.
type Host interface {
	// Observe reads what the host is like.
	Observe(context.Context) (kernel.RealServerState, error)
	// Configure sets sysctls and records first what was found.
	Configure(context.Context, []kernel.Setting) error
	// Prepare puts VIPs on lo, and takes off those that it once put there and that
	// are not named any more.
	Prepare(context.Context, []netip.Addr) error
	// Watch reports changes of the addresses on lo until ctx ends.
	Watch(context.Context) (<-chan kernel.Link, error)
	// Restore takes off the VIPs of Prepare, then puts the sysctls back.
	Restore(context.Context) error
}

// settle is the least time between two repairs, so that a quarrel with another
// program over an address costs little.
const settle = 100 * time.Millisecond

// firstRetry is the time to the first check after one that failed; it doubles until
// it is the interval.
const firstRetry = time.Second

// Plan is what a Keeper goes by where the VIPs change while it runs.
type Plan interface {
	// Wanted returns what the host is to have now.
	Wanted() Wanted
	// Changed sends a value when Wanted says something else, other than because
	// its Until has passed.
	Changed() <-chan struct{}
	// Checked is told what each check found.
	Checked(Outcome)
}

// Wanted is which VIPs a host is to have at one moment.
type Wanted struct {
	VIPs []netip.Addr
	// Leaving are not wanted any more. They stay where they are still on lo and
	// are not put there again.
	Leaving []netip.Addr
	// Until is when this is over; zero if time makes no difference.
	Until time.Time
}

// Keeper makes a host the real server of VIPs and keeps it so. Its methods may
// be called one at a time.
type Keeper struct {
	Host Host
	// VIPs are wanted, if there is no Plan.
	VIPs []netip.Addr
	// Plan, if set, is followed by Run.
	Plan Plan
	// Interval is the time between two checks of what the kernel reports no
	// changes of.
	Interval time.Duration
	Log      *slog.Logger

	obstacles []string
	complaint string        // as last logged
	retry     time.Duration // after a check that failed; 0 after one that did not
}

// SetUp makes the host a real server: the sysctls are set before a VIP is on lo,
// else the host would answer ARP for it. What cannot be is refused before
// anything is changed; what fails later is undone.
func (k *Keeper) SetUp(ctx context.Context) error {
	state, err := k.Host.Observe(ctx)
	if err != nil {
		return fmt.Errorf("looking at the host: %w", err)
	}
	if obstacles := Obstacles(k.VIPs, state); len(obstacles) > 0 {
		return errors.New(strings.Join(obstacles, "; "))
	}
	if _, err := k.bring(ctx, k.VIPs, state, "set up"); err != nil {
		return errors.Join(err, k.Host.Restore(context.WithoutCancel(ctx)))
	}
	return nil
}

// Run checks and repairs until ctx ends, or until a Plan wants nothing and
// nothing is left that is leaving; what is to be put back then is Restore's. VIPs
// are checked as soon as the kernel reports a change, everything at once and at
// each interval. What can't be repaired is logged and tried again. When Run
// returns nothing uses the host any more.
func (k *Keeper) Run(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	ticker := time.NewTicker(k.Interval)
	defer ticker.Stop()
	changes := k.watch(ctx)
	defer func() {
		stop()
		for changes != nil {
			if _, ok := <-changes; !ok {
				changes = nil
			}
		}
	}()
	for {
		wanted := k.wanted()
		deviated, over := k.check(ctx, wanted)
		if over || ctx.Err() != nil {
			return
		}
		if deviated {
			pause(ctx, settle)
		}
		due, cancel := k.due(wanted)
		select {
		case <-ctx.Done():
		case _, ok := <-changes:
			if !ok {
				// Until the next interval subscribes anew.
				changes = nil
			}
		case <-k.planChanged():
		case <-due:
		case <-ticker.C:
			if changes == nil {
				changes = k.watch(ctx)
			}
		}
		cancel()
	}
}

// watch returns nil, which never sends, if there is nothing to watch.
func (k *Keeper) watch(ctx context.Context) <-chan kernel.Link {
	changes, err := k.Host.Watch(ctx)
	if err != nil {
		k.Log.Warn("changes of addresses are noticed at the next check only", "err", err)
		return nil
	}
	return changes
}

func (k *Keeper) wanted() Wanted {
	if k.Plan == nil {
		return Wanted{VIPs: k.VIPs}
	}
	return k.Plan.Wanted()
}

// planChanged returns nil, which never sends, if there is no plan.
func (k *Keeper) planChanged() <-chan struct{} {
	if k.Plan == nil {
		return nil
	}
	return k.Plan.Changed()
}

// due sends when the next check is due before the interval has passed: nil if
// it is not.
func (k *Keeper) due(wanted Wanted) (due <-chan time.Time, cancel func()) {
	var wait time.Duration
	switch {
	case k.retry > 0:
		wait = k.retry
	case !wanted.Until.IsZero():
		wait = max(time.Until(wanted.Until), time.Nanosecond)
	default:
		return nil, func() {}
	}
	timer := time.NewTimer(wait)
	return timer.C, func() { timer.Stop() }
}

// check repairs what deviates and says whether anything did. It is over if a
// plan has nothing for this host.
func (k *Keeper) check(ctx context.Context, wanted Wanted) (deviated, over bool) {
	state, err := k.Host.Observe(ctx)
	if err == nil {
		vips := k.keepable(wanted, state)
		if k.Plan != nil && len(vips) == 0 && len(wanted.VIPs) == 0 {
			return false, true
		}
		k.report(Obstacles(vips, state))
		// A host that can have none of them is left alone.
		deviated = len(vips)+len(state.Recorded) > 0 && len(Deviations(vips, state)) > 0
		if deviated {
			state, err = k.bring(ctx, vips, state, "repaired")
		}
	}
	if ctx.Err() != nil {
		return false, false
	}
	k.complain(err)
	if k.Plan != nil {
		k.Plan.Checked(outcome(wanted, state, err))
	}
	return deviated, false
}

// keepable is what the host is to have of a plan: what it can, and what it has
// already.
func (k *Keeper) keepable(wanted Wanted, state kernel.RealServerState) []netip.Addr {
	if k.Plan == nil {
		return wanted.VIPs
	}
	var vips []netip.Addr
	for _, vip := range wanted.VIPs {
		if slices.Contains(state.Recorded, vip) || len(Obstacles([]netip.Addr{vip}, state)) == 0 {
			vips = append(vips, vip)
		}
	}
	for _, vip := range wanted.Leaving {
		if _, found := onLoopback(vip, state); found {
			vips = append(vips, vip)
		}
	}
	return vips
}

// report logs obstacles that came up while the host serves, each once: they are
// somebody's own settings, which are not ours to change.
func (k *Keeper) report(obstacles []string) {
	for _, o := range obstacles {
		if !slices.Contains(k.obstacles, o) {
			k.Log.Warn("this keeps the host from being a real server", "what", o)
		}
	}
	k.obstacles = obstacles
}

// complain logs why a check failed, the same once, and sees to the next one.
func (k *Keeper) complain(err error) {
	if err == nil {
		k.complaint, k.retry = "", 0
		return
	}
	k.retry = min(max(2*k.retry, firstRetry), k.Interval)
	if text := err.Error(); text != k.complaint {
		k.Log.Error("the host can't be kept a real server; trying again", "err", err)
		k.complaint = text
	}
}

// bring does what deviates, looks whether it is done, and logs it. It returns
// what the host is like then, also if something failed.
func (k *Keeper) bring(
	ctx context.Context, vips []netip.Addr, state kernel.RealServerState, done string,
) (kernel.RealServerState, error) {
	err := k.Host.Configure(ctx, Settings(state))
	if err == nil {
		err = k.Host.Prepare(ctx, vips)
	}
	after, lookErr := k.Host.Observe(ctx)
	if lookErr != nil {
		return kernel.RealServerState{}, errors.Join(err, fmt.Errorf("verifying: %w", lookErr))
	}
	left := Deviations(vips, after)
	for _, d := range Deviations(vips, state) {
		if !slices.Contains(left, d) {
			k.Log.Info(done, "what", d.Subject, "found", d.Found, "now", d.Want)
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("somebody else keeps changing it: %s", left[0])
	}
	return after, err
}

// pause waits, less long if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

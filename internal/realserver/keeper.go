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

// Keeper makes a host the real server of VIPs and keeps it so. Its methods may
// be called one at a time.
type Keeper struct {
	Host Host
	VIPs []netip.Addr
	// Interval is the time between two checks of what the kernel reports no
	// changes of.
	Interval time.Duration
	Log      *slog.Logger

	obstacles []string
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
	if err := k.bring(ctx, state, "set up"); err != nil {
		return errors.Join(err, k.Host.Restore(context.WithoutCancel(ctx)))
	}
	return nil
}

// Run checks and repairs until ctx ends: VIPs as soon as the kernel reports a
// change, everything at each interval. What can't be repaired is logged and
// tried again.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(k.Interval)
	defer ticker.Stop()
	changes := k.watch(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes:
			if !ok {
				// Until the next check subscribes anew.
				changes = nil
				continue
			}
		case <-ticker.C:
			if changes == nil {
				changes = k.watch(ctx)
			}
		}
		if k.check(ctx) {
			pause(ctx, settle)
		}
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

// check repairs what deviates and says whether anything did.
func (k *Keeper) check(ctx context.Context) (deviated bool) {
	state, err := k.Host.Observe(ctx)
	if err == nil {
		k.report(Obstacles(k.VIPs, state))
		deviated = len(Deviations(k.VIPs, state)) > 0
	}
	if deviated {
		err = k.bring(ctx, state, "repaired")
	}
	if err != nil && ctx.Err() == nil {
		k.Log.Error("the host can't be kept a real server; trying again", "err", err)
	}
	return deviated
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

// bring does what deviates, looks whether it is done, and logs it.
func (k *Keeper) bring(ctx context.Context, state kernel.RealServerState, done string) error {
	if err := k.Host.Configure(ctx, Settings(state)); err != nil {
		return err
	}
	if err := k.Host.Prepare(ctx, k.VIPs); err != nil {
		return err
	}
	after, err := k.Host.Observe(ctx)
	if err != nil {
		return fmt.Errorf("verifying: %w", err)
	}
	left := Deviations(k.VIPs, after)
	for _, d := range Deviations(k.VIPs, state) {
		if !slices.Contains(left, d) {
			k.Log.Info(done, "what", d.Subject, "found", d.Found, "now", d.Want)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("somebody else keeps changing it: %s", left[0])
	}
	return nil
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

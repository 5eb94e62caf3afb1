package director

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// ConnectionSync is how the directors of a pool share their connections. The zero
// ConnectionSync is not at all.
type ConnectionSync struct {
	Enabled bool
	// Interface is where; empty is the announcement interface.
	Interface string
	// ID tells the pool from others on the segment.
	ID uint8
	// Group and Port are where a director sends to; the zero Addr and 0 are the
	// kernel's.
	Group netip.Addr
	Port  uint16
}

// SyncStatus is how a director shares its connections.
type SyncStatus struct {
	Enabled bool
	// Running says that both daemons of the kernel run, and Source the address from
	// which it sends.
	Running bool
	Source  netip.Addr
	// Cold says that the kernel may not know all connections of the other directors
	// yet, ColdUntil when it will.
	Cold      bool
	ColdUntil time.Time
	// Err is why they do not run; nil if they do, or if nobody has tried.
	Err error
}

// syncing is what a session knows of the daemons.
type syncing struct {
	// told is what the kernel was last told, state and err what it made of it.
	told  *kernel.Sync
	state kernel.SyncState
	err   error
	// place is what the announcement interface was like then.
	place string
	// cold is what was last reported.
	cold bool
}

// synchronizer is the part of the kernel that shares connections.
type synchronizer interface {
	// SyncConnections shares connections as told from now on, and repairs it.
	SyncConnections(context.Context, kernel.Sync) (kernel.SyncState, error)
}

// synchronize keeps connections shared as the pool wants it until ctx ends; then
// the daemons go on. The kernel does it by itself; what there is to do is to start
// it, to say who the others are, and to see to it when an interface changes.
func (s *session) synchronize(ctx context.Context) {
	watched := ""
	var changes <-chan kernel.Link
	var end context.CancelFunc = func() {}
	defer func() { end() }()
	var next time.Time
	for force := false; ; {
		wanted, ready := s.syncWanted()
		if ready && (force || !time.Now().Before(next) || s.syncDiffers(wanted)) {
			next = time.Now().Add(prepareAudit)
			if s.syncOnce(ctx, wanted) != nil {
				next = time.Now().Add(prepareRetry)
			}
			if wanted.Interface != watched {
				end()
				watched = wanted.Interface
				changes, end = s.watchSync(ctx, watched)
			}
		}
		s.noteCold()
		again := s.untilWarm()
		if ready {
			again = min(again, time.Until(next))
		}
		timer := time.NewTimer(again)
		force = false
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.resync:
		case _, open := <-changes:
			force = open
			if !open {
				changes, watched = nil, ""
			}
		}
		timer.Stop()
	}
}

// watchSync follows the interface of the daemons if it is not the announcement
// interface, which is followed anyhow.
func (s *session) watchSync(ctx context.Context, name string) (<-chan kernel.Link, context.CancelFunc) {
	s.mu.Lock()
	announcing := s.node.link.Name
	s.mu.Unlock()
	if name == "" || name == announcing {
		return nil, func() {}
	}
	ctx, end := context.WithCancel(ctx)
	changes, err := s.d.cfg.Kernel.WatchLink(ctx, name)
	if err != nil {
		s.d.cfg.Log.Warn("Watching the interface of connection synchronisation; the audit will find changes", "interface", name, "error", err)
		return nil, end
	}
	return changes, end
}

// syncWanted returns what the kernel is to be told; not ready is that it is not to
// be told anything yet. As long as nobody knows who the others are the guard would
// let in none of them, or take out those that an earlier process let in.
func (s *session) syncWanted() (wanted kernel.Sync, ready bool) {
	members, known := s.d.syncMembers()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node.err != nil || !s.node.link.Exists() {
		return kernel.Sync{}, false
	}
	settings := s.pool.ConnectionSync
	if !settings.Enabled {
		return kernel.Sync{}, true
	}
	return kernel.Sync{
		SyncDaemon: kernel.SyncDaemon{
			Interface: cmp.Or(settings.Interface, s.node.link.Name), ID: settings.ID, Group: settings.Group, Port: settings.Port,
		},
		Members: members,
	}, known
}

// syncDiffers says whether the kernel has to be told, and not just looked at.
func (s *session) syncDiffers(wanted kernel.Sync) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.syncing.told == nil || !reflect.DeepEqual(*s.syncing.told, wanted) || s.syncing.place != s.syncPlace()
}

// syncPlace describes what of the announcement interface the daemons are bound to:
// VIPs come and go there. s.mu is held.
func (s *session) syncPlace() string {
	link := s.node.link
	own := slices.DeleteFunc(slices.Clone(link.Addresses), func(p netip.Prefix) bool {
		return p.Addr().Is6() || s.d.isVIP(p.Addr())
	})
	return fmt.Sprint(link.Index, link.Up, own)
}

// syncOnce tells the kernel what is wanted.
func (s *session) syncOnce(ctx context.Context, wanted kernel.Sync) error {
	s.mu.Lock()
	place := s.syncPlace()
	s.mu.Unlock()
	state, err := s.d.cfg.Kernel.SyncConnections(ctx, wanted)
	if ctx.Err() != nil {
		return err
	}
	s.mu.Lock()
	before := s.syncing
	s.syncing.told, s.syncing.state, s.syncing.err, s.syncing.place = &wanted, state, err, place
	s.mu.Unlock()
	s.d.cfg.Metrics.sharing(state.Running)
	if fmt.Sprint(before.err) != fmt.Sprint(err) && err != nil {
		s.d.cfg.Log.Warn("Connections are not shared with the other directors", "error", err)
	}
	if before.state.Since != state.Since && state.Running {
		s.d.cfg.Log.Info("Connections are shared with the other directors", "interface", wanted.Interface, "syncID", wanted.ID, "from", state.Source)
	}
	if before.state != state || fmt.Sprint(before.err) != fmt.Sprint(err) {
		s.d.cfg.Changed(netstate.Key{})
		s.refresh()
	}
	return err
}

// resyncSoon asks for a look at what is shared.
func (s *session) resyncSoon() {
	select {
	case s.resync <- struct{}{}:
	default:
	}
}

// coldUntil is the moment, by the clock of the fence, from which the kernel knows
// the connections of the others: all that have packets have been sent since it
// began to listen. Until it is known since when it has, that is now. Where it does
// not listen, waiting is of no use. s.mu is held.
func (s *session) coldUntil() time.Duration {
	delay := s.pool.Election.Preemption.Delay
	switch {
	case !s.pool.ConnectionSync.Enabled || s.syncing.err != nil:
		return 0
	case s.syncing.state.Running:
		return s.syncing.state.Since + delay
	default:
		return s.fence.Now() + delay
	}
}

// cold says whether the kernel may not know all connections of the others yet, in
// which case clients would lose theirs if this director took over from one that
// serves.
func (s *session) cold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fence.Now() < s.coldUntil()
}

// untilWarm is for how long the director is still cold, or for ever if it is not.
func (s *session) untilWarm() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.coldUntil() - s.fence.Now()
	if left <= 0 {
		return time.Duration(1<<63 - 1)
	}
	return left
}

// noteCold reports when the director becomes cold or is no more.
func (s *session) noteCold() {
	cold := s.cold()
	s.mu.Lock()
	changed := s.syncing.cold != cold
	s.syncing.cold = cold
	s.mu.Unlock()
	if changed {
		s.d.cfg.Changed(netstate.Key{})
		s.refresh()
	}
}

// syncStatus returns how connections are shared. s.mu is held.
func (s *session) syncStatus() SyncStatus {
	status := SyncStatus{
		Enabled: s.pool.ConnectionSync.Enabled, Running: s.syncing.state.Running, Source: s.syncing.state.Source, Err: s.syncing.err,
	}
	if left := s.coldUntil() - s.fence.Now(); left > 0 {
		status.Cold, status.ColdUntil = true, time.Now().Add(left)
	}
	return status
}

// Cold says whether the director may not know all connections of the others yet.
// It is false where connections are not shared.
func (d *Director) Cold() bool {
	s := d.present()
	return s != nil && s.cold()
}

// syncMembers lists the addresses from which the other directors send, and says
// whether they are known, were there none.
func (d *Director) syncMembers() (members []netip.Addr, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, peer := range d.peers {
		if peer.SyncAddress.IsValid() {
			members = append(members, peer.SyncAddress)
		}
	}
	slices.SortFunc(members, netip.Addr.Compare)
	return members, d.peersKnown
}

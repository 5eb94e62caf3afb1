package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sync says how the kernel shares its connections with those of the other
// directors of the pool. The zero Sync shares nothing.
type Sync struct {
	SyncDaemon
	// Members are the addresses from which the others send. The guard lets in
	// nobody else, and with none nobody: what a datagram says is believed.
	Members []netip.Addr
}

// SyncState is how that goes.
type SyncState struct {
	// Running says that both daemons run: the one that sends and the one that
	// receives.
	Running bool
	// Since is when the one that receives was started, by CLOCK_BOOTTIME. If an
	// earlier process started it and left no record it is when it was found.
	Since time.Duration
	// Source is the address that the one that sends has on the interface.
	Source netip.Addr
}

// daemonRecord is a daemon that was started here.
type daemonRecord struct {
	SyncDaemon
	// Link is the index of the interface, Source its address: the daemon keeps to
	// both, so that it works no more when they change.
	Link   int        `json:"link"`
	Source netip.Addr `json:"source,omitzero"`
	// Started is when, by CLOCK_BOOTTIME.
	Started time.Duration `json:"started"`
}

// syncSettings make the kernel send a connection with its first packet as soon as
// it is established, at each change of its state, and then again when it has
// packets and ten seconds have gone by: nothing depends on how many packets it
// has (ip_vs_sync_conn_needed of net/netfilter/ipvs/ip_vs_sync.c). With a period
// in packets, slow connections would expire elsewhere, and a director that comes
// back empty would not hear of those that are open.
var syncSettings = map[string]string{
	"ipv4/vs/sync_threshold":      "0\t0", // as the kernel prints it
	"ipv4/vs/sync_refresh_period": "10",
	"ipv4/vs/sync_retries":        "0",
}

// SyncConnections shares the kernel's connections as want says from now on, and
// repairs it; it may be called again at any time, for example to audit. Daemons
// that are as wanted go on, started by an earlier process or not, and only what
// differs is started anew.
//
// Daemons of somebody else are ErrSyncDaemonTaken, refused ones ErrSyncRefused.
// An interface that is down or without an IPv4 address is an error too, unless
// they run already. After an error the state says what runs.
func (c *Client) SyncConnections(ctx context.Context, want Sync) (SyncState, error) {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	if err := c.ipvs.present(ctx); err != nil {
		return SyncState{}, err
	}
	if want.Interface == "" {
		return SyncState{}, c.endSync(ctx)
	}
	want.SyncDaemon = want.filled()
	return c.sync(ctx, want)
}

func (c *Client) sync(ctx context.Context, want Sync) (SyncState, error) {
	have, err := c.syncDaemons(ctx)
	if err != nil {
		return SyncState{}, err
	}
	file, err := c.record.read()
	if err != nil {
		return SyncState{}, err
	}
	for role, running := range have {
		if !file.started(role, running) && !want.matches(running) {
			return SyncState{}, join(fmt.Errorf("%w: as %s, with %s", ErrSyncDaemonTaken, role, running), c.endSync(ctx))
		}
	}
	// Nobody may be heard before the guard knows who may, and the daemons go by
	// the settings from their first packet.
	if err := c.guardSync(ctx, &want); err != nil {
		return SyncState{}, err
	}
	if err := c.prepareSyncSettings(ctx); err != nil {
		return SyncState{}, err
	}
	place, placeErr := c.syncPlace(ctx, want.Interface)
	for _, role := range []syncRole{syncBackup, syncMaster} {
		running, runs := have[role]
		err := c.ensureDaemon(ctx, role, daemonPlan{want: want.SyncDaemon, running: running, runs: runs, place: place, placeErr: placeErr})
		if err != nil {
			return SyncState{}, err
		}
	}
	file, err = c.record.read()
	if err != nil {
		return SyncState{}, err
	}
	return SyncState{Running: true, Since: file.Daemons[syncBackup].Started, Source: file.Daemons[syncMaster].Source}, nil
}

// daemonPlan is what has to do with one daemon.
type daemonPlan struct {
	want, running SyncDaemon
	runs          bool
	place         syncPlace
	// placeErr is why none can be started now.
	placeErr error
}

// ensureDaemon starts a daemon, or starts it anew, if it has to be.
func (c *Client) ensureDaemon(ctx context.Context, role syncRole, p daemonPlan) error {
	file, err := c.record.read()
	if err != nil {
		return err
	}
	record, known := file.Daemons[role]
	if p.runs && p.want.matches(p.running) {
		switch {
		case p.placeErr != nil && known:
			// It waits for its interface, as we do.
			return nil
		case p.placeErr != nil:
			return p.placeErr
		case !known:
			return c.record.noteDaemon(role, daemonRecord{p.want, p.place.link, p.place.source, boottime()})
		case !p.place.moved(role, record):
			return nil
		}
	}
	if p.placeErr != nil {
		return p.placeErr
	}
	if p.runs {
		if err := c.stopDaemon(ctx, role); err != nil {
			return err
		}
	}
	if err := c.record.noteDaemon(role, daemonRecord{p.want, p.place.link, p.place.source, boottime()}); err != nil {
		return err
	}
	return c.startDaemon(ctx, role, p.want)
}

// started says whether a daemon that runs is recorded as ours.
func (f recordFile) started(role syncRole, running SyncDaemon) bool {
	record, known := f.Daemons[role]
	return known && record.matches(running)
}

// syncPlace is what a daemon is bound to.
type syncPlace struct {
	link   int
	source netip.Addr
}

// moved says whether a daemon is bound to what is no more. The one that receives
// needs the interface alone.
func (p syncPlace) moved(role syncRole, record daemonRecord) bool {
	return p.link != record.Link || role == syncMaster && p.source != record.Source
}

// syncPlace finds what a daemon would be bound to on an interface; an error if none
// could be started.
func (c *Client) syncPlace(ctx context.Context, name string) (syncPlace, error) {
	link, err := c.linkByName(name)
	if err != nil {
		return syncPlace{}, err
	}
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		return syncPlace{}, fmt.Errorf("connections cannot be synchronised on interface %s, which is down", name)
	}
	addrs, err := steady(ctx, "listing addresses", func() ([]netlink.Addr, error) {
		return c.route.AddrList(link, netlink.FAMILY_V4)
	})
	if err != nil {
		return syncPlace{}, err
	}
	for _, a := range addrs {
		// The kernel's own choice (inet_select_addr of net/ipv4/devinet.c).
		if a.Flags&unix.IFA_F_SECONDARY == 0 && a.Scope == unix.RT_SCOPE_UNIVERSE {
			return syncPlace{link.Attrs().Index, fromIP(a.IP).Unmap()}, nil
		}
	}
	return syncPlace{}, fmt.Errorf("connections cannot be synchronised on interface %s, which has no IPv4 address", name)
}

func (c *Client) prepareSyncSettings(ctx context.Context) error {
	s := sysctls{root: c.opts.Sysctls, record: c.record}
	return c.netns.run(ctx, func() error {
		var errs []error
		for _, name := range slices.Sorted(maps.Keys(syncSettings)) {
			errs = append(errs, s.set(name, syncSettings[name]))
		}
		return errors.Join(errs...)
	})
}

// endSync stops what was started here, puts the settings back and takes the
// guard's rules away. Daemons of others are left alone.
func (c *Client) endSync(ctx context.Context) error {
	if err := c.stopSyncDaemons(ctx); err != nil {
		return err
	}
	s := sysctls{root: c.opts.Sysctls, record: c.record}
	file, err := c.record.read()
	if err != nil {
		return err
	}
	if err := c.netns.run(ctx, func() error {
		var errs []error
		for name := range syncSettings {
			if was, recorded := file.Settings[name]; recorded {
				errs = append(errs, s.restoreOne(name, was))
			}
		}
		return errors.Join(errs...)
	}); err != nil {
		return err
	}
	return c.guardSync(ctx, &Sync{})
}

// stopSyncDaemons stops the daemons that were started here.
func (c *Client) stopSyncDaemons(ctx context.Context) error {
	file, err := c.record.read()
	if err != nil || len(file.Daemons) == 0 {
		return err
	}
	have, err := c.syncDaemons(ctx)
	if err != nil && !errors.Is(err, ErrNoIPVS) {
		return err
	}
	for role, running := range have {
		if !file.started(role, running) {
			continue
		}
		if err := c.stopDaemon(ctx, role); err != nil {
			return err
		}
	}
	return c.record.forgetDaemons()
}

// guardSync makes the guard let in what members send, now or as soon as there is a
// guard. Without one everybody is let in.
func (c *Client) guardSync(ctx context.Context, sync *Sync) error {
	c.mu.Lock()
	node := c.node
	c.sharing = sync
	c.mu.Unlock()
	if node == nil || !node.Guard {
		return nil
	}
	if err := c.prepareGuard(ctx, *node); err != nil {
		return fmt.Errorf("guarding the synchronisation of connections: %w", err)
	}
	return nil
}

// boottime is CLOCK_BOOTTIME, which every kernel that Go runs on has.
func boottime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

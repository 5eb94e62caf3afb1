package announce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// neighbourLimit is how many neighbours that asked for a VIP are remembered.
const neighbourLimit = 1024

// Announcer announces VIPs on one interface. All methods are safe for
// concurrent use and none but Run waits for the network. What is set holds
// whether or not Run is running yet.
type Announcer struct {
	cfg     Config
	network network
	claims  chan Claim
	// changed wakes Run; it holds one wake-up.
	changed chan struct{}
	ran     atomic.Bool

	// mu is held while a frame is taken from a socket and dealt with, and from
	// the last look at roles and fence until a frame has been sent. So nobody
	// has a frame in hand that is older than what they see, and what has been
	// withdrawn is not sent any more. Nothing waits under it.
	mu       sync.Mutex
	roles    roles
	active   map[netip.Addr]struct{} // as SetActive was told
	gateways []netip.Addr
	link     LinkState
	refused  bool // The link's bond mode is.
	// layout counts the changes after which other sockets or groups may be
	// needed; failures are what made sockets be closed.
	layout   uint64
	failures []error
	ports    map[family]port
	// gaps is the fence's count up to which the sockets have been emptied.
	gaps      uint64
	timetable *timetable
	askers    *recent[asker, MAC]
	watch     *watch
	stats     Stats

	// own are the node's addresses on the interface. changes counts what happened
	// to the link, plugged is closed when a port is put to use.
	own     []netip.Prefix
	changes uint64
	plugged chan struct{}
	// probes are under way; probed are the families that there have been any of;
	// probeSlots holds one value for each that runs.
	probes     map[*probing]struct{}
	probed     map[family]bool
	probeSlots chan struct{}
}

// New returns an Announcer that is silent until it has been told its VIPs,
// those of them to announce, and the link, and Run runs.
func New(cfg Config) (*Announcer, error) {
	if cfg.Interface == "" || cfg.Fence == nil {
		return nil, errors.New("an announcer needs an interface and a fence")
	}
	if cfg.Refresh < 0 || cfg.Spacing < 0 {
		return nil, fmt.Errorf("announcing on %s: negative refresh or spacing", cfg.Interface)
	}
	cfg.Refresh = cmp.Or(cfg.Refresh, DefaultRefresh)
	cfg.Spacing = cmp.Or(cfg.Spacing, DefaultSpacing)
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Announcer{
		cfg:       cfg,
		network:   kernelNetwork{},
		claims:    make(chan Claim, claimBacklog),
		changed:   make(chan struct{}, 1),
		ports:     map[family]port{},
		timetable: newTimetable(cfg.Refresh),
		askers:    newRecent[asker, MAC](neighbourLimit),
		watch:     newWatch(),

		plugged:    make(chan struct{}),
		probes:     map[*probing]struct{}{},
		probed:     map[family]bool{},
		probeSlots: make(chan struct{}, probesAtOnce),
	}, nil
}

// Run opens the sockets and serves them until ctx ends. When it returns they
// are closed, and with them the multicast groups left. It opens them in the
// network namespace of its caller's thread. It can run once; the error is nil
// unless it has run before.
func (a *Announcer) Run(ctx context.Context) error {
	if a.ran.Swap(true) {
		return fmt.Errorf("announcing on %s: has run before", a.cfg.Interface)
	}
	s := newSession(a)
	defer s.close()
	s.run(ctx)
	return nil
}

// SetVIPs says which VIPs the pool has on this interface, announced or not:
// claims to them are reported, neighbours asking for them remembered, and
// their multicast groups joined. A VIP that is gone is not announced any more.
func (a *Announcer) SetVIPs(vips []netip.Addr) {
	held := setOf(vips)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roles.held = held
	a.layout++
	a.askers.removeFunc(func(k asker) bool { return !a.roles.holds(k.vip) })
	a.watch.forget(a.roles.holds)
	a.settle()
}

// SetActive says which VIPs are to be announced. One that was not active
// before is announced at once and then on a schedule of its own; for the
// others nothing changes. Those that SetVIPs does not name wait for it. When
// SetActive returns, no frame for a VIP that is not in vips leaves any more.
func (a *Announcer) SetActive(vips []netip.Addr) {
	active := setOf(vips)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active = active
	a.settle()
}

// settle makes what is announced follow from what is held and active.
func (a *Announcer) settle() {
	before := a.roles.announced
	a.roles.announced = make(map[netip.Addr]struct{}, len(a.active))
	var begun []netip.Addr
	for vip := range a.active {
		if !a.roles.holds(vip) {
			continue
		}
		a.roles.announced[vip] = struct{}{}
		if _, ok := before[vip]; !ok {
			begun = append(begun, vip)
		}
	}
	for vip := range before {
		if !a.roles.announces(vip) {
			a.timetable.stop(vip)
		}
	}
	a.begin(begun)
	a.wake()
}

// begin starts the schedules of VIPs, in the order of their addresses.
func (a *Announcer) begin(vips []netip.Addr) {
	slices.SortFunc(vips, netip.Addr.Compare)
	now := a.cfg.Now()
	for _, vip := range vips {
		a.timetable.start(vip, now)
	}
}

// beginAll starts the schedules of all announced VIPs for which the condition
// holds.
func (a *Announcer) beginAll(condition func(netip.Addr) bool) {
	var vips []netip.Addr
	for vip := range a.roles.announced {
		if condition(vip) {
			vips = append(vips, vip)
		}
	}
	a.begin(vips)
	a.wake()
}

// SetGateways says who is told about each announcement in person, whether it
// asked or not: the gateways of the segment, by their addresses on it. A
// gateway is told of the VIPs of its own family.
func (a *Announcer) SetGateways(gateways []netip.Addr) {
	normalized := make([]netip.Addr, 0, len(gateways))
	for _, g := range gateways {
		if g, ok := normalize(g); ok {
			normalized = append(normalized, g)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gateways = normalized
}

// LinkChanged tells the state of the interface, again whenever it changes. All
// active VIPs are announced anew when carrier came back, the MAC changed or
// the interface is another. An error wraps ErrBondMode; the announcer then is
// silent until it is told of a better state.
func (a *Announcer) LinkChanged(link LinkState) error {
	err := CheckBondMode(link.BondMode)
	a.mu.Lock()
	defer a.mu.Unlock()
	before, ready := a.link, a.ready()
	a.link, a.refused = link, err != nil
	if link != before {
		a.changes++
	}
	if link.Index != before.Index {
		a.layout++
	}
	if a.ready() && (!ready || link.MAC != before.MAC || link.Index != before.Index) {
		a.beginAll(func(netip.Addr) bool { return true })
	}
	a.wake()
	if err != nil {
		return fmt.Errorf("announcing on %s: %w", a.cfg.Interface, err)
	}
	return nil
}

// ready says whether the link can carry announcements.
func (a *Announcer) ready() bool { return a.canSpeak() && a.link.Up }

// canSpeak says whether there is an interface that is fit to send from.
func (a *Announcer) canSpeak() bool {
	return a.link.Index != 0 && a.link.MAC.isStation() && !a.refused
}

// Announce starts the schedule of the active ones among vips again; without
// arguments, of all active VIPs. It is for what LinkChanged does not see: a
// bond whose active port changed, a bridge port that moved, a peer's kernel
// that still answers.
func (a *Announcer) Announce(vips ...netip.Addr) {
	named := setOf(vips)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beginAll(func(vip netip.Addr) bool {
		_, ok := named[vip]
		return ok || len(vips) == 0
	})
}

// Defend announces an active VIP once, outside its schedule, at most once in
// DefendInterval. It returns nil, ErrRateLimited, ErrSilent if the VIP is not
// active or the interface not ready, ErrStale, or the kernel's error.
func (a *Announcer) Defend(vip netip.Addr) error {
	vip, _ = normalize(vip)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.roles.announces(vip) {
		return ErrSilent
	}
	if err := a.maySpeak(vip); err != nil {
		return err
	}
	if !a.watch.defends(vip, a.cfg.Now()) {
		return ErrRateLimited
	}
	return a.sayGratuitous(vip)
}

// Claims returns the channel of claims. It holds a few hundred; those that
// nobody reads in time are dropped and counted. It is never closed.
func (a *Announcer) Claims() <-chan Claim { return a.claims }

// Stats returns the counts so far.
func (a *Announcer) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// wake makes Run look again at what there is to do.
func (a *Announcer) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// setOf returns the addresses, normalized. Those that no VIP can have are left
// out: nobody can be asked for them.
func setOf(addrs []netip.Addr) map[netip.Addr]struct{} {
	set := make(map[netip.Addr]struct{}, len(addrs))
	for _, addr := range addrs {
		if addr, ok := normalize(addr); ok {
			set[addr] = struct{}{}
		}
	}
	return set
}

// normalize returns an address as packets have it, and false for one that no
// station can have.
func normalize(addr netip.Addr) (netip.Addr, bool) {
	addr = addr.Unmap().WithZone("")
	return addr, addr.IsValid() && !addr.IsUnspecified() && !addr.IsMulticast()
}

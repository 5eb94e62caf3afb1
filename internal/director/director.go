// Package director is what runs on a director's node: it joins the plans of
// the controllers, the health of real servers, the election and the announcer
// over one kernel, and goes on without the API server.
package director

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// NodeKernel is the kernel of the director's node.
type NodeKernel interface {
	Kernel
	// Prepare brings the node into the state that VIPs need, and repairs it.
	Prepare(context.Context, netstate.Node) error
	// Restore takes away all that the operator owns on the node.
	Restore(context.Context) error
	// Facts reads what the node has and lacks.
	Facts(context.Context) (kernel.Facts, error)
	// WatchLink sends the state of an interface at once and after each change.
	WatchLink(context.Context, string) (<-chan kernel.Link, error)
	// WatchGuard sends a value when somebody deletes the guard.
	WatchGuard(context.Context) (<-chan struct{}, error)
	// SetRelay says where packets of connections go that this kernel does not know.
	SetRelay(context.Context, kernel.Relay) error
	// SetDirectors says which MAC addresses the pool's other directors have.
	SetDirectors(context.Context, []net.HardwareAddr) error
	// Probe has the kernel look whether a neighbour is there; false once it is
	// known not to be.
	Probe(ctx context.Context, link string, addr netip.Addr) (bool, error)
	synchronizer
	routing
}

// Config is what a Director is made of. All fields are required but Gossip, Metrics
// and Clock.
type Config struct {
	// Node is the node's name, Instance tells this process from the next.
	Node, Instance string
	// Kernel of the node.
	Kernel NodeKernel
	// Neighbors is its neighbour table, by interface.
	Neighbors func(link string) announce.Neighbors
	// Leases of the operator's Namespace, by a client of their own.
	Leases    election.Leases
	Namespace string
	// StateDir holds what must outlive the process, but not the kernel.
	StateDir string
	// Wanted asks the API server, not a cache, which VIPs are to be served. An
	// error is an answer too: nothing is removed on it.
	Wanted func(context.Context) (map[netstate.Key]struct{}, error)
	// Changed is called after what can be reported has changed: of one key, or,
	// with the zero Key, of the director as a whole. It must not block.
	Changed func(netstate.Key)
	// SiteChanged is called when the plans of all keys have to be made anew. It
	// must not block.
	SiteChanged func()
	// Gossip makes a director's part in the gossip of its pool; nil is for none.
	Gossip func(gossip.Config) (Gossiper, error)
	// IPVSTakenOK says that kube-proxy in ipvs mode on this node leaves the VIPs
	// alone (they are in its exclude CIDRs).
	IPVSTakenOK bool
	Metrics     *Metrics
	Log         *slog.Logger
	// Clock goes on while the machine is suspended; nil is announce.Boottime.
	Clock announce.Clock
}

const (
	// syncPatience is how long a starting director waits for the API before it
	// goes by the checkpoint.
	syncPatience = 2 * time.Second
	// verdictPatience is how long a director that is otherwise ready waits for
	// the verdicts of its real servers before it may become active.
	verdictPatience = 10 * time.Second
	// LeaseDuration is how long a Lease is valid after a renewal where the pool
	// does not say.
	LeaseDuration = 3 * time.Second
)

// Director serves the VIPs of one pool on one node.
type Director struct {
	cfg      Config
	worker   *Worker
	health   *health.Scheduler
	removals *removals
	store    *keeper
	reaches  *reaches
	// rejoin says that the pool to serve, or its settings, changed.
	rejoin chan struct{}
	// loaded is closed when it is known what an earlier process left.
	loaded chan struct{}

	// mu is taken after session.mu and before those of worker and health.
	mu      sync.Mutex
	pool    *Pool
	session *session
	// synced is the pool whose keys have all been planned, from the API if
	// confirmed and else from the checkpoint.
	synced    string
	confirmed bool
	restored  *checkpoint.Checkpoint
	peers     []Peer
	rank      Rank
	// gossipKeys are nil until they are known.
	gossipKeys [][]byte
	saving     sync.Mutex // of them, taken before mu
	// peersKnown says that peers, were they none, have been looked for.
	peersKnown bool
	// decided says that the director has been told its pool, or that it has none.
	decided bool
	// marked says that there may be something of the operator's on the node.
	marked bool
}

// New returns a director that serves nothing until it has joined a pool.
func New(cfg Config) *Director {
	if cfg.Clock == nil {
		cfg.Clock = announce.Boottime
	}
	d := &Director{cfg: cfg, rejoin: make(chan struct{}, 1), loaded: make(chan struct{})}
	d.health = health.NewScheduler(health.Options{
		Checkers: health.Standard(),
		OnChange: func(owner string) {
			if addr, err := netip.ParseAddr(owner); err == nil {
				d.worker.Enqueue(netstate.Key{Addr: addr})
			}
		},
	})
	d.worker = NewWorker(cfg.Kernel, func(p health.Probe) health.Verdict { return d.health.Report(p).Verdict }, d.keyChanged, cfg.Metrics, cfg.Log)
	d.worker.Agree(d.hears)
	d.removals = newRemovals(cfg.Wanted, d.worker.Served, d.leaveKey, cfg.Log)
	d.reaches = newReaches(cfg.Kernel, cfg.SiteChanged, cfg.Log)
	d.store = &keeper{dir: cfg.StateDir, snapshot: d.checkpoint, log: cfg.Log}
	return d
}

// Run serves until ctx ends, and then leaves the kernel as it is, for the next
// process to adopt. It does not return before, whatever fails: what fails is
// tried again and reported.
func (d *Director) Run(ctx context.Context) {
	defer d.health.Close()
	d.adopt(ctx)
	d.mu.Lock()
	d.restored = d.store.load()
	d.marked = d.marked || d.restored != nil
	if d.restored != nil {
		// Without the API server gossip is what tells whose the VIPs are meanwhile.
		d.restoreKeys(d.restored.Pool)
	}
	if d.restored != nil && d.pool == nil {
		// The Lease and the interface need not wait for the API to be ours again.
		pool := poolIn(*d.restored)
		d.pool = &pool
	}
	d.mu.Unlock()
	close(d.loaded)
	var running sync.WaitGroup
	running.Go(func() { d.worker.Run(ctx) })
	running.Go(func() { d.removals.run(ctx) })
	running.Go(func() { d.reaches.run(ctx) })
	running.Go(func() { d.goByCheckpoint(ctx) })
	running.Go(func() { d.serve(ctx) })
	running.Wait()
}

// goByCheckpoint serves what the checkpoint says if the API stays silent.
func (d *Director) goByCheckpoint(ctx context.Context) {
	if wait(ctx, syncPatience) && d.restore() {
		d.refresh()
		d.relink()
	}
}

// restore takes the plans and peers of the checkpoint, unless the API has
// answered, or the director left the pool meanwhile.
func (d *Director) restore() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.restored
	if c == nil || d.confirmed || d.pool == nil || d.pool.Name != c.Pool {
		return false
	}
	d.cfg.Log.Info("The API has not told yet what to serve; going by the checkpoint", "pool", c.Pool, "vips", len(c.Keys))
	if !d.peersKnown {
		d.peersKnown = true
		d.peers = peersIn(*c)
	}
	for _, key := range c.Keys {
		desired := recorded(key)
		if d.worker.Restore(desired) {
			d.health.SetFor(key.Key.String(), probes(desired))
		}
	}
	d.synced = c.Pool
	return true
}

// checkpoint returns what must outlive the process.
func (d *Director) checkpoint() checkpoint.Checkpoint {
	d.mu.Lock()
	pool, s, peers := d.pool, d.session, d.peers
	d.mu.Unlock()
	c := checkpoint.Checkpoint{NodeName: d.cfg.Node}
	if pool == nil {
		return c
	}
	c.Pool, c.Refresh = pool.Name, pool.Refresh
	c.Node = netstate.Node{Interface: pool.Interface, Guard: pool.Guard, Timeouts: pool.Timeouts}
	c.Within, c.ConnectionSync = pool.Within, checkpoint.ConnectionSync(pool.ConnectionSync)
	c.Election = checkpoint.Election{
		LeaseDuration: pool.Election.LeaseDuration,
		NeverPreempt:  pool.Election.Preemption.Never, PreemptionDelay: pool.Election.Preemption.Delay,
		Groups: pool.groups(),
	}
	c.Gossip = checkpoint.Gossip(pool.Gossip)
	for _, desired := range d.worker.Plans() {
		c.Keys = append(c.Keys, record(desired))
	}
	for _, peer := range peers {
		c.Peers = append(c.Peers, checkpoint.Peer{
			Node: peer.Node, Addr: peer.Address, IPv6Addr: peer.IPv6Address, SyncAddr: peer.SyncAddress, MAC: checkpoint.MAC(peer.MAC), Live: peer.Live,
		})
	}
	if s != nil {
		c.Groups = s.parts()
	}
	return c
}

// adopt takes note of what an earlier process left in the kernel.
func (d *Director) adopt(ctx context.Context) {
	keys, err := d.cfg.Kernel.Keys(ctx)
	if errors.Is(err, kernel.ErrNoIPVS) {
		err = nil
	}
	if err != nil {
		d.cfg.Log.Error("Looking for VIPs that an earlier process left", "error", err)
	}
	d.mu.Lock()
	d.marked = d.marked || len(keys) > 0 || err != nil
	d.mu.Unlock()
	d.worker.Adopt(keys)
}

// serve runs a session for each pool that is joined, one after the other.
func (d *Director) serve(ctx context.Context) {
	for ctx.Err() == nil {
		s := d.nextSession()
		if s == nil {
			select {
			case <-ctx.Done():
			case <-d.rejoin:
			}
			continue
		}
		d.store.open(s.name)
		d.saveKeys(s.name)
		running, end := context.WithCancel(ctx)
		go func() {
			s.run(running)
			d.store.close()
			close(s.ended)
		}()
		d.awaitOtherPool(ctx, s)
		end()
		<-s.ended
	}
}

// nextSession makes the session of the pool that is joined, nil if none is.
func (d *Director) nextSession() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = nil
	if d.pool != nil {
		d.session = newSession(d, *d.pool, d.restored)
	}
	return d.session
}

// awaitOtherPool returns when the pool is no longer the session's. Changed
// settings of the same pool are handed to the session.
func (d *Director) awaitOtherPool(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.rejoin:
		}
		d.mu.Lock()
		pool := d.pool
		d.mu.Unlock()
		if pool == nil || pool.Name != s.name || pool.groups() != len(s.groups) {
			return
		}
		s.configure(*pool)
	}
}

// Program takes a plan from the API. It is for nothing while no pool is joined.
func (d *Director) Program(desired plan.Desired) {
	d.removals.withdraw(desired.Key)
	d.mu.Lock()
	before, _ := d.worker.Plan(desired.Key)
	if d.pool != nil {
		d.health.SetFor(desired.Key.String(), probes(desired))
		d.worker.Program(desired)
	}
	d.mu.Unlock()
	if !slices.Equal(before.Links, desired.Links) {
		d.relink()
	}
	d.store.changed()
}

// Remove says that no VirtualServer asks for the key any more. The director
// makes sure of it before it takes the VIP out of service.
func (d *Director) Remove(key netstate.Key) {
	d.removals.request(key)
}

// leaveKey begins to take a VIP out of service.
func (d *Director) leaveKey(key netstate.Key) {
	d.worker.Leave(key)
	d.health.SetFor(key.String(), nil)
	d.refresh()
	d.store.changed()
}

// Served lists the keys that are not on their way out.
func (d *Director) Served() []netstate.Key { return d.worker.Served() }

// Synced says that every key of the pool has been handed over.
func (d *Director) Synced(pool string) {
	d.mu.Lock()
	if d.pool == nil || d.pool.Name != pool {
		d.mu.Unlock()
		return
	}
	d.synced, d.confirmed = pool, true
	d.mu.Unlock()
	d.removeUnknown()
	d.refresh()
	d.relink()
}

// SetPeers says which other directors the pool has, and what this one's node
// counts for.
func (d *Director) SetPeers(own Rank, peers []Peer) {
	d.mu.Lock()
	same := d.peersKnown && d.rank == own && slices.Equal(d.peers, peers)
	mended := slices.ContainsFunc(d.peers, func(p Peer) bool {
		return p.Impaired && slices.ContainsFunc(peers, func(q Peer) bool { return q.Node == p.Node && !q.Impaired })
	})
	d.rank, d.peers, d.peersKnown = own, peers, true
	d.mu.Unlock()
	if same {
		return
	}
	if mended {
		// What was wrong there may be right here too.
		d.worker.Retry()
	}
	d.refresh()
	d.store.changed()
}

// keyChanged is told by the worker that a key's outcome changed.
func (d *Director) keyChanged(key netstate.Key) {
	d.refresh()
	d.cfg.Changed(key)
}

// refresh has the session look again at what it announces.
func (d *Director) refresh() {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	if s != nil {
		s.refresh()
	}
}

// probes lists what a plan needs probed.
func probes(desired plan.Desired) []health.Probe {
	var all []health.Probe
	for _, checks := range desired.Checks {
		for _, check := range checks {
			all = append(all, check.Probe)
		}
	}
	return all
}

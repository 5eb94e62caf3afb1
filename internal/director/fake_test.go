package director

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

var (
	leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	errAway       = errors.New("connection refused")
)

// leases are one Lease in memory, for any number of directors.
type leases struct {
	mu       sync.Mutex
	away     bool
	slow     time.Duration
	version  int
	lease    *coordinationv1.Lease
	watchers []*watch.RaceFreeFakeWatcher
}

func (l *leases) setAway(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
	if away {
		for _, w := range l.watchers {
			w.Stop()
		}
		l.watchers = nil
	}
}

// setSlow makes every answer take so long.
func (l *leases) setSlow(slow time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow = slow
}

// answer takes as long as answers do, or until nobody waits for it any more.
func (l *leases) answer(ctx context.Context) error {
	l.mu.Lock()
	slow := l.slow
	l.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(slow):
		return nil
	}
}

func (l *leases) holder() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil || l.lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.lease.Spec.HolderIdentity
}

func (l *leases) Get(ctx context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := l.answer(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away:
		return nil, errAway
	case l.lease == nil:
		return nil, apierrors.NewNotFound(leaseResource, name)
	}
	return l.lease.DeepCopy(), nil
}

func (l *leases) put(lease *coordinationv1.Lease, event watch.EventType) *coordinationv1.Lease {
	l.version++
	l.lease = lease.DeepCopy()
	l.lease.ResourceVersion = strconv.Itoa(l.version)
	for _, w := range l.watchers {
		w.Action(event, l.lease.DeepCopy())
	}
	return l.lease.DeepCopy()
}

func (l *leases) Create(_ context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away:
		return nil, errAway
	case l.lease != nil:
		return nil, apierrors.NewAlreadyExists(leaseResource, lease.Name)
	}
	return l.put(lease, watch.Added), nil
}

func (l *leases) Update(ctx context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := l.answer(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.away:
		return nil, errAway
	case l.lease == nil || l.lease.ResourceVersion != lease.ResourceVersion:
		return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("changed"))
	}
	return l.put(lease, watch.Modified), nil
}

func (l *leases) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return nil, errAway
	}
	w := watch.NewRaceFreeFake()
	l.watchers = append(l.watchers, w)
	return w, nil
}

// The names of kerneltest's scripts.
type (
	kernelCall  = kerneltest.Call
	kernelFault = kerneltest.Fault
)

const (
	kernelWorks = kerneltest.None
	kernelFails = kerneltest.Fail
)

// node is a director's node: a kernel in memory, and a link.
type node struct {
	*kerneltest.Faulty
	fake *kerneltest.Fake
	mu   sync.Mutex
	link kernel.Link
	// news has every state of the link since.
	news  chan kernel.Link
	guard chan struct{}
	ipvs  bool
	relay kernel.Relay
	// gap says that for a moment nobody took up connections in their middle.
	gap bool
	// directors are the MAC addresses that it was told, unless it refuses.
	directors        []string
	refusesDirectors bool
	// sync is what the kernel shares, synced what it says of it, syncs how often it
	// was asked.
	sync    kernel.Sync
	synced  kernel.SyncState
	syncErr error
	syncs   int
	// gone are neighbours that do not answer.
	gone map[netip.Addr]bool
	// reaches are what is not simply adjacent; routes has a value for each change.
	reaches map[netip.Addr]kernel.Reach
	routes  chan struct{}
}

func newNode(number byte) *node {
	fake := kerneltest.NewFake()
	return &node{
		Faulty: kerneltest.NewFaulty(fake, errBroken), fake: fake, ipvs: true,
		news: make(chan kernel.Link, 16), guard: make(chan struct{}, 1), routes: make(chan struct{}, 1),
		link: kernel.Link{
			Name: "eth0", Index: 424242, Up: true, Running: true, MAC: net.HardwareAddr{2, 0, 0, 0, 0, number},
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 11, number}), 24)},
		},
	}
}

func (n *node) Facts(context.Context) (kernel.Facts, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	facts := kernel.Facts{Release: "7.1", IPVS: n.ipvs, Addresses: n.link.Addresses, Gateways: []netip.Addr{netip.MustParseAddr("192.168.11.1")}}
	for address := range n.fake.State().Addresses {
		if address.Link == "eth0" {
			facts.Addresses = append(facts.Addresses[:len(facts.Addresses):len(facts.Addresses)], netip.PrefixFrom(address.Addr, 32))
		}
	}
	return facts, nil
}

func (n *node) WatchLink(ctx context.Context, _ string) (<-chan kernel.Link, error) {
	out := make(chan kernel.Link)
	n.mu.Lock()
	link := n.link
	n.mu.Unlock()
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case out <- link:
			}
			select {
			case <-ctx.Done():
				return
			case link = <-n.news:
			}
		}
	}()
	return out, nil
}

func (n *node) WatchGuard(context.Context) (<-chan struct{}, error) { return n.guard, nil }

func (n *node) WatchRoutes(context.Context) (<-chan struct{}, error) { return n.routes, nil }

func (n *node) Reach(_ context.Context, addr netip.Addr) (kernel.Reach, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if reach, set := n.reaches[addr]; set {
		return reach, nil
	}
	return kernel.Reach{Link: "eth0"}, nil
}

func (n *node) SetRelay(_ context.Context, relay kernel.Relay) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if prepared, _ := n.fake.Node(); len(n.relay.To) > 0 && len(relay.To) == 0 {
		n.gap = prepared.Sloppy == nil || !prepared.Sloppy.TCP
	}
	n.relay = relay
	return nil
}

func (n *node) SyncConnections(_ context.Context, sync kernel.Sync) (kernel.SyncState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sync = sync
	n.syncs++
	if n.syncErr != nil || sync.Interface == "" {
		return kernel.SyncState{}, n.syncErr
	}
	return n.synced, nil
}

// shares returns what the node shares.
func (n *node) shares() kernel.Sync {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sync
}

func (n *node) Probe(_ context.Context, _ string, addr netip.Addr) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.gone[addr], nil
}

// relaysTo returns, in order, where the node hands on what it does not know.
func (n *node) relaysTo() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Compact(slices.SortedFunc(maps.Values(n.relay.To), netip.Addr.Compare))
}

// relayOf returns where the node hands on what it does not know of a VIP.
func (n *node) relayOf(vip netip.Addr) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.relay.To[vip]
}

func (n *node) setGone(addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = map[netip.Addr]bool{addr: true}
}

func (n *node) setIPVS(there bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ipvs = there
	n.fake.SetIPVS(map[bool]kerneltest.Presence{false: kerneltest.Missing, true: kerneltest.There}[there])
}

// process is a director that runs.
type process struct {
	*Director
	node *node
	end  context.CancelFunc
	gone chan struct{}

	mu     sync.Mutex
	wanted map[netstate.Key]struct{}
	sites  int
	// changed counts what was told of the director as a whole.
	changed int
	// slept is how long the machine was suspended.
	slept time.Duration
}

// start runs a director in a bubble; dir outlives it.
func start(t *testing.T, name string, n *node, l election.Leases, dir string) *process {
	t.Helper()
	return startWith(t, name, n, l, dir, nil)
}

func startWith(t *testing.T, name string, n *node, l election.Leases, dir string, metrics *Metrics) *process {
	t.Helper()
	return startAs(t, name, n, l, dir, func(c *Config) { c.Metrics = metrics })
}

// startAs starts a director whose configuration is changed before.
func startAs(t *testing.T, name string, n *node, l election.Leases, dir string, change func(*Config)) *process {
	t.Helper()
	p := &process{node: n, gone: make(chan struct{}), wanted: map[netstate.Key]struct{}{}}
	begun := time.Now()
	cfg := Config{
		Node: name, Instance: name + time.Now().String(), Namespace: "lvs", Kernel: n, Leases: l, StateDir: dir,
		Neighbors: func(string) announce.Neighbors { return nil },
		Wanted: func(context.Context) (map[netstate.Key]struct{}, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.wanted, nil
		},
		Changed: func(key netstate.Key) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if key == (netstate.Key{}) {
				p.changed++
			}
		},
		SiteChanged: func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sites++
		},
		Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Duration {
			p.mu.Lock()
			defer p.mu.Unlock()
			return time.Since(begun) + p.slept
		},
	}
	change(&cfg)
	p.Director = New(cfg)
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	p.end = end
	go func() { p.Run(ctx); close(p.gone) }()
	t.Cleanup(p.stop)
	return p
}

// sleep suspends the machine.
func (p *process) sleep(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slept += d
}

func (p *process) changes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *process) stop() {
	p.end()
	<-p.gone
}

func pool() Pool { return Pool{Name: "default", Interface: "eth0", Guard: true, Refresh: time.Minute} }

// plan hands VIPs over as the planner does.
func (p *process) plan(keys ...netstate.Key) {
	for _, key := range keys {
		p.mu.Lock()
		p.wanted[key] = struct{}{}
		p.mu.Unlock()
		p.Program(desired(key, rs1, rs2))
	}
	p.Synced("default")
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

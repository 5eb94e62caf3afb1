package director

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// manyLeases are the Leases of all groups of a pool.
type manyLeases struct {
	mu       sync.Mutex
	by       map[string]*leases
	requests int
}

func (m *manyLeases) of(name string) *leases {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by == nil {
		m.by = map[string]*leases{}
	}
	if m.by[name] == nil {
		m.by[name] = &leases{}
	}
	return m.by[name]
}

func (m *manyLeases) Get(ctx context.Context, name string, options metav1.GetOptions) (*coordinationv1.Lease, error) {
	return m.asked(name).Get(ctx, name, options)
}

func (m *manyLeases) Create(ctx context.Context, lease *coordinationv1.Lease, options metav1.CreateOptions) (*coordinationv1.Lease, error) {
	return m.asked(lease.Name).Create(ctx, lease, options)
}

func (m *manyLeases) Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return m.asked(lease.Name).Update(ctx, lease, options)
}

func (m *manyLeases) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return m.asked(strings.TrimPrefix(options.FieldSelector, "metadata.name=")).Watch(ctx, options)
}

// asked counts a request for a Lease.
func (m *manyLeases) asked(name string) *leases {
	m.mu.Lock()
	m.requests++
	m.mu.Unlock()
	return m.of(name)
}

func (m *manyLeases) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.requests
}

func (m *manyLeases) all() []*leases {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.by))
}

func (m *manyLeases) setAway(away bool) {
	for _, l := range m.all() {
		l.setAway(away)
	}
}

func (m *manyLeases) setSlow(slow time.Duration) {
	for _, l := range m.all() {
		l.setSlow(slow)
	}
}

// holders returns who holds the groups of the pool, in order.
func (m *manyLeases) holders(groups int) []string {
	var holders []string
	for number := range groups {
		holders = append(holders, m.of(election.LeaseName("default", number)).holder())
	}
	return holders
}

// give makes a node the holder of a group, as if by hand.
func (m *manyLeases) give(group int, node string) {
	l := m.of(election.LeaseName("default", group))
	l.mu.Lock()
	defer l.mu.Unlock()
	given := l.lease.DeepCopy()
	given.Spec.HolderIdentity = &node
	l.put(given, watch.Modified)
}

// cut is the pool in so many groups.
func cut(groups int) Pool {
	p := pool()
	p.Groups = groups
	return p
}

// inGroup returns a VIP of a group of so many.
func inGroup(group, groups int) netstate.Key {
	for last := byte(200); ; last++ {
		vip := netip.AddrFrom4([4]byte{192, 168, 11, last})
		if election.GroupOf(vip, groups) == group {
			return netstate.Key{Addr: vip}
		}
	}
}

// oneOfEach returns a VIP of each group, in order.
func oneOfEach(groups int) []netstate.Key {
	var vips []netstate.Key
	for number := range groups {
		vips = append(vips, inGroup(number, groups))
	}
	return vips
}

// team is the directors of a pool in groups that know each other.
type team struct {
	t      *testing.T
	pool   Pool
	leases *manyLeases
	vips   []netstate.Key
	nodes  map[string]*node
	dirs   map[string]string
	up     map[string]*process
}

func newTeam(t *testing.T, p Pool) *team {
	return &team{
		t: t, pool: p, leases: &manyLeases{}, vips: oneOfEach(p.groups()),
		nodes: map[string]*node{}, dirs: map[string]string{}, up: map[string]*process{},
	}
}

// start starts directors, again or for the first time, and has all know of each other.
func (m *team) start(names ...string) {
	m.t.Helper()
	for _, name := range names {
		if m.nodes[name] == nil {
			m.nodes[name], m.dirs[name] = newNode(10+name[len(name)-1]-'0'), m.t.TempDir()
		}
		m.up[name] = start(m.t, name, m.nodes[name], m.leases, m.dirs[name])
		m.up[name].Join(m.pool)
	}
	pass(time.Second)
	for _, name := range names {
		m.up[name].plan(m.vips...)
	}
	m.acquaint()
}

// stop ends a director.
func (m *team) stop(name string) {
	m.up[name].stop()
	delete(m.up, name)
	m.acquaint()
}

func (m *team) acquaint() {
	for name, p := range m.up {
		peers := []Peer{}
		for _, other := range slices.Sorted(maps.Keys(m.up)) {
			if other != name {
				link := m.nodes[other].link
				peers = append(peers, Peer{
					Node: other, Address: link.Addresses[0].Addr(), MAC: link.MAC.String(), Live: true, Candidate: true,
				})
			}
		}
		p.SetPeers(Rank{}, peers)
	}
}

// speaksFor says whether the announcer was told to announce the VIP.
func (p *process) speaksFor(vip netip.Addr) bool {
	s := p.present()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.announced, vip)
}

// announcers lists, for each group, who announces its VIP.
func (m *team) announcers() []string {
	var all []string
	for number, vip := range m.vips {
		var who []string
		for _, name := range slices.Sorted(maps.Keys(m.up)) {
			if p := m.up[name]; p.Active(number) && p.Announces(vip.Addr) && p.speaksFor(vip.Addr) {
				who = append(who, name)
			}
		}
		all = append(all, strings.Join(who, "+"))
	}
	return all
}

// shares returns how many groups each director announces, in order of their names.
func (m *team) shares() string {
	var shares []string
	all := m.announcers()
	for _, name := range slices.Sorted(maps.Keys(m.up)) {
		count := 0
		for _, who := range all {
			if who == name {
				count++
			}
		}
		shares = append(shares, fmt.Sprintf("%s:%d", name, count))
	}
	return strings.Join(shares, " ")
}

// served fails the test if for a while a group is announced by nobody, and returns
// the groups that were announced by others than before at any time.
func (m *team) served(over time.Duration) (moved map[int]bool) {
	m.t.Helper()
	before, moved := m.announcers(), map[int]bool{}
	for began := time.Now(); time.Since(began) < over; {
		pass(10 * time.Millisecond)
		for number, who := range m.announcers() {
			if who == "" {
				m.t.Fatalf("after %s nobody announces group %d, before %s did", time.Since(began), number, before[number])
			}
			if who != before[number] {
				moved[number] = true
			}
		}
	}
	return moved
}

package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Fake is a kernel in memory. It keeps the same contract as the real one. Its
// methods may be called concurrently.
type Fake struct {
	mu          sync.Mutex
	links       map[string]bool
	schedulers  map[string]bool
	ipvs        bool
	node        *netstate.Node // as prepared
	state       netstate.State
	connections map[netstate.DestinationKey]netstate.Connections
	order       map[netstate.ServiceKey][]netstate.DestinationKey
	applied     []netstate.Op
}

// NewFake returns a kernel that has IPVS with all schedulers but twos, and the
// interface eth0; interfaces adds others.
func NewFake(interfaces ...string) *Fake {
	f := &Fake{
		links:       map[string]bool{ContractNode.Interface: true},
		schedulers:  map[string]bool{},
		ipvs:        true,
		state:       netstate.New(),
		connections: map[netstate.DestinationKey]netstate.Connections{},
		order:       map[netstate.ServiceKey][]netstate.DestinationKey{},
	}
	for _, name := range interfaces {
		f.links[name] = true
	}
	for _, name := range []string{
		"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "sed", "nq", "fo", "ovf",
	} {
		f.schedulers[name] = true
	}
	return f
}

// Presence says whether something is there.
type Presence uint8

// What a Fake has or lacks.
const (
	Missing Presence = iota
	There
)

// SetIPVS loads or unloads IPVS. Unloading it takes all services away.
func (f *Fake) SetIPVS(p Presence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ipvs = p == There
	if !f.ipvs {
		clear(f.state.Services)
		clear(f.state.Destinations)
		clear(f.connections)
	}
}

// SetScheduler adds or takes away a scheduler.
func (f *Fake) SetScheduler(name string, p Presence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.schedulers[name] = p == There
}

// SetConnections makes a destination have connections, until it is deleted.
func (f *Fake) SetConnections(k netstate.DestinationKey, c netstate.Connections) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connections[k] = c
}

// State returns a copy of all that the kernel holds.
func (f *Fake) State() netstate.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Clone()
}

// Meddle changes the state behind everybody's back, as somebody with ipvsadm
// would.
func (f *Fake) Meddle(change func(netstate.State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.state)
}

// FlushGuard takes the guard away, as `nft flush ruleset` does. Until it is
// prepared again, or the next entry is applied, there is none.
func (f *Fake) FlushGuard() {
	f.Meddle(func(s netstate.State) { clear(s.Guard) })
}

// Applied returns the operations that succeeded, in order.
func (f *Fake) Applied() []netstate.Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.applied)
}

// Prepare is kernel.Client's.
func (f *Fake) Prepare(ctx context.Context, node netstate.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.links[node.Interface] {
		return fmt.Errorf("%w: %s", kernel.ErrNoLink, node.Interface)
	}
	if !f.ipvs {
		return kernel.ErrNoIPVS
	}
	f.node = &node
	f.links[netstate.DummyLink] = true
	if !node.Guard {
		clear(f.state.Guard)
	}
	return nil
}

// Node returns what was last prepared; false if nothing was.
func (f *Fake) Node() (netstate.Node, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == nil {
		return netstate.Node{}, false
	}
	return *f.node, true
}

// Restore is kernel.Client's.
func (f *Fake) Restore(ctx context.Context) error {
	keys, err := f.Keys(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		for _, op := range netstate.Diff(f.state.Of(key), netstate.New()) {
			f.state.Perform(op)
		}
	}
	f.node = nil
	delete(f.links, netstate.DummyLink)
	return nil
}

// Keys is kernel.Client's.
func (f *Fake) Keys(ctx context.Context) ([]netstate.Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	owned := map[netstate.Key]bool{}
	for k := range f.state.Addresses {
		if k.Link == netstate.DummyLink {
			owned[netstate.Key{Addr: k.Addr}] = true
		}
	}
	for k := range f.state.Guard {
		owned[netstate.Key{Addr: k.VIP}] = true
	}
	return slices.SortedFunc(maps.Keys(owned), netstate.Key.Compare), nil
}

// Observe is kernel.Client's.
func (f *Fake) Observe(ctx context.Context, key netstate.Key) (netstate.Observation, error) {
	if err := ctx.Err(); err != nil {
		return netstate.Observation{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := netstate.Observation{
		State:       f.state.Of(key),
		Connections: map[netstate.DestinationKey]netstate.Connections{},
		Order:       map[netstate.ServiceKey][]netstate.DestinationKey{},
	}
	if !f.ipvs && len(seen.Services) > 0 {
		return netstate.Observation{}, kernel.ErrNoIPVS
	}
	for k := range seen.Destinations {
		seen.Connections[k] = f.connections[k]
	}
	for k := range seen.Services {
		seen.Order[k] = f.orderOf(k)
	}
	return seen, nil
}

// Apply is kernel.Client's.
func (f *Fake) Apply(ctx context.Context, op netstate.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.apply(op); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	f.applied = append(f.applied, op)
	return nil
}

func (f *Fake) apply(op netstate.Op) error {
	var err error
	switch c := op.(type) {
	case netstate.GuardChange:
		if c.Verb != netstate.Del && (f.node == nil || !f.node.Guard) {
			err = fmt.Errorf("%w: the guard was not prepared", kernel.ErrUnsupported)
		}
	case netstate.AddressChange:
		if c.Verb != netstate.Del && !f.links[c.Entry.Link] {
			err = fmt.Errorf("%w: %s", kernel.ErrNoLink, c.Entry.Link)
		}
	case netstate.ServiceChange:
		err = f.applyService(c)
	case netstate.DestinationChange:
		err = f.applyDestination(c)
	default:
		err = fmt.Errorf("%w: operation %T", kernel.ErrUnsupported, op)
	}
	if err == nil {
		f.reorder(op)
		f.state.Perform(op)
	}
	return err
}

func (f *Fake) applyService(c netstate.ServiceChange) error {
	switch {
	case !f.ipvs:
		return kernel.ErrNoIPVS
	case c.Verb != netstate.Del && !f.schedulers[c.Value.Scheduler]:
		return kernel.SchedulerUnavailable{Name: c.Value.Scheduler}
	case c.Verb == netstate.Del:
		for k := range f.state.Destinations {
			if k.Service == c.Entry {
				delete(f.state.Destinations, k)
				delete(f.connections, k)
			}
		}
	}
	return nil
}

// errNoService is what the kernel says with ESRCH, and errThresholds with ERANGE.
var (
	errNoService  = errors.New("no such service")
	errThresholds = errors.New("the lower threshold is above the upper one")
)

func (f *Fake) applyDestination(c netstate.DestinationChange) error {
	const maxWeight = 65535
	vip := c.Entry.Service.Key.Addr
	switch {
	case !f.ipvs:
		return kernel.ErrNoIPVS
	case vip.IsValid() && vip.Is4() != c.Entry.Addr.Is4():
		return fmt.Errorf("%w: a destination of another address family than its service", kernel.ErrUnsupported)
	case c.Verb == netstate.Del:
		delete(f.connections, c.Entry)
		return nil
	case max(c.Value.Weight, c.Value.LastWeight) > maxWeight:
		return fmt.Errorf("%w: weight %d is above %d", kernel.ErrUnsupported, c.Value.Weight, maxWeight)
	case c.Value.Lower > c.Value.Upper:
		return errThresholds
	}
	if _, ok := f.state.Services[c.Entry.Service]; !ok {
		return errNoService
	}
	return nil
}

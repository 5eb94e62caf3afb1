package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// For returns what the snapshot's key is to be like, and a Rejection for each
// VirtualServer of the snapshot that is refused, ordered by namespace and name;
// every other one is accepted. With nothing to serve the state is empty. That
// is so too while there is no DirectorPool: whoever asks decides how long what
// was served before stays.
//
// One bad VirtualServer never keeps another from being served. One with any
// refused claim is refused whole, and then claims nothing itself. A VIP belongs
// to the namespace of the oldest accepted VirtualServer that names it, and of
// two that claim one VIP, port and protocol the older serves, so that nobody
// takes over running traffic by creating an object. Those that are being
// deleted are as good as gone: they are neither served nor rejected.
func For(s Snapshot) (Desired, []Rejection) {
	desired := newDesired(s.Key)
	var rejections []Rejection
	court := newCourt(&s)
	sources := newSources(&s, court)
	for _, vs := range oldestFirst(s.VirtualServers) {
		accepted, refused := court.judge(vs)
		if refused != nil {
			rejections = append(rejections, Rejection{
				VirtualServer: types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name},
				Reason:        refused.reason,
				Message:       refused.message,
			})
			continue
		}
		if slices.Contains(accepted.addresses, s.Key.Addr) {
			desired.add(accepted, sources)
		}
	}
	desired.Links, desired.Local = sources.links(), sources.local()
	slices.SortFunc(rejections, func(a, b Rejection) int { return compareNames(a.VirtualServer, b.VirtualServer) })
	return desired, rejections
}

func newDesired(key netstate.Key) Desired {
	return Desired{
		Key:      key,
		State:    netstate.New(),
		Checks:   map[netstate.DestinationKey][]Check{},
		Owners:   map[netstate.ServiceKey]types.NamespacedName{},
		Policies: map[netstate.ServiceKey]Policy{},
		Unready:  map[netstate.DestinationKey]string{},
		Servers:  map[netstate.DestinationKey]Server{},
	}
}

// add puts in what the claim serves on the key's address.
func (d *Desired) add(c *claim, from *sources) {
	s := from.snapshot
	vip := s.Key.Addr
	address := netstate.Address{}
	if vip.Is4() && s.Source.Is4() {
		address.Source = s.Source
	}
	d.State.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: vip}] = address
	guarded, marked := s.guarded(), from.marked(c)
	if guarded {
		d.State.Guard[netstate.GuardKey{VIP: vip}] = netstate.Present{}
	}
	service := c.service
	service.PersistencePrefix = c.prefix6
	if vip.Is4() {
		service.PersistencePrefix = c.prefix4
	}
	candidates := from.of(c)
	sorry, problem := from.sorry(c)
	for _, p := range c.ports {
		key := netstate.ServiceKey{Key: s.Key, Protocol: p.protocol, Port: p.number, Marked: marked}
		d.State.Services[key] = service
		d.Owners[key] = c.name
		if guarded {
			d.State.Guard[netstate.GuardKey{VIP: vip, Protocol: p.protocol, Port: p.number}] = netstate.Present{}
		}
		if marked {
			d.State.Guard[netstate.GuardKey{VIP: vip, Protocol: p.protocol, Port: p.number, Marked: true}] = netstate.Present{}
		}
		policy := c.policy.resolve(d.addDestinations(key, p, c, candidates))
		policy.Sorry, policy.SorryProblem = sorry, problem
		d.Policies[key] = policy
		d.scale(key, policy.Scale, candidates)
	}
}

// addDestinations puts in the real servers of a service, and returns the
// weights of those that are destinations.
func (d *Desired) addDestinations(service netstate.ServiceKey, p port, c *claim, candidates []*candidate) []uint32 {
	var weights []uint32
	for _, candidate := range candidates {
		key := destinationOf(service, candidate)
		server := candidate.server()
		if candidate.out() {
			d.Servers[key] = server
			continue
		}
		if mismatch := candidate.listens(p); mismatch != nil {
			server.Reason, server.Message = mismatch.reason, mismatch.message
			d.Servers[key] = server
			continue
		}
		d.Servers[key] = server
		destination := netstate.Destination{Method: netstate.DR, Weight: candidate.weight}
		if candidate.state == v1alpha1.RealServerDrained {
			destination.Weight = 0
			if c.service.Ordered() {
				destination.LastWeight = candidate.weight
			}
		}
		d.State.Destinations[key] = destination
		weights = append(weights, destination.Weight)
		if candidate.unready != "" {
			d.Unready[key] = candidate.unready
		}
		if len(c.checks) > 0 {
			d.Checks[key] = checksOf(c.checks, key)
		}
	}
	return weights
}

func destinationOf(service netstate.ServiceKey, c *candidate) netstate.DestinationKey {
	return netstate.DestinationKey{Service: service, Addr: c.addr, Port: service.Port}
}

// scale multiplies the weights of a service's destinations.
func (d *Desired) scale(service netstate.ServiceKey, by uint32, candidates []*candidate) {
	if by == 1 {
		return
	}
	for _, candidate := range candidates {
		key := destinationOf(service, candidate)
		if destination, ok := d.State.Destinations[key]; ok {
			destination.Weight *= by
			d.State.Destinations[key] = destination
		}
	}
}

func checksOf(checks []check, key netstate.DestinationKey) []Check {
	of := make([]Check, 0, len(checks))
	for _, check := range checks {
		of = append(of, Check{
			Name: check.name,
			Probe: health.Probe{
				Target:   health.Target{Type: check.kind, Addr: key.Addr, Port: cmp.Or(check.port, key.Port)},
				Schedule: check.schedule,
			},
			InitiallyUp: check.initiallyUp,
		})
	}
	return of
}

// Keys returns, in order, the keys that a VirtualServer has a part in, whether
// it is accepted or not. What is no address is left out.
func Keys(vs *v1alpha1.VirtualServer) []netstate.Key {
	keys := make([]netstate.Key, 0, len(vs.Spec.Addresses))
	for _, text := range vs.Spec.Addresses {
		if addr, err := parseAddr(string(text)); err == nil {
			keys = append(keys, netstate.Key{Addr: addr})
		}
	}
	slices.SortFunc(keys, netstate.Key.Compare)
	return slices.Compact(keys)
}

// Component returns, ordered by namespace and name, the VirtualServers that a
// key's plan depends on: those that name its address, those that name another
// address of one of them, and so on. Naming returns those that name an
// address; it is asked once for each address of the component and for no
// other, so what a plan costs does not grow with what else there is.
func Component(key netstate.Key, naming func(netip.Addr) []v1alpha1.VirtualServer) []v1alpha1.VirtualServer {
	var found []v1alpha1.VirtualServer
	known := map[types.NamespacedName]struct{}{}
	asked := map[netstate.Key]struct{}{}
	for next := []netstate.Key{key}; len(next) > 0; {
		current := next[0]
		next = next[1:]
		if _, done := asked[current]; done || !current.Addr.IsValid() {
			continue
		}
		asked[current] = struct{}{}
		for _, vs := range naming(current.Addr) {
			name := types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}
			if _, done := known[name]; done {
				continue
			}
			known[name] = struct{}{}
			found = append(found, vs)
			next = append(next, Keys(&vs)...)
		}
	}
	slices.SortFunc(found, func(a, b v1alpha1.VirtualServer) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return found
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

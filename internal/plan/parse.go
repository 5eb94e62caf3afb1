package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// The defaults of the API. The API server fills them in; objects that are made
// in Go, or were stored before a field existed, may lack them.
const (
	defaultWeight             = 1
	defaultPersistence        = 300 * time.Second
	defaultInterval           = 2 * time.Second
	defaultTimeout            = time.Second
	defaultRetryInterval      = time.Second
	defaultFailureThreshold   = 3
	defaultSuccessThreshold   = 2
	defaultCheckName          = "default"
	longestPersistence        = 744 * time.Hour
	highestPort, highestValue = 65535, 65535
)

// claim is a VirtualServer that has been read: all that it asks for, in a
// canonical order.
type claim struct {
	name        types.NamespacedName
	addresses   []netip.Addr
	ports       []port
	realServers []realServer
	checks      []check
	service     netstate.Service
	// prefix4 and prefix6 are the persistence prefixes of each family.
	prefix4, prefix6 uint8
	selection        selection
	policy           policy
	drained          drainedServers
}

// port is what is served on each address.
type port struct {
	protocol netstate.Protocol
	number   uint16
	// name is empty if it has none.
	name string
}

func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

// realServer is one that is written down.
type realServer struct {
	addr   netip.Addr
	weight uint32
	// state is never empty. Those that are disabled are judged like all others,
	// and get no destination.
	state v1alpha1.RealServerState
}

// check is a health check before it is known whom it asks.
type check struct {
	name string
	kind health.Type
	// port is 0 for that of the service.
	port        uint16
	schedule    health.Schedule
	initiallyUp bool
}

// parse reads a VirtualServer. An error means that its spec can't be served
// whatever anybody allows. The API server's validation refuses nearly all of
// that, but not in objects that are older than the rule.
func parse(vs *v1alpha1.VirtualServer) (claim, error) {
	c := claim{name: types.NamespacedName{Namespace: vs.Namespace, Name: vs.Name}}
	for _, step := range []func(*claim, *v1alpha1.VirtualServerSpec) error{
		readAddresses, readPorts, readScheduling, readPersistence, readRealServers, readSelection, readChecks, readPolicy,
	} {
		if err := step(&c, &vs.Spec); err != nil {
			return claim{name: c.name}, err
		}
	}
	c.drained = parseDrained(vs.Annotations[v1alpha1.AnnotationDrainedServers])
	return c, nil
}

func readAddresses(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	if len(spec.Addresses) == 0 {
		return errors.New("no address is named")
	}
	for _, text := range spec.Addresses {
		addr, err := parseAddr(string(text))
		if err != nil {
			return err
		}
		if !addr.IsGlobalUnicast() {
			return fmt.Errorf("%s is no ordinary unicast address", addr)
		}
		c.addresses = append(c.addresses, addr)
	}
	slices.SortFunc(c.addresses, netip.Addr.Compare)
	for i := 1; i < len(c.addresses); i++ {
		if c.addresses[i] == c.addresses[i-1] {
			return fmt.Errorf("address %s is named twice", c.addresses[i])
		}
	}
	return nil
}

func readPorts(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	if len(spec.Ports) == 0 {
		return errors.New("no port is named")
	}
	for _, p := range spec.Ports {
		protocol, err := protocolOf(p.Protocol)
		if err != nil {
			return err
		}
		if p.Port < 1 || p.Port > highestPort {
			return fmt.Errorf("port %d is out of range", p.Port)
		}
		c.ports = append(c.ports, port{protocol: protocol, number: uint16(p.Port), name: p.Name})
	}
	slices.SortFunc(c.ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
	})
	for i := 1; i < len(c.ports); i++ {
		if a, b := c.ports[i-1], c.ports[i]; a.number == b.number && a.protocol == b.protocol {
			return fmt.Errorf("port %s is named twice", a)
		}
	}
	return nil
}

func protocolOf(p v1alpha1.Protocol) (netstate.Protocol, error) {
	switch p {
	case v1alpha1.ProtocolTCP, "":
		return netstate.TCP, nil
	case v1alpha1.ProtocolUDP:
		return netstate.UDP, nil
	case v1alpha1.ProtocolSCTP:
		return netstate.SCTP, nil
	default:
		return 0, fmt.Errorf("unknown protocol %q", p)
	}
}

func readScheduling(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	if spec.ForwardingMethod != v1alpha1.ForwardingMethodDR && spec.ForwardingMethod != "" {
		return fmt.Errorf("unknown forwarding method %q", spec.ForwardingMethod)
	}
	scheduler := cmp.Or(spec.Scheduler, v1alpha1.SchedulerWeightedLeastConnection)
	hashing := false
	switch scheduler {
	case v1alpha1.SchedulerSourceHashing, v1alpha1.SchedulerMaglevHashing:
		hashing = true
	case v1alpha1.SchedulerRoundRobin, v1alpha1.SchedulerWeightedRoundRobin,
		v1alpha1.SchedulerLeastConnection, v1alpha1.SchedulerWeightedLeastConnection,
		v1alpha1.SchedulerLocalityBasedLeastConnection, v1alpha1.SchedulerLocalityBasedLeastConnectionReplications,
		v1alpha1.SchedulerDestinationHashing, v1alpha1.SchedulerShortestExpectedDelay,
		v1alpha1.SchedulerNeverQueue, v1alpha1.SchedulerWeightedFailover,
		v1alpha1.SchedulerWeightedOverflow, v1alpha1.SchedulerPowerOfTwoChoices:
	default:
		return fmt.Errorf("unknown scheduler %q", scheduler)
	}
	c.service.Scheduler = string(scheduler)
	for _, flag := range spec.SchedulerFlags {
		switch {
		case !hashing:
			return fmt.Errorf("scheduler %s knows no flags", scheduler)
		case flag == v1alpha1.SchedulerFlagPort:
			c.service.Flags |= netstate.Port
		case flag == v1alpha1.SchedulerFlagFallback:
			c.service.Flags |= netstate.Fallback
		default:
			return fmt.Errorf("unknown scheduler flag %q", flag)
		}
	}
	if c.service.Ordered() {
		// A server that is down stays in the table, and its clients must not be refused.
		c.service.Flags |= netstate.Fallback
	}
	return nil
}

func readPersistence(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	c.prefix4, c.prefix6 = 32, 128
	p := spec.Persistence
	if p == nil {
		return nil
	}
	timeout := cmp.Or(p.Timeout.Duration, defaultPersistence)
	if timeout < time.Second || timeout > longestPersistence || timeout%time.Second != 0 {
		return fmt.Errorf("a persistence of %s is not possible: it is whole seconds, from 1s to %s", timeout, longestPersistence)
	}
	prefix4, prefix6 := cmp.Or(p.IPv4PrefixLength, 32), cmp.Or(p.IPv6PrefixLength, 128)
	if prefix4 < 1 || prefix4 > 32 || prefix6 < 1 || prefix6 > 128 {
		return fmt.Errorf("persistence prefix lengths %d (IPv4) and %d (IPv6) are out of range", prefix4, prefix6)
	}
	c.service.Persistence = timeout
	c.prefix4, c.prefix6 = uint8(prefix4), uint8(prefix6)
	return nil
}

func readRealServers(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	for i := range spec.RealServers {
		server, err := readRealServer(&spec.RealServers[i])
		if err != nil {
			return err
		}
		c.realServers = append(c.realServers, server)
	}
	slices.SortFunc(c.realServers, func(a, b realServer) int { return a.addr.Compare(b.addr) })
	for i := 1; i < len(c.realServers); i++ {
		if c.realServers[i].addr == c.realServers[i-1].addr {
			return fmt.Errorf("real server %s is named twice", c.realServers[i].addr)
		}
	}
	return nil
}

func readRealServer(r *v1alpha1.RealServer) (realServer, error) {
	addr, err := parseAddr(string(r.Address))
	if err != nil {
		return realServer{}, err
	}
	if r.Port != 0 {
		return realServer{}, fmt.Errorf("real server %s has a port of its own, to which DR can't forward", addr)
	}
	weight := int32(defaultWeight)
	if r.Weight != nil {
		weight = *r.Weight
	}
	if weight < 0 || weight > highestValue {
		return realServer{}, fmt.Errorf("weight %d of real server %s is out of range", weight, addr)
	}
	state := cmp.Or(r.State, v1alpha1.RealServerEnabled)
	if !isState(state) {
		return realServer{}, fmt.Errorf("real server %s has the unknown state %q", addr, r.State)
	}
	return realServer{addr: addr, weight: uint32(weight), state: state}, nil
}

func readChecks(c *claim, spec *v1alpha1.VirtualServerSpec) error {
	for i := range spec.HealthChecks {
		check, err := readCheck(&spec.HealthChecks[i])
		if err != nil {
			return err
		}
		c.checks = append(c.checks, check)
	}
	slices.SortFunc(c.checks, func(a, b check) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(c.checks); i++ {
		if c.checks[i].name == c.checks[i-1].name {
			return fmt.Errorf("two health checks are named %q", c.checks[i].name)
		}
	}
	return nil
}

func readCheck(h *v1alpha1.HealthCheck) (check, error) {
	c := check{
		name: cmp.Or(h.Name, defaultCheckName),
		kind: health.TCP,
		schedule: health.Schedule{
			Interval:         cmp.Or(h.Interval.Duration, defaultInterval),
			Timeout:          cmp.Or(h.Timeout.Duration, defaultTimeout),
			RetryInterval:    cmp.Or(h.RetryInterval.Duration, defaultRetryInterval),
			FailureThreshold: int(cmp.Or(h.FailureThreshold, defaultFailureThreshold)),
			SuccessThreshold: int(cmp.Or(h.SuccessThreshold, defaultSuccessThreshold)),
		},
		initiallyUp: h.InitialState == v1alpha1.InitialStateUp,
	}
	s := c.schedule
	switch {
	case h.Type != v1alpha1.HealthCheckTCP && h.Type != "":
		return check{}, fmt.Errorf("health check %q is of the unknown type %q", c.name, h.Type)
	case h.Port < 0 || h.Port > highestPort:
		return check{}, fmt.Errorf("port %d of health check %q is out of range", h.Port, c.name)
	case min(s.Interval, s.Timeout, s.RetryInterval) <= 0:
		return check{}, fmt.Errorf("health check %q has a negative duration", c.name)
	case min(s.FailureThreshold, s.SuccessThreshold) < 1:
		return check{}, fmt.Errorf("health check %q has a negative threshold", c.name)
	}
	c.port = uint16(h.Port)
	return c, nil
}

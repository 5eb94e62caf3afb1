package plan

import (
	"maps"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Memory is what one pass over a key hands on to the next. The zero Memory is
// that of a director that has just started: what the kernel holds stands in for
// it then, as far as that goes.
type Memory struct {
	// Draining says since when each destination that is on its way out has been.
	Draining map[netstate.DestinationKey]time.Time
	// Rising says since when each destination that is up and has not got its full
	// weight yet has been on its way there.
	Rising map[netstate.DestinationKey]time.Time
	// Risen are the destinations that had their full weight since they came up.
	// When that is changed they have the new one at once.
	Risen map[netstate.DestinationKey]struct{}
	// Lost says of each service whether its quorum is lost. One that is not in it
	// has not been looked at yet.
	Lost map[netstate.ServiceKey]bool
}

// Want returns what the kernel is to hold of one key, what the next pass has to
// know, and when that is due although nothing happens; 0 is never. Nothing that
// it is given is changed.
//
// A destination is as its checks have it, and one that is Unready is down, unless
// its desired weight is 0, which holds whatever its pod says:
//
//   - One that is up has its full weight, or as much as its slow start allows.
//   - One that is down is absent, or at weight 0 if the Policy says Quiesce,
//     whether it was ever in the kernel or not: so the table is the same on every
//     director, whatever each has seen.
//   - One that nobody knows of yet keeps the weight that it has in the kernel, so
//     that a director that starts again takes no server out of service; one that
//     is not in the kernel is absent, unless all that is unknown of it asks for it
//     to be put in first. A desired weight of 0 holds whatever the kernel has.
//
// While the quorum of a service is lost and it has a sorry server, that one is
// in, and the others are at weight 0. They are absent if it is a UDP service,
// which has no connections to keep, or if its scheduler would refuse clients for
// their sake. Destinations that are leaving stay at weight 0 for a while, see
// drain; so does the sorry server. Where a service became marked or is no longer,
// what it was before stays for as long, see keepTwins.
//
// Where the scheduler is netstate.Ordered every real server is in, at weight 0 if
// it is down or awaited, and counted there by the weight that it would have: so
// directors that have seen different things have the same table.
func Want(
	desired Desired,
	have netstate.Observation,
	verdict func(health.Probe) health.Verdict,
	memory Memory,
	now time.Time,
) (netstate.State, Memory, time.Duration) {
	p := pass{
		desired: desired, have: have, memory: memory, now: now,
		want: netstate.New(),
		later: Memory{
			Rising: map[netstate.DestinationKey]time.Time{},
			Risen:  map[netstate.DestinationKey]struct{}{},
			Lost:   map[netstate.ServiceKey]bool{},
		},
	}
	maps.Copy(p.want.Guard, desired.State.Guard)
	maps.Copy(p.want.Addresses, desired.State.Addresses)
	maps.Copy(p.want.Services, desired.State.Services)
	conditions := p.judge(verdict)
	p.later.Lost = p.quorums(conditions)
	for key, condition := range conditions {
		p.weigh(key, condition)
	}
	p.relieve()
	p.drain()
	p.keepTables()
	p.keepTwins()
	return p.want, p.later, p.next
}

// pass is one call of Want.
type pass struct {
	desired Desired
	have    netstate.Observation
	memory  Memory
	now     time.Time
	// want, later and next are what it returns.
	want  netstate.State
	later Memory
	next  time.Duration
}

// condition is what decides about a destination's weight.
type condition uint8

const (
	// awaited has no verdict yet, is not in the kernel and has to wait.
	awaited condition = iota
	// adopted has no verdict yet and is in the kernel.
	adopted
	// hoped has no verdict yet either, and is put in without.
	hoped
	down
	up
)

func (p *pass) judge(verdict func(health.Probe) health.Verdict) map[netstate.DestinationKey]condition {
	conditions := make(map[netstate.DestinationKey]condition, len(p.desired.State.Destinations))
	for key := range p.desired.State.Destinations {
		judged, initiallyUp := p.desired.Judge(key, verdict)
		_, there := p.have.Destinations[key]
		switch {
		case judged == health.Down:
			conditions[key] = down
		case judged == health.Up:
			conditions[key] = up
		case there:
			conditions[key] = adopted
		case initiallyUp:
			conditions[key] = hoped
		default:
			conditions[key] = awaited
		}
	}
	return conditions
}

// weigh puts a destination in, as if there were no sorry server.
func (p *pass) weigh(key netstate.DestinationKey, condition condition) {
	destination := p.desired.State.Destinations[key]
	switch condition {
	case up, hoped:
		destination.Weight = p.rise(key, destination.Weight)
	case adopted:
		destination.Weight = p.keep(key, destination.Weight)
	case down:
		if !p.desired.policy(key.Service).Quiesce && !p.ordered(key.Service) {
			return
		}
		destination.Weight = 0
	case awaited:
		if !p.ordered(key.Service) {
			return
		}
		destination.Weight = 0
	}
	p.want.Destinations[key] = destination
}

// Judge makes one verdict of all that is known of a destination: Judge of its
// checks, but one that is Unready is down unless it is drained.
func (d Desired) Judge(key netstate.DestinationKey, verdict func(health.Probe) health.Verdict) (judged health.Verdict, initiallyUp bool) {
	if _, unready := d.Unready[key]; unready && d.State.Destinations[key].Weight > 0 {
		return health.Down, false
	}
	return Judge(d.Checks[key], verdict)
}

// Judge makes one verdict of the checks of a server: it is down if one check
// says so, else unknown if one check is, else up; so it is up without any.
// InitiallyUp tells of an unknown one whether all that is unknown of it lets
// it into service meanwhile.
func Judge(checks []Check, verdict func(health.Probe) health.Verdict) (judged health.Verdict, initiallyUp bool) {
	judged, initiallyUp = health.Up, true
	for _, check := range checks {
		switch verdict(check.Probe) {
		case health.Up:
		case health.Down:
			return health.Down, false
		case health.Unknown:
			judged = health.Unknown
			initiallyUp = initiallyUp && check.InitiallyUp
		}
	}
	return judged, initiallyUp
}

// policy returns the Policy of a service. One that has none is dealt with as the
// API's defaults say.
func (d Desired) policy(service netstate.ServiceKey) Policy {
	if policy, ok := d.Policies[service]; ok {
		return policy
	}
	return Policy{DrainTimeout: defaultDrainTimeout, Scale: 1, Quorum: 1}
}

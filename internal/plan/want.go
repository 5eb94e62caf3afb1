package plan

import (
	"maps"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Want returns what the kernel is to hold of one key, and since when each
// destination that is on its way out is draining: Weigh and Drain in one.
// Neither have nor draining is changed.
func Want(
	desired Desired,
	have netstate.Observation,
	verdict func(health.Probe) health.Verdict,
	draining map[netstate.DestinationKey]time.Time,
	now time.Time,
	timeout time.Duration,
) (netstate.State, map[netstate.DestinationKey]time.Time) {
	return Drain(desired, have, Weigh(desired, have, verdict), draining, now, timeout)
}

// Weigh returns the desired state with every destination as its checks have
// it: one that is up has its full weight, one that is down is absent. One that
// nobody knows of yet keeps the weight that it has in the kernel, so that a
// director that starts again takes no server out of service; one that is not
// in the kernel is absent, unless all that is unknown of it asks for it to be
// put in first. A desired weight of 0 holds whatever the kernel has.
func Weigh(desired Desired, have netstate.Observation, verdict func(health.Probe) health.Verdict) netstate.State {
	want := netstate.New()
	maps.Copy(want.Guard, desired.State.Guard)
	maps.Copy(want.Addresses, desired.State.Addresses)
	maps.Copy(want.Services, desired.State.Services)
	for key, destination := range desired.State.Destinations {
		switch judged, initiallyUp := Judge(desired.Checks[key], verdict); judged {
		case health.Up:
		case health.Down:
			continue
		case health.Unknown:
			current, adopted := have.Destinations[key]
			if !adopted && !initiallyUp {
				continue
			}
			if adopted && destination.Weight > 0 {
				destination.Weight = current.Weight
			}
		}
		want.Destinations[key] = destination
	}
	return want
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

// Drain returns want with the destinations that are leaving for good: those
// that the kernel has, of a service that stays, and that the desired state no
// longer knows, because they were disabled or removed from the spec. They stay
// at weight 0 until their last connection has ended or timeout has passed. One
// that only its health keeps out of want is no such destination: nobody is
// served by waiting for a server that is down. UDP has no connections to wait
// for.
//
// Draining says since when each has been, and comes back with those that are
// still in the kernel, also when their time is up, so that a removal that fails
// does not start it anew; one that is wanted again is no longer in it.
// Destinations whose connections were not counted are taken to have some. Want
// itself is not changed.
func Drain(
	desired Desired,
	have netstate.Observation,
	want netstate.State,
	draining map[netstate.DestinationKey]time.Time,
	now time.Time,
	timeout time.Duration,
) (netstate.State, map[netstate.DestinationKey]time.Time) {
	destinations := maps.Clone(want.Destinations)
	leaving := map[netstate.DestinationKey]time.Time{}
	for key, destination := range have.Destinations {
		if !isDropped(desired, key) || isIdle(have, key) {
			continue
		}
		since, known := draining[key]
		if !known {
			since = now
		}
		leaving[key] = since
		if now.Sub(since) < timeout {
			destination.Weight = 0
			destinations[key] = destination
		}
	}
	want.Destinations = destinations
	return want, leaving
}

// isDropped says whether a destination that can be drained left the spec while
// its service stayed.
func isDropped(desired Desired, key netstate.DestinationKey) bool {
	_, stays := desired.State.Services[key.Service]
	_, wanted := desired.State.Destinations[key]
	return stays && !wanted && key.Service.Protocol != netstate.UDP
}

// isIdle says whether a destination is known to have no connection. Those that
// IPVS calls inactive count too: with DR the director sees the client's half
// only, and a client that has closed its half may still be downloading.
func isIdle(have netstate.Observation, key netstate.DestinationKey) bool {
	connections, counted := have.Connections[key]
	return counted && connections == netstate.Connections{}
}

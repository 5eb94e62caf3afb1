package conditions

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

const (
	// shownRealServers is how many a status holds.
	shownRealServers = 64
	// longestReason is what a real server's reason may hold.
	longestReason = 256
)

// roster is every real server of a VirtualServer with how it is.
type roster struct {
	servers []v1alpha1.RealServerStatus
	counts  v1alpha1.RealServerCounts
}

// finding is how a real server was found, before it is known since when.
type finding struct {
	state  v1alpha1.ObservedState
	reason string
	// since is zero if it is not known otherwise than from the status so far.
	since time.Time
}

// realServers finds out how each real server is: those of the spec, and those
// that have left it and drain. A VirtualServer that is refused has none to
// tell of.
func realServers(in Outcome) roster {
	spec := in.VirtualServer.Spec.RealServers
	r := roster{counts: v1alpha1.RealServerCounts{Total: int32(min(len(spec), 1<<16))}}
	if in.Rejection != nil {
		return r
	}
	places := placesOf(in)
	named := map[netip.Addr]struct{}{}
	for i := range spec {
		addr, err := netip.ParseAddr(string(spec[i].Address))
		if err != nil {
			continue
		}
		named[addr] = struct{}{}
		found := places[addr].find(in, &spec[i])
		weight := weightOf(&spec[i])
		r.note(in, v1alpha1.RealServerStatus{Address: addr.String(), Port: spec[i].Port, Weight: weight}, found)
		if places[addr].getsConnections() {
			r.counts.Ready++
			r.counts.ReadyWeight += weight
		}
	}
	for addr, p := range places {
		if _, ok := named[addr]; !ok && len(p.draining) > 0 {
			r.note(in, v1alpha1.RealServerStatus{Address: addr.String()},
				finding{v1alpha1.ObservedDraining, "removed from the spec", p.drainingSince()})
		}
	}
	return r
}

func weightOf(server *v1alpha1.RealServer) int32 {
	if server.Weight == nil {
		return 1
	}
	return *server.Weight
}

// note enters a real server. One that is in the state that was shown before has
// been so since what was shown before: a director that takes over or starts
// again does not know better.
func (r *roster) note(in Outcome, status v1alpha1.RealServerStatus, found finding) {
	status.State, status.Reason = found.state, shorten(found.reason, longestReason)
	status.Since = seconds(in.Now)
	if !found.since.IsZero() {
		status.Since = seconds(found.since)
	}
	for _, before := range in.VirtualServer.Status.RealServers {
		if before.Address == status.Address && before.Port == status.Port && before.State == status.State && !before.Since.IsZero() {
			status.Since = before.Since
		}
	}
	if found.state == v1alpha1.ObservedDraining {
		r.counts.Draining++
	}
	r.servers = append(r.servers, status)
}

// worst returns, worst first and then by address, as many as a status holds.
func (r *roster) worst() []v1alpha1.RealServerStatus {
	slices.SortFunc(r.servers, func(a, b v1alpha1.RealServerStatus) int {
		return cmp.Or(cmp.Compare(badness(a.State), badness(b.State)),
			compareAddresses(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
	})
	return r.servers[:min(len(r.servers), shownRealServers)]
}

// badness orders states from the worst on.
func badness(state v1alpha1.ObservedState) int {
	return slices.Index([]v1alpha1.ObservedState{
		v1alpha1.ObservedDown, v1alpha1.ObservedUnknown, v1alpha1.ObservedDraining,
		v1alpha1.ObservedDisabled, v1alpha1.ObservedUp,
	}, state)
}

func compareAddresses(a, b string) int {
	first, _ := netip.ParseAddr(a)
	second, _ := netip.ParseAddr(b)
	return first.Compare(second)
}

// place is where a real server appears: the checks of its destinations in every
// service of the VirtualServer, and what the kernel has of them.
type place struct {
	checks   [][]plan.Check
	weights  []uint32
	draining []time.Time
}

func placesOf(in Outcome) map[netip.Addr]*place {
	places := map[netip.Addr]*place{}
	at := func(addr netip.Addr) *place {
		if places[addr] == nil {
			places[addr] = &place{}
		}
		return places[addr]
	}
	mine := func(address Address, key netstate.DestinationKey) bool {
		return address.Desired.Owners[key.Service] == nameOf(in.VirtualServer)
	}
	for _, vip := range addressesOf(in.VirtualServer) {
		address := in.Addresses[vip]
		for _, key := range sortedDestinations(address.Desired.State.Destinations) {
			if mine(address, key) {
				p := at(key.Addr)
				p.checks = append(p.checks, address.Desired.Checks[key])
				p.weights = append(p.weights, address.State.Destinations[key].Weight)
			}
		}
		for key, since := range address.Draining {
			if _, present := address.State.Destinations[key]; present && mine(address, key) {
				p := at(key.Addr)
				p.draining = append(p.draining, since)
			}
		}
	}
	return places
}

// sortedDestinations lists the keys by service and address, so that the same
// check is named first each time.
func sortedDestinations(destinations map[netstate.DestinationKey]netstate.Destination) []netstate.DestinationKey {
	keys := make([]netstate.DestinationKey, 0, len(destinations))
	for key := range destinations {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b netstate.DestinationKey) int {
		return cmp.Or(a.Service.Key.Compare(b.Service.Key), cmp.Compare(a.Service.Port, b.Service.Port),
			cmp.Compare(a.Service.Protocol, b.Service.Protocol), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return keys
}

// getsConnections says whether the real server gets new connections of every
// service that it is meant for.
func (p *place) getsConnections() bool {
	return p != nil && len(p.weights) > 0 && slices.Min(p.weights) > 0
}

func (p *place) drainingSince() time.Time {
	if p == nil || len(p.draining) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(p.draining, time.Time.Compare)
}

// find says how a real server of the spec is. Down comes before what the user
// wants of it, since that is what one must know before relying on it.
func (p *place) find(in Outcome, server *v1alpha1.RealServer) finding {
	if server.State == v1alpha1.RealServerDisabled {
		if since := p.drainingSince(); !since.IsZero() {
			return finding{v1alpha1.ObservedDraining, "disabled in the spec", since}
		}
		return finding{v1alpha1.ObservedDisabled, "disabled in the spec", time.Time{}}
	}
	judged, detail := p.judge(in)
	switch {
	case judged == health.Down:
		return finding{v1alpha1.ObservedDown, detail.reason, detail.since}
	case server.State == v1alpha1.RealServerDrained:
		return finding{v1alpha1.ObservedDraining, "drained in the spec", time.Time{}}
	case weightOf(server) == 0:
		return finding{v1alpha1.ObservedDraining, "its weight is 0", time.Time{}}
	case judged == health.Unknown:
		return finding{v1alpha1.ObservedUnknown, detail.reason, detail.since}
	default:
		return finding{v1alpha1.ObservedUp, "", detail.since}
	}
}

// judge makes one verdict of all services that the real server is meant for.
func (p *place) judge(in Outcome) (health.Verdict, finding) {
	if p == nil || len(p.checks) == 0 {
		return health.Unknown, finding{reason: "not programmed yet"}
	}
	worst, detail := health.Up, finding{}
	for _, checks := range p.checks {
		judged, found := judge(in, checks)
		switch {
		case judged == health.Down && worst != health.Down, judged == health.Unknown && worst == health.Up:
			worst, detail = judged, found
		case judged == health.Up && worst == health.Up && found.since.After(detail.since):
			detail = found
		}
	}
	return worst, detail
}

// judge makes one verdict of the checks of a destination, and names the check
// that decided.
func judge(in Outcome, checks []plan.Check) (health.Verdict, finding) {
	report := func(probe health.Probe) health.Report {
		if in.Report == nil {
			return health.Report{}
		}
		return in.Report(probe)
	}
	worst, detail := health.Up, finding{}
	for _, check := range checks {
		found := report(check.Probe)
		what := fmt.Sprintf("%s check %q of port %d", check.Probe.Target.Type, check.Name, check.Probe.Target.Port)
		switch found.Verdict {
		case health.Down:
			reason := what + " fails"
			if found.LastError != "" {
				reason = what + ": " + found.LastError
			}
			return health.Down, finding{reason: reason, since: found.Since}
		case health.Unknown:
			if worst == health.Up {
				worst, detail = health.Unknown, finding{reason: what + " has no verdict yet", since: found.Since}
			}
		case health.Up:
			if worst == health.Up && found.Since.After(detail.since) {
				detail.since = found.Since
			}
		}
	}
	return worst, detail
}

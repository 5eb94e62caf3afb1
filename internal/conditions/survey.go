package conditions

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// survey is what was found of a VirtualServer's real servers, by address and by
// service. It is made in one pass over their destinations.
type survey struct {
	places   map[netip.Addr]*place
	services map[netstate.ServiceKey]*tally
	// order lists the services.
	order []netstate.ServiceKey
}

// standing is how one destination was found.
type standing struct {
	// server is what the plan says of it.
	server plan.Server
	// meant says that the kernel is to have it: it is neither left out nor Disabled.
	meant bool
	// verdict and detail are its checks' and its pod's, if it is meant.
	verdict health.Verdict
	detail  finding
	// weight is what the kernel gives it.
	weight uint32
}

// leftOut is why it is left out; none if it is not.
func (s standing) leftOut() Failure { return Failure{s.server.Reason, s.server.Message} }

// wanted says whether it is to get new connections.
func (s standing) wanted() bool {
	return s.server.State == v1alpha1.RealServerEnabled && s.server.Weight > 0
}

// look makes the survey.
func look(in Outcome) survey {
	s := survey{places: map[netip.Addr]*place{}, services: map[netstate.ServiceKey]*tally{}, order: servicesOf(in)}
	for _, service := range s.order {
		s.services[service] = newTally(in.Addresses[service.Key.Addr], service)
	}
	written := map[netip.Addr]plan.Server{}
	for i := range in.VirtualServer.Spec.RealServers {
		server := &in.VirtualServer.Spec.RealServers[i]
		if addr, err := netip.ParseAddr(string(server.Address)); err == nil {
			written[addr] = asWritten(server)
			s.at(addr).written = true
		}
	}
	for _, vip := range addressesOf(in.VirtualServer) {
		address := in.Addresses[vip]
		for _, key := range destinationsOf(address.Desired) {
			if t := s.services[key.Service]; t != nil {
				found := inspect(in, address, key, written[key.Addr])
				t.count(key.Addr, found)
				s.at(key.Addr).add(found, t)
			}
		}
		s.addDraining(address)
	}
	for addr, server := range written {
		if p := s.at(addr); !p.planned {
			p.want(server)
		}
	}
	return s
}

func (s *survey) at(addr netip.Addr) *place {
	if s.places[addr] == nil {
		s.places[addr] = &place{}
	}
	return s.places[addr]
}

// addDraining notes what is on its way out and still in the kernel. The sorry
// server comes and goes too, but is no real server.
func (s *survey) addDraining(address Address) {
	for key, since := range address.Draining {
		t := s.services[key.Service]
		if _, present := address.State.Destinations[key]; !present || t == nil || key.Addr == t.sorry {
			continue
		}
		if p := s.at(key.Addr); p.draining.IsZero() || since.Before(p.draining) {
			p.draining = since
		}
	}
}

// asWritten is a real server of the spec as a plan would show it.
func asWritten(server *v1alpha1.RealServer) plan.Server {
	weight := int32(1)
	if server.Weight != nil {
		weight = max(0, *server.Weight)
	}
	return plan.Server{Weight: uint32(weight), State: cmp.Or(server.State, v1alpha1.RealServerEnabled)}
}

// inspect finds out how a destination is. A plan that a checkpoint kept says
// nothing of the server, then written holds, or what the kernel is to have.
func inspect(in Outcome, address Address, key netstate.DestinationKey, written plan.Server) standing {
	destination, meant := address.Desired.State.Destinations[key]
	server, told := address.Desired.Servers[key]
	switch {
	case told:
	case written.State != "":
		server = written
	default:
		server = plan.Server{Weight: destination.Weight / max(1, address.Desired.Policies[key.Service].Scale)}
	}
	server.State = cmp.Or(server.State, v1alpha1.RealServerEnabled)
	found := standing{server: server, meant: meant && server.Reason == ""}
	if !found.meant {
		return found
	}
	found.weight = address.State.Destinations[key].Weight
	found.verdict, found.detail = judge(in, address.Desired.Checks[key])
	if why, unready := address.Desired.Unready[key]; unready {
		found.verdict, found.detail = health.Down, finding{reason: cmp.Or(why, "its pod is not ready")}
	}
	return found
}

// destinationsOf lists, by service and address, the destinations that a plan
// knows, so that the same one is named first each time.
func destinationsOf(desired plan.Desired) []netstate.DestinationKey {
	keys := slices.AppendSeq(make([]netstate.DestinationKey, 0, len(desired.Servers)), maps.Keys(desired.Servers))
	for key := range desired.State.Destinations {
		if _, known := desired.Servers[key]; !known {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b netstate.DestinationKey) int {
		return cmp.Or(a.Service.Key.Compare(b.Service.Key), cmp.Compare(a.Service.Port, b.Service.Port),
			cmp.Compare(a.Service.Protocol, b.Service.Protocol), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return keys
}

// place is where a real server appears, in every service of the VirtualServer
// together.
type place struct {
	// written says that the spec has its address, planned that a plan knows it.
	written, planned bool
	pod              string
	weight           uint32
	state            v1alpha1.RealServerState
	why              string
	// leftOut is why it is left out of a service: what is to come is told only if
	// nothing else is wrong.
	leftOut Failure
	// verdict and detail are the worst of the services that it is meant for.
	verdict health.Verdict
	detail  finding
	// meant counts these services, served those which give it new connections.
	meant, served int
	// instead is the sorry server that has its new connections; not valid if none.
	instead netip.Addr
	// draining is since when it is on its way out; zero if it is not.
	draining time.Time
}

// add puts in how a destination of the real server was found.
func (p *place) add(found standing, t *tally) {
	p.planned = true
	p.want(found.server)
	if reason := found.leftOut(); reason.is() && (!p.leftOut.is() || isToCome(p.leftOut) && !isToCome(reason)) {
		p.leftOut = reason
	}
	if !found.meant {
		return
	}
	p.worsen(found.verdict, found.detail)
	p.meant++
	if found.weight > 0 {
		p.served++
	} else if found.verdict == health.Up && found.wanted() && t.sorryAnswers() {
		p.instead = t.sorry
	}
}

// isToCome says whether a server that is left out will be there by itself.
func isToCome(leftOut Failure) bool { return leftOut.Reason == v1alpha1.ReasonNotPrepared }

// want puts in what is wanted of the real server. What one service still wants
// of it counts, others may have lost it already.
func (p *place) want(server plan.Server) {
	p.pod = cmp.Or(p.pod, server.Pod)
	p.weight = max(p.weight, server.Weight)
	if p.state == "" || withdrawal(server.State) < withdrawal(p.state) {
		p.state, p.why = server.State, server.Why
	}
}

// withdrawal orders what is wanted of a real server by how far it takes it out.
func withdrawal(state v1alpha1.RealServerState) int {
	switch state {
	case v1alpha1.RealServerDisabled:
		return 2
	case v1alpha1.RealServerDrained:
		return 1
	default:
		return 0
	}
}

// worsen makes one verdict of all services that the real server is meant for.
func (p *place) worsen(verdict health.Verdict, detail finding) {
	switch {
	case p.meant == 0,
		verdict == health.Down && p.verdict != health.Down,
		verdict == health.Unknown && p.verdict == health.Up:
		p.verdict, p.detail = verdict, detail
	case verdict == health.Up && p.verdict == health.Up && detail.since.After(p.detail.since):
		p.detail = detail
	}
}

// getsConnections says whether the real server gets new connections of every
// service that it is meant for.
func (p *place) getsConnections() bool {
	return p.meant > 0 && p.served == p.meant && !p.leftOut.is()
}

// isLeaving says whether the real server is on its way out for good: the spec
// does not name it, and it is in no plan any more, its pod is being deleted or
// its endpoint goes.
func (p *place) isLeaving() bool {
	return !p.written && (!p.planned || p.state == v1alpha1.RealServerDisabled)
}

// find says how the real server is. What is wrong with it comes before what the
// user wants of it, since that is what one must know before relying on it.
func (p *place) find() finding {
	switch {
	case !p.planned && !p.written:
		return finding{state: v1alpha1.ObservedDraining, since: p.draining}
	case p.state == v1alpha1.RealServerDisabled && !p.draining.IsZero():
		return finding{v1alpha1.ObservedDraining, cmp.Or(p.why, "disabled by the spec"), p.draining}
	case p.state == v1alpha1.RealServerDisabled:
		return finding{state: v1alpha1.ObservedDisabled, reason: cmp.Or(p.why, "disabled by the spec")}
	case p.leftOut.is() && !isToCome(p.leftOut):
		return finding{state: v1alpha1.ObservedDown, reason: p.leftOut.String()}
	case p.meant > 0 && p.verdict == health.Down:
		return finding{v1alpha1.ObservedDown, p.detail.reason, p.detail.since}
	case p.leftOut.is():
		return finding{state: v1alpha1.ObservedUnknown, reason: p.leftOut.String()}
	case p.state == v1alpha1.RealServerDrained:
		return finding{state: v1alpha1.ObservedDraining, reason: cmp.Or(p.why, "drained by the spec")}
	case p.weight == 0:
		return finding{state: v1alpha1.ObservedDraining, reason: "its weight is 0"}
	case p.meant == 0:
		return finding{state: v1alpha1.ObservedUnknown, reason: "not programmed yet"}
	case p.verdict == health.Unknown:
		return finding{v1alpha1.ObservedUnknown, p.detail.reason, p.detail.since}
	case p.instead.IsValid():
		return finding{state: v1alpha1.ObservedDraining, reason: fmt.Sprintf("the quorum is lost: the sorry server %s answers", p.instead)}
	default:
		return finding{v1alpha1.ObservedUp, p.why, p.detail.since} // a note, as of an annotation that nobody can read
	}
}

// String returns the reason and the message, as a real server's reason in the
// status.
func (f Failure) String() string {
	if f.Message == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.Message
}

// judge makes one verdict of the checks of a destination, and names the check
// that decided.
func judge(in Outcome, checks []plan.Check) (health.Verdict, finding) {
	worst, detail := health.Up, finding{}
	for _, check := range checks {
		var found health.Report
		if in.Report != nil {
			found = in.Report(check.Probe)
		}
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

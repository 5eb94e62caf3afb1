package plan

import (
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// tally sums up the weights of a service's destinations as the desired state has
// them: one that rises counts with all of its weight.
type tally struct {
	up, all uint64
}

// quorums returns of each service whether its quorum is lost. A destination that
// nobody knows of yet counts as up if it gets connections. One that is put in
// without a verdict does not while a sorry server answers: that one is not given
// up for a hope.
func (p *pass) quorums(conditions map[netstate.DestinationKey]condition) map[netstate.ServiceKey]bool {
	tallies := map[netstate.ServiceKey]tally{}
	for key, condition := range conditions {
		t := tallies[key.Service]
		weight := uint64(p.desired.State.Destinations[key].Weight)
		t.all += weight
		if p.counts(key, condition) {
			t.up += weight
		}
		tallies[key.Service] = t
	}
	lost := make(map[netstate.ServiceKey]bool, len(p.desired.State.Services))
	for service := range p.desired.State.Services {
		was, known := p.wasLost(service)
		lost[service] = isLost(tallies[service], p.desired.policy(service), was, known)
	}
	return lost
}

func (p *pass) counts(key netstate.DestinationKey, condition condition) bool {
	switch condition {
	case up:
		return true
	case adopted:
		return p.have.Destinations[key].Weight > 0
	case hoped:
		lost, _ := p.wasLost(key.Service)
		_, _, relieved := p.desired.sorryServer(key.Service)
		return !lost || !relieved
	default:
		return false
	}
}

// wasLost returns whether the quorum of a service was lost before, if that is
// known: remembered, or seen by who gets connections in the kernel.
func (p *pass) wasLost(service netstate.ServiceKey) (lost, known bool) {
	if lost, known = p.memory.Lost[service]; known {
		return lost, true
	}
	sorry, _, there := p.desired.sorryServer(service)
	if !there {
		return false, false
	}
	for key, destination := range p.have.Destinations {
		if key.Service != service || destination.Weight == 0 {
			continue
		}
		if key == sorry {
			return true, true
		}
		known = true
	}
	return false, known
}

// isLost decides about a quorum: it is lost below Quorum-Hysteresis or without
// anybody, and there again from Quorum+Hysteresis on; in between it is as it was.
// Where all servers together do not make so much, all of them are enough to get it
// back, if they are enough to keep it. Equal tallies never make it come and go.
func isLost(t tally, policy Policy, was, known bool) bool {
	quorum := max(policy.Quorum, 1)
	keep := max(quorum-min(policy.Hysteresis, quorum), 1)
	regain := max(min(quorum+policy.Hysteresis, t.all), keep)
	switch {
	case !known:
		return t.up < min(quorum, regain)
	case was:
		return t.up < regain
	default:
		return t.up < keep
	}
}

// sorryServer returns the destination that a service's sorry server is; false if
// it has none. One that is also a real server is none: it would be taken out in
// favour of itself.
func (d Desired) sorryServer(service netstate.ServiceKey) (netstate.DestinationKey, netstate.Destination, bool) {
	policy := d.policy(service)
	key := netstate.DestinationKey{Service: service, Addr: policy.Sorry, Port: service.Port}
	_, serves := d.State.Destinations[key]
	return key, netstate.Destination{Method: netstate.DR, Weight: max(policy.Scale, 1)}, policy.Sorry.IsValid() && !serves
}

// relieve has sorry servers step in where the quorum is lost.
func (p *pass) relieve() {
	for service, lost := range p.later.Lost {
		sorry, destination, there := p.desired.sorryServer(service)
		if !lost || !there {
			continue
		}
		p.quiet(service)
		p.want.Destinations[sorry] = destination
	}
}

// quiet takes new connections from all destinations of a service.
func (p *pass) quiet(service netstate.ServiceKey) {
	gone := service.Protocol == netstate.UDP || refusesAtZero(p.want.Services[service])
	for key, destination := range p.want.Destinations {
		switch {
		case key.Service != service:
		case gone:
			delete(p.want.Destinations, key)
		default:
			destination.Weight = 0
			p.want.Destinations[key] = destination
		}
	}
}

// refusesAtZero says whether a service's scheduler refuses clients whose hash is
// that of a destination at weight 0, instead of sending them to another one
// (is_unavailable in the kernel's ip_vs_sh.c and ip_vs_mh.c; dh has no flags).
func refusesAtZero(service netstate.Service) bool {
	switch service.Scheduler {
	case "sh", "mh":
		return service.Flags&netstate.Fallback == 0
	case "dh":
		return true
	default:
		return false
	}
}

package plan

import (
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// drain puts back the destinations that are leaving for good: those that the
// kernel has, of a service that stays, and that nobody wants any more, because
// they were disabled or removed from the spec, their pod is being deleted, or
// they are a sorry server that is not needed. They stay at weight 0 until their
// last connection has ended or the service's DrainTimeout has passed. One that
// only its health keeps out is no such destination: nobody is served by waiting
// for a server that is down. UDP has no connections to wait for, and a sorry
// server is not waited for where clients would be refused meanwhile.
//
// Those that are still in the kernel are remembered also when their time is up,
// so that a removal that fails does not start it anew; one that is wanted again
// is not. Destinations whose connections were not counted are taken to have
// some.
//
// Where the scheduler is netstate.Ordered a destination stays for all of the
// time: a director that has no connections to it keeps it like the one that has
// them, and their tables are the same.
func (p *pass) drain() {
	p.later.Draining = map[netstate.DestinationKey]time.Time{}
	for key, destination := range p.have.Destinations {
		if !p.isDropped(key) || p.isIdle(key) && !p.ordered(key.Service) {
			continue
		}
		since, known := p.memory.Draining[key]
		if !known {
			since = p.now
		}
		p.later.Draining[key] = since
		if p.now.Sub(since) < p.desired.policy(key.Service).DrainTimeout {
			destination.Weight = 0
			p.want.Destinations[key] = destination
		}
	}
}

// isDropped says whether a destination that can be drained is no longer wanted
// while its service stays.
func (p *pass) isDropped(key netstate.DestinationKey) bool {
	_, stays := p.desired.State.Services[key.Service]
	_, desired := p.desired.State.Destinations[key]
	_, wanted := p.want.Destinations[key] // a sorry server is not desired
	sorry, _, _ := p.desired.sorryServer(key.Service)
	refuses := key == sorry && refusesAtZero(p.want.Services[key.Service])
	return stays && !desired && !wanted && !refuses && key.Service.Protocol != netstate.UDP
}

// isIdle says whether a destination is known to have no connection. Those that
// IPVS calls inactive count too: with DR the director sees the client's half
// only, and a client that has closed its half may still be downloading.
func (p *pass) isIdle(key netstate.DestinationKey) bool {
	connections, counted := p.have.Connections[key]
	return counted && connections == netstate.Connections{}
}

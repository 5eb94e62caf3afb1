package plan

import (
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// keepTwins keeps, beside a service that became marked or is no longer, the one
// that the kernel had instead, as long as drain keeps destinations: a connection
// ends with the destination that it was made with, and to the kernel those of
// the two services are different ones. What is kept gets no new connections, but
// for those that other directors send here, which carry no mark: they are given to
// this node itself if it is a real server, and to nobody else.
func (p *pass) keepTwins() {
	kept := map[netstate.ServiceKey]bool{}
	for key, destination := range p.have.Destinations {
		if !p.isTwin(key.Service) || key.Service.Protocol == netstate.UDP || p.isIdle(key) {
			continue
		}
		since, known := p.memory.Draining[key]
		if !known {
			since = p.now
		}
		p.later.Draining[key] = since
		if p.now.Sub(since) < p.desired.policy(twin(key.Service)).DrainTimeout {
			destination.Weight = 0
			p.want.Destinations[key] = destination
			kept[key.Service] = true
		}
	}
	for service := range kept {
		p.want.Services[service] = p.have.Services[service]
		if !service.Marked {
			p.serveItself(service)
		}
	}
}

// serveItself makes the node's own address the only destination of an unmarked
// service that takes connections, if the node is a real server.
func (p *pass) serveItself(service netstate.ServiceKey) {
	for _, own := range p.desired.Local {
		key := netstate.DestinationKey{Service: service, Addr: own, Port: service.Port}
		key.Service.Marked = true
		if _, serves := p.desired.State.Destinations[key]; serves {
			key.Service = service
			p.want.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: 1}
		}
	}
}

// isTwin says whether a service is not wanted, and the other of its name is.
func (p *pass) isTwin(service netstate.ServiceKey) bool {
	_, desired := p.desired.State.Services[service]
	_, other := p.desired.State.Services[twin(service)]
	return !desired && other
}

// twin is the service of the same name that is marked if this one is not.
func twin(service netstate.ServiceKey) netstate.ServiceKey {
	service.Marked = !service.Marked
	return service
}

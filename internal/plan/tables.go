package plan

import "github.com/lvs-operator/lvs-operator/internal/netstate"

// ordered says whether the scheduler of a service that is wanted goes by what its
// destinations were before, so that they have to be the same on every director.
func (p *pass) ordered(service netstate.ServiceKey) bool {
	return p.desired.State.Services[service].Ordered()
}

// keepTables gives what is at weight 0 the weight by which an Ordered scheduler
// goes on counting it: that of the spec. One that is at weight 0 in the spec counts
// as 1 on every director, whatever it had before; one that is leaving counts as
// it did, as far as that is known.
func (p *pass) keepTables() {
	for key, destination := range p.want.Destinations {
		if !p.ordered(key.Service) {
			continue
		}
		destination.LastWeight = 0
		if destination.Weight == 0 {
			destination.LastWeight = p.lastWeight(key)
		}
		p.want.Destinations[key] = destination
	}
}

func (p *pass) lastWeight(key netstate.DestinationKey) uint32 {
	if desired, ok := p.desired.State.Destinations[key]; ok {
		return max(desired.Weight, desired.LastWeight, 1)
	}
	before := p.have.Destinations[key]
	return max(before.Weight, before.LastWeight)
}

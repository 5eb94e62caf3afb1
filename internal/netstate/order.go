package netstate

import "slices"

// maglev is the kernel's name of the scheduler that hashes a client to the same
// destination on every director that has the same table (ip_vs_mh.c).
const maglev = "mh"

// Ordered says whether the scheduler's choice depends on the order in which
// destinations were added, and goes on counting one at weight 0 by the last
// weight above it. Both are kept canonical then, whatever a director has seen:
// see Observation.Diff and Destination.LastWeight.
func (s Service) Ordered() bool { return s.Scheduler == maglev }

// Stateless says whether any director that has the same destinations at the same
// weights sends a packet to the same one without knowing its connection. A
// template of persistence depends on who of a network came first.
func (s Service) Stateless() bool { return s.Ordered() && s.Persistence == 0 }

// Diff is Diff for what a kernel was seen to hold: it also puts the destinations
// of services that are Ordered into canonical order, by Move. Only those move that
// have to: all behind the first one that is missing or out of its place. What is
// moved keeps its value until then, and Adds and Moves come in canonical order, so
// that the order is canonical when all is done. A service whose order was not
// seen is left as it is.
func (o Observation) Diff(want State) []Op {
	return diff(o.State, want, o.moves(want))
}

// moves returns the destinations that have to be put in anew.
func (o Observation) moves(want State) []step {
	servers := map[ServiceKey][]DestinationKey{}
	for k := range want.Destinations {
		_, there := o.Services[k.Service]
		if there && want.Services[k.Service].Ordered() && len(o.Order[k.Service]) > 0 {
			servers[k.Service] = append(servers[k.Service], k)
		}
	}
	var steps []step
	for service, wanted := range servers {
		slices.SortFunc(wanted, compareDestinations)
		for _, k := range wanted[inPlace(o.Order[service], wanted):] {
			if value, there := o.Destinations[k]; there {
				steps = append(steps, step{destinationIn, DestinationChange{Move, k, value}})
			}
		}
	}
	return steps
}

// inPlace returns how many of wanted, from the first on, are there in that order.
func inPlace(order, wanted []DestinationKey) int {
	n := 0
	for _, k := range order {
		if n < len(wanted) && k == wanted[n] {
			n++
		}
	}
	return n
}

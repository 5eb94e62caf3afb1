package netstate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Verb is what an operation does to an entry.
type Verb uint8

// The verbs. Their zero value is none of them, so that a forgotten verb does
// nothing rather than something.
const (
	// Add makes an entry that was not there.
	Add Verb = iota + 1
	// Set edits an entry in place: connections that depend on it live on.
	Set
	// Del removes an entry.
	Del
	// Move takes a destination out and puts it in again as it is, behind all others
	// of its service. Connections that depend on it live on.
	Move
)

// String returns the verb in lower case.
func (v Verb) String() string {
	switch v {
	case Add:
		return "add"
	case Set:
		return "set"
	case Del:
		return "del"
	case Move:
		return "move"
	default:
		return fmt.Sprintf("verb %d", uint8(v))
	}
}

// Op is one step from a state to another. Its only implementations are
// instances of Change, so whoever performs operations needs one type switch
// over GuardChange, AddressChange, ServiceChange and DestinationChange.
type Op interface {
	fmt.Stringer
	// Key names the unit of work that the operation belongs to: after a
	// failure the later operations of the same key are skipped.
	Key() Key
}

// entry is what the keys of State's maps have in common.
type entry interface {
	comparable
	fmt.Stringer
	unit() Key
}

// Change adds, edits or removes the entry named Entry. Value is what the entry
// is to be like; for Del it is what it was like.
type Change[K entry, V comparable] struct {
	Verb  Verb
	Entry K
	Value V
}

type (
	// GuardChange is an operation on an entry of the guard.
	GuardChange = Change[GuardKey, Present]
	// AddressChange is an operation on an address.
	AddressChange = Change[AddressKey, Address]
	// ServiceChange is an operation on an IPVS service.
	ServiceChange = Change[ServiceKey, Service]
	// DestinationChange is an operation on a destination of a service.
	DestinationChange = Change[DestinationKey, Destination]
)

// Key returns the key that the entry belongs to.
func (c Change[K, V]) Key() Key { return c.Entry.unit() }

// String returns verb and entry in the words of the text form, for example
// "set destination TCP 192.0.2.1:80 10.0.0.7:80".
func (c Change[K, V]) String() string {
	return c.Verb.String() + " " + c.Entry.String()
}

// phase orders the operations of one key. The constants are the contract that
// Diff documents.
type phase uint8

const (
	kernelStopsAnswering phase = iota
	guardLeaves
	guardRemarks
	guardReopens
	guardCloses
	guardDrops
	addressIn
	serviceIn
	destinationIn
	guardMarks
	destinationQuiet
	guardOpens
	destinationOut
	serviceOut
	kernelAnswers
	addressOut
	guardDropsNoMore
)

// step is an operation with its place.
type step struct {
	phase phase
	op    Op
}

// Diff returns the operations that turn have into want: none if they are
// equal. Entries that are the same in both are not touched, and what can be
// edited is edited, never deleted and made again.
//
// The order is part of the contract, for each key:
//
//   - On the way in: the guard's entry of the VIP, which drops what is no
//     service; the VIP on DummyLink; services; new and edited destinations; the
//     guard's entries of services, which let them through; the VIP on any other
//     link, where the kernel answers for it.
//   - Destinations go, to weight 0 and then out, after the new ones are in and
//     those that stay have their weight; services after their destinations. So a
//     service that has a destination of some weight before and after is never
//     without one.
//   - The guard begins to mark packets for a service, or ends, when the services
//     and destinations that come are in, and before it lets a new service through.
//     So where a marked service takes the place of another, or the reverse, each
//     packet finds one of the two.
//   - On the way out the reverse: the kernel stops answering; the guard closes
//     the services; destinations and services go; the VIP; last the guard's
//     entry of it.
//   - A guard that has to be completed round services that the kernel has (the
//     ruleset was flushed) lets them through before it drops the rest, and one
//     that leaves while its VIP stays stops dropping first, so that a service
//     that works has no gap.
//
// Whoever applies them and sees one fail skips the later ones of the same key.
// Then, whatever fails, a VIP is never there without its guard, the guard never
// lets a service through that is not there, and no destination is given up
// before its successors are in.
//
// Keys do not depend on each other; their operations come in the order of
// Key.Compare. Within one step entries come in canonical order (protocol and
// port of the service, then address and port of the destination), because some
// schedulers choose by the order of insertion.
func Diff(have, want State) []Op { return diff(have, want, nil) }

// diff puts what is to move, with its place, among the other operations.
func diff(have, want State, moves []step) []Op {
	steps := moves
	steps = appendChanges(steps, have.Guard, want.Guard, compareGuard, guardPhase(have, want))
	steps = appendChanges(steps, have.Addresses, want.Addresses, compareAddresses, addressPhase)
	steps = appendChanges(steps, have.Services, want.Services, compareServices,
		func(verb Verb, _ ServiceKey) phase { return pick(verb == Del, serviceOut, serviceIn) })
	steps = appendChanges(steps, have.Destinations, want.Destinations, compareDestinations, destinationPhase(want))

	slices.SortStableFunc(steps, func(a, b step) int {
		return cmp.Or(a.op.Key().Compare(b.op.Key()), cmp.Compare(a.phase, b.phase), compareIfDestinations(a.op, b.op))
	})
	if len(steps) == 0 {
		return nil
	}
	ops := make([]Op, len(steps))
	for i, s := range steps {
		ops[i] = s.op
	}
	return ops
}

// compareIfDestinations is 0 for operations on anything else.
func compareIfDestinations(a, b Op) int {
	x, isDestination := a.(DestinationChange)
	y, both := b.(DestinationChange)
	if !isDestination || !both {
		return 0
	}
	return compareDestinations(x.Entry, y.Entry)
}

// appendChanges adds, in the order of compare, what differs between two maps.
func appendChanges[K entry, V comparable](
	steps []step, have, want map[K]V, compare func(a, b K) int, phaseOf func(Verb, K) phase,
) []step {
	for _, k := range slices.SortedFunc(maps.Keys(want), compare) {
		verb := Add
		if was, ok := have[k]; ok {
			if was == want[k] {
				continue
			}
			verb = Set
		}
		steps = append(steps, step{phaseOf(verb, k), Change[K, V]{verb, k, want[k]}})
	}
	for _, k := range slices.SortedFunc(maps.Keys(have), compare) {
		if _, keep := want[k]; !keep {
			steps = append(steps, step{phaseOf(Del, k), Change[K, V]{Del, k, have[k]}})
		}
	}
	return steps
}

// guardPhase places the guard's entries, which need to know what the kernel has
// and what stays in it.
func guardPhase(have, want State) func(Verb, GuardKey) phase {
	return func(verb Verb, k GuardKey) phase {
		switch {
		case !k.isService() && verb == Del:
			if _, stays := want.Addresses[AddressKey{Link: DummyLink, Addr: k.VIP}]; stays {
				return guardLeaves
			}
			return guardDropsNoMore
		case !k.isService():
			return guardDrops
		case k.Marked:
			return pick(verb != Del && have.Serves(k) && want.Serves(k), guardRemarks, guardMarks)
		case verb == Del:
			return guardCloses
		}
		return pick(have.Serves(k) && want.Serves(k), guardReopens, guardOpens)
	}
}

// destinationPhase places destinations, those that are to get no new connections
// any more behind those that are.
func destinationPhase(want State) func(Verb, DestinationKey) phase {
	return func(verb Verb, k DestinationKey) phase {
		switch {
		case verb == Del:
			return destinationOut
		case verb == Set && want.Destinations[k].Weight == 0:
			return destinationQuiet
		default:
			return destinationIn
		}
	}
}

func addressPhase(verb Verb, k AddressKey) phase {
	if k.Link == DummyLink {
		return pick(verb == Del, addressOut, addressIn)
	}
	return pick(verb == Del, kernelStopsAnswering, kernelAnswers)
}

func pick(condition bool, yes, no phase) phase {
	if condition {
		return yes
	}
	return no
}

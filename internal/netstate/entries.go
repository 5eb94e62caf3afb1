package netstate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// unit returns the key that the address belongs to.
func (k AddressKey) unit() Key { return Key{Addr: k.Addr} }

// String returns the entry as the text form writes it.
func (k AddressKey) String() string { return fmt.Sprintf("address %s dev %s", k.Addr, k.Link) }

func compareAddresses(a, b AddressKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Link, b.Link))
}

// unit returns the key that the service belongs to.
func (k ServiceKey) unit() Key { return k.Key }

// String returns the entry as the text form writes it.
func (k ServiceKey) String() string { return "service " + k.name() }

// name is protocol, address and port, or the mark alone.
func (k ServiceKey) name() string {
	if k.Key.Mark != 0 {
		return "fwmark " + strconv.FormatUint(uint64(k.Key.Mark), 10)
	}
	return markedName(k.Marked) + protocolName(k.Protocol) + " " + netip.AddrPortFrom(k.Key.Addr, k.Port).String()
}

func markedName(marked bool) string {
	if marked {
		return "marked "
	}
	return ""
}

func compareMarked(a, b bool) int {
	return cmp.Compare(len(markedName(a)), len(markedName(b)))
}

// protocolName is one word, unlike Protocol.String of an unknown protocol.
func protocolName(p Protocol) string {
	return strings.ReplaceAll(p.String(), " ", "-")
}

func compareServices(a, b ServiceKey) int {
	return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		compareMarked(a.Marked, b.Marked))
}

// unit returns the key that the destination belongs to.
func (k DestinationKey) unit() Key { return k.Service.Key }

// String returns the entry as the text form writes it.
func (k DestinationKey) String() string {
	return "destination " + k.Service.name() + " " + netip.AddrPortFrom(k.Addr, k.Port).String()
}

func compareDestinations(a, b DestinationKey) int {
	return cmp.Or(compareServices(a.Service, b.Service), a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
}

// isService says whether the entry lets a service through, rather than drop
// what is none.
func (k GuardKey) isService() bool { return k.Protocol != 0 || k.Port != 0 }

// unit returns the key that the guard's entry belongs to.
func (k GuardKey) unit() Key { return Key{Addr: k.VIP} }

// String returns the entry as the text form writes it.
func (k GuardKey) String() string {
	if !k.isService() {
		return "guard " + k.VIP.String()
	}
	return "guard " + markedName(k.Marked) + protocolName(k.Protocol) + " " + netip.AddrPortFrom(k.VIP, k.Port).String()
}

// service returns the service that an entry of the guard marks packets for, or
// the unmarked one that it lets through.
func (k GuardKey) service() ServiceKey {
	return ServiceKey{Key: Key{Addr: k.VIP}, Protocol: k.Protocol, Port: k.Port, Marked: k.Marked}
}

// Serves says whether the state has a service behind an entry of the guard: the
// marked one for an entry that marks, either for one that lets through.
func (s State) Serves(k GuardKey) bool {
	service := k.service()
	_, there := s.Services[service]
	if !there && !k.Marked {
		service.Marked = true
		_, there = s.Services[service]
	}
	return there
}

func compareGuard(a, b GuardKey) int {
	return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
		compareMarked(a.Marked, b.Marked))
}

// Keys returns the keys that have an entry in the state, in the order of
// Key.Compare.
func (s State) Keys() []Key {
	set := map[Key]bool{}
	collectKeys(set, s.Guard)
	collectKeys(set, s.Addresses)
	collectKeys(set, s.Services)
	collectKeys(set, s.Destinations)
	return slices.SortedFunc(maps.Keys(set), Key.Compare)
}

func collectKeys[K entry, V any](set map[Key]bool, entries map[K]V) {
	for k := range entries {
		set[k.unit()] = true
	}
}

// Of returns a copy of the part of the state that belongs to key.
func (s State) Of(key Key) State {
	keep := func(k Key) bool { return k == key }
	return State{
		Guard:        filter(s.Guard, keep),
		Addresses:    filter(s.Addresses, keep),
		Services:     filter(s.Services, keep),
		Destinations: filter(s.Destinations, keep),
	}
}

// Clone returns a copy that shares nothing with the state.
func (s State) Clone() State {
	all := func(Key) bool { return true }
	return State{
		Guard:        filter(s.Guard, all),
		Addresses:    filter(s.Addresses, all),
		Services:     filter(s.Services, all),
		Destinations: filter(s.Destinations, all),
	}
}

func filter[K entry, V any](entries map[K]V, keep func(Key) bool) map[K]V {
	kept := map[K]V{}
	for k, v := range entries {
		if keep(k.unit()) {
			kept[k] = v
		}
	}
	return kept
}

// Perform does to the state what op does to a kernel, so that a model can be
// kept of one. It checks nothing: a kernel refuses a destination without its
// service, Perform does not.
func (s State) Perform(op Op) {
	switch c := op.(type) {
	case GuardChange:
		perform(s.Guard, c)
	case AddressChange:
		perform(s.Addresses, c)
	case ServiceChange:
		perform(s.Services, c)
	case DestinationChange:
		perform(s.Destinations, c)
	}
}

func perform[K entry, V comparable](entries map[K]V, c Change[K, V]) {
	if c.Verb == Del {
		delete(entries, c.Entry)
		return
	}
	entries[c.Entry] = c.Value
}

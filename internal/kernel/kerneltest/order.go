package kerneltest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// orderOf returns the destinations of a service in the order in which they were
// added; those that somebody else put in (Meddle) come last.
func (f *Fake) orderOf(service netstate.ServiceKey) []netstate.DestinationKey {
	var order []netstate.DestinationKey
	for _, k := range f.order[service] {
		if _, there := f.state.Destinations[k]; there {
			order = append(order, k)
		}
	}
	others := maps.Clone(f.state.Destinations)
	maps.DeleteFunc(others, func(k netstate.DestinationKey, _ netstate.Destination) bool {
		return k.Service != service || slices.Contains(order, k)
	})
	return append(order, slices.SortedFunc(maps.Keys(others), func(a, b netstate.DestinationKey) int {
		return a.Addr.Compare(b.Addr)
	})...)
}

// reorder does to the order what op is about to do to the kernel.
func (f *Fake) reorder(op netstate.Op) {
	switch change := op.(type) {
	case netstate.ServiceChange:
		if change.Verb == netstate.Del {
			delete(f.order, change.Entry)
		}
	case netstate.DestinationChange:
		k := change.Entry
		order := f.orderOf(k.Service)
		at := slices.Index(order, k)
		if at >= 0 && (change.Verb == netstate.Del || change.Verb == netstate.Move) {
			order, at = slices.Delete(order, at, at+1), -1
		}
		if at < 0 && change.Verb != netstate.Del {
			order = append(order, k)
		}
		f.order[k.Service] = order
	}
}

// keepsOrder brings a service to have its destinations in canonical order,
// whatever was there before.
func keepsOrder(t *testing.T, s *subject) {
	s.prepare(t)
	const before = `
guard 192.0.2.1
address 192.0.2.1 dev dummy-lvs
service TCP 192.0.2.1:80 mh flags 0x8
destination TCP 192.0.2.1:80 10.0.0.3:80 DR weight 1
destination TCP 192.0.2.1:80 10.0.0.9:80 DR weight 0 last 7
`
	steps := []string{
		before,
		before + "destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 2\ndestination TCP 192.0.2.1:80 10.0.0.8:80 TUN weight 0 last 3\n",
		before + "destination TCP 192.0.2.1:80 10.0.0.1:80 DR weight 2 upper 9\n",
		before,
	}
	for _, text := range steps {
		want := Parse(t, text)
		key := want.Keys()[0]
		seen, err := s.Observe(context.Background(), key)
		if err != nil {
			t.Fatalf("Observe(%s) = %v", key, err)
		}
		for _, op := range seen.Diff(want) {
			if err := s.Apply(context.Background(), op); err != nil {
				t.Fatalf("Apply(%s) = %v", op, err)
			}
		}
		s.holds(t, want)
		seen, err = s.Observe(context.Background(), key)
		if err != nil {
			t.Fatalf("Observe(%s) = %v", key, err)
		}
		if ops := seen.Diff(want); len(ops) > 0 {
			t.Fatalf("there is more to do: %v; the order is %v", ops, seen.Order)
		}
		for _, order := range seen.Order {
			inOrder := slices.IsSortedFunc(order, func(a, b netstate.DestinationKey) int { return a.Addr.Compare(b.Addr) })
			if !inOrder || len(order) != len(want.Destinations) {
				t.Fatalf("the order is %v", order)
			}
		}
	}
}

// Package kerneltest helps to test what works on a kernel: a fake of package
// kernel's client, a wrapper that makes any client fail, and the contract that
// the fake and the real kernel both keep.
package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Kernel is what the contract is about; kernel.Client is one.
type Kernel interface {
	Prepare(context.Context, netstate.Node) error
	Restore(context.Context) error
	Keys(context.Context) ([]netstate.Key, error)
	Observe(context.Context, netstate.Key) (netstate.Observation, error)
	Apply(context.Context, netstate.Op) error
}

// ContractNode is the node that Contract prepares: what newClient returns must
// have that interface.
var ContractNode = netstate.Node{Interface: "eth0", Guard: true}

// Contract checks what every Kernel promises. newClient returns a client of a
// network namespace in which nothing of ours is and nothing is prepared, another
// one for each call.
func Contract(t *testing.T, newClient func(t *testing.T) Kernel) {
	tests := map[string]func(*testing.T, *subject){
		"what is applied is observed":                         observesWhatIsApplied,
		"everything can be applied twice":                     appliesTwice,
		"an edit of what is not there adds it":                editAdds,
		"entries are edited in place":                         editsInPlace,
		"a destination without a service fails":               orphanFails,
		"a service takes its destinations along":              serviceTakesDestinations,
		"an unknown scheduler is named":                       unknownScheduler,
		"a guard that was not prepared takes no entry":        unpreparedGuard,
		"a link that does not exist is named":                 missingLink,
		"a context that is done does nothing":                 doneContext,
		"keys are what is owned":                              ownsKeys,
		"restoring leaves nothing":                            restores,
		"preparing again changes nothing":                     preparesAgain,
		"interfaces that do not exist are passed over":        passesOverLinks,
		"any state follows any other":                         anyTransition,
		"keys may be worked on at once":                       worksAtOnce,
		"a firewall mark is a key like a VIP":                 marks,
		"destinations are in canonical order for mh":          keepsOrder,
		"thresholds the wrong way round, or a weight too big": refusesNumbers,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			tests[name](t, &subject{Kernel: newClient(t)})
		})
	}
}

// subject is a kernel with the checks that all tests need.
type subject struct{ Kernel }

// errorf is what checks need of *testing.T and *rapid.T.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func (s *subject) prepare(t fataler) {
	t.Helper()
	if err := s.Prepare(context.Background(), ContractNode); err != nil {
		t.Fatalf("Prepare() = %v", err)
	}
}

// bring applies what leads from have to want.
func (s *subject) bring(t fataler, have, want netstate.State) {
	t.Helper()
	for _, op := range netstate.Diff(have, want) {
		if err := s.Apply(context.Background(), op); err != nil {
			t.Fatalf("Apply(%s) = %v", op, err)
		}
	}
}

// holds checks that the kernel holds exactly want.
func (s *subject) holds(t fataler, want netstate.State, keys ...netstate.Key) {
	t.Helper()
	for _, key := range append(want.Keys(), keys...) {
		got, err := s.Observe(context.Background(), key)
		if err != nil {
			t.Fatalf("Observe(%s) = %v", key, err)
		}
		if diff := cmp.Diff(want.Of(key), got.State, equal...); diff != "" {
			t.Fatalf("the kernel holds something else of %s (-want +got):\n%s", key, diff)
		}
		for k := range got.Destinations {
			if _, ok := got.Connections[k]; !ok {
				t.Fatalf("no connection counts of %s", k)
			}
		}
	}
}

var equal = []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}

// Parse makes a state of its text form, or ends the test.
func Parse(t testing.TB, text string) netstate.State {
	t.Helper()
	var s netstate.State
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// contractState has every kind of entry.
const contractState = `
guard 192.0.2.1
guard TCP 192.0.2.1:80
guard UDP 192.0.2.1:53
guard SCTP 192.0.2.1:9
guard 2001:db8::1
guard TCP [2001:db8::1]:443
guard TCP 192.0.2.1:443
guard marked TCP 192.0.2.1:443
guard UDP [2001:db8::1]:443
guard marked UDP [2001:db8::1]:443
address 192.0.2.1 dev dummy-lvs src 198.51.100.2
address 192.0.2.1 dev eth0
address 2001:db8::1 dev dummy-lvs
address 2001:db8::1 dev eth0
service TCP 192.0.2.1:80 wrr persistence 300 prefix 24
service UDP 192.0.2.1:53 rr one-packet
service SCTP 192.0.2.1:9 wlc
service TCP [2001:db8::1]:443 sh flags 0x18 persistence 60 prefix 64
service TCP 192.0.2.1:443 wlc
service marked TCP 192.0.2.1:443 wrr persistence 60 prefix 24
service marked UDP [2001:db8::1]:443 rr one-packet
destination TCP 192.0.2.1:443 10.0.0.7:443 DR weight 0
destination marked TCP 192.0.2.1:443 10.0.0.7:443 DR weight 1
destination marked TCP 192.0.2.1:443 10.0.0.8:443 DR weight 3 upper 9
destination marked UDP [2001:db8::1]:443 [2001:db8::7]:443 DR weight 2
service TCP 192.0.2.1:8443 mh flags 0x8
destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1
destination TCP 192.0.2.1:80 10.0.0.8:80 TUN weight 65535 upper 100 lower 50
destination TCP 192.0.2.1:80 10.0.0.9:8080 NAT weight 0
destination UDP 192.0.2.1:53 10.0.0.7:53 DR weight 1
destination TCP [2001:db8::1]:443 [2001:db8::7]:443 DR weight 2
destination TCP 192.0.2.1:8443 10.0.0.7:8443 DR weight 3
destination TCP 192.0.2.1:8443 10.0.0.8:8443 DR weight 0 last 3
`

func observesWhatIsApplied(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, contractState)
	s.holds(t, netstate.New(), want.Keys()...)
	s.bring(t, netstate.New(), want)
	s.holds(t, want)
	s.bring(t, want, netstate.New())
	s.holds(t, netstate.New(), want.Keys()...)
}

func appliesTwice(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, contractState)
	s.bring(t, netstate.New(), want)
	s.bring(t, netstate.New(), want)
	s.holds(t, want)
	s.bring(t, want, netstate.New())
	s.bring(t, want, netstate.New())
	s.holds(t, netstate.New(), want.Keys()...)
}

func editAdds(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, contractState)
	for _, op := range netstate.Diff(netstate.New(), want) {
		if err := s.Apply(context.Background(), asSet(op)); err != nil {
			t.Fatalf("Apply(%s) = %v", asSet(op), err)
		}
	}
	s.holds(t, want)
}

func asSet(op netstate.Op) netstate.Op {
	switch c := op.(type) {
	case netstate.GuardChange:
		c.Verb = netstate.Set
		return c
	case netstate.AddressChange:
		c.Verb = netstate.Set
		return c
	case netstate.ServiceChange:
		c.Verb = netstate.Set
		return c
	case netstate.DestinationChange:
		c.Verb = netstate.Set
		return c
	}
	return op
}

func editsInPlace(t *testing.T, s *subject) {
	s.prepare(t)
	have := Parse(t, contractState)
	s.bring(t, netstate.New(), have)
	for k, v := range have.Services {
		want := have.Clone()
		v.Scheduler, v.Flags, v.Persistence, v.OnePacket = "mh", netstate.Port, 90*time.Second, false
		want.Services[k] = v
		s.bring(t, have, want)
		s.holds(t, want)
		have = want
	}
	for k, v := range have.Destinations {
		want := have.Clone()
		v.Weight, v.LastWeight, v.Upper, v.Lower = v.Weight/2+3, 0, 9, 7
		want.Destinations[k] = v
		s.bring(t, have, want)
		s.holds(t, want)
		have = want
	}
	for k, v := range have.Addresses {
		if k.Addr.Is6() || k.Link != netstate.DummyLink {
			continue
		}
		want := have.Clone()
		v.Source = netip.MustParseAddr("198.51.100.3")
		want.Addresses[k] = v
		s.bring(t, have, want)
		s.holds(t, want)
		v.Source = netip.Addr{}
		last := want.Clone()
		last.Addresses[k] = v
		s.bring(t, want, last)
		s.holds(t, last)
		have = last
	}
}

func orphanFails(t *testing.T, s *subject) {
	s.prepare(t)
	for _, op := range netstate.Diff(netstate.New(), Parse(t, "destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1")) {
		if err := s.Apply(context.Background(), op); err == nil {
			t.Errorf("Apply(%s) succeeds without the service", op)
		}
		if err := s.Apply(context.Background(), asSet(op)); err == nil {
			t.Errorf("Apply(%s) succeeds without the service", asSet(op))
		}
	}
}

func serviceTakesDestinations(t *testing.T, s *subject) {
	s.prepare(t)
	have := Parse(t, contractState)
	s.bring(t, netstate.New(), have)
	for k, v := range have.Services {
		if err := s.Apply(context.Background(), netstate.ServiceChange{Verb: netstate.Del, Entry: k, Value: v}); err != nil {
			t.Fatalf("deleting %s: %v", k, err)
		}
	}
	clear(have.Services)
	clear(have.Destinations)
	s.holds(t, have)
}

func unknownScheduler(t *testing.T, s *subject) {
	s.prepare(t)
	have := Parse(t, contractState)
	s.bring(t, netstate.New(), have)
	for k, v := range have.Services {
		v.Scheduler = "twos"
		for _, verb := range []netstate.Verb{netstate.Add, netstate.Set} {
			err := s.Apply(context.Background(), netstate.ServiceChange{Verb: verb, Entry: k, Value: v})
			var missing kernel.SchedulerUnavailable
			if !errors.As(err, &missing) || missing.Name != "twos" {
				t.Errorf("%s %s with scheduler twos = %v, want SchedulerUnavailable", verb, k, err)
			}
		}
	}
	s.holds(t, have)
}

func unpreparedGuard(t *testing.T, s *subject) {
	node := ContractNode
	node.Guard = false
	if err := s.Prepare(context.Background(), node); err != nil {
		t.Fatalf("Prepare() = %v", err)
	}
	op := netstate.GuardChange{Verb: netstate.Add, Entry: netstate.GuardKey{VIP: netip.MustParseAddr("192.0.2.1")}}
	if err := s.Apply(context.Background(), op); !errors.Is(err, kernel.ErrUnsupported) {
		t.Errorf("Apply(%s) = %v, want ErrUnsupported", op, err)
	}
	op.Verb = netstate.Del
	if err := s.Apply(context.Background(), op); err != nil {
		t.Errorf("Apply(%s) = %v", op, err)
	}
}

func missingLink(t *testing.T, s *subject) {
	if err := s.Prepare(context.Background(), netstate.Node{Interface: "eth7"}); !errors.Is(err, kernel.ErrNoLink) {
		t.Errorf("Prepare() = %v, want ErrNoLink", err)
	}
	vip := netip.MustParseAddr("192.0.2.1")
	for _, link := range []string{netstate.DummyLink, "eth7"} {
		op := netstate.AddressChange{Verb: netstate.Add, Entry: netstate.AddressKey{Link: link, Addr: vip}}
		if err := s.Apply(context.Background(), op); !errors.Is(err, kernel.ErrNoLink) {
			t.Errorf("Apply(%s) = %v, want ErrNoLink", op, err)
		}
		op.Verb = netstate.Del
		if err := s.Apply(context.Background(), op); err != nil {
			t.Errorf("Apply(%s) = %v", op, err)
		}
	}
}

func doneContext(t *testing.T, s *subject) {
	s.prepare(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	want := Parse(t, contractState)
	for _, op := range netstate.Diff(netstate.New(), want) {
		if err := s.Apply(ctx, op); !errors.Is(err, context.Canceled) {
			t.Errorf("Apply(%s) = %v, want context.Canceled", op, err)
		}
	}
	if _, err := s.Observe(ctx, want.Keys()[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("Observe() = %v, want context.Canceled", err)
	}
	if _, err := s.Keys(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Keys() = %v, want context.Canceled", err)
	}
	s.holds(t, netstate.New(), want.Keys()...)
}

func ownsKeys(t *testing.T, s *subject) {
	s.prepare(t)
	s.owns(t)
	want := Parse(t, contractState)
	s.bring(t, netstate.New(), want)
	s.owns(t, want.Keys()...)
	s.holds(t, want)
	key := want.Keys()[0]
	s.bring(t, want.Of(key), netstate.New())
	s.owns(t, want.Keys()[1:]...)
}

func (s *subject) owns(t fataler, want ...netstate.Key) {
	t.Helper()
	got, err := s.Keys(context.Background())
	if err != nil {
		t.Fatalf("Keys() = %v", err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("Keys() = %v, want %v", got, want)
	}
}

func restores(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, contractState)
	s.bring(t, netstate.New(), want)
	for range 2 {
		if err := s.Restore(context.Background()); err != nil {
			t.Fatalf("Restore() = %v", err)
		}
		s.owns(t)
		s.holds(t, netstate.New(), want.Keys()...)
	}
	s.prepare(t)
	s.bring(t, netstate.New(), want)
	s.holds(t, want)
}

func preparesAgain(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, contractState)
	s.bring(t, netstate.New(), want)
	s.prepare(t)
	s.holds(t, want)
}

func passesOverLinks(t *testing.T, s *subject) {
	node := ContractNode
	for _, links := range [][]string{{"veth-gone", "veth-new"}, {"veth-new"}, nil} {
		node.Links = links
		if err := s.Prepare(context.Background(), node); err != nil {
			t.Fatalf("Prepare() with %v = %v", links, err)
		}
	}
	want := Parse(t, contractState)
	s.bring(t, netstate.New(), want)
	s.holds(t, want)
}

func marks(t *testing.T, s *subject) {
	s.prepare(t)
	want := Parse(t, "service fwmark 7 wrr persistence 60\ndestination fwmark 7 10.0.0.7:0 DR weight 1")
	s.bring(t, netstate.New(), want)
	s.holds(t, want)
	s.bring(t, want, netstate.New())
	s.holds(t, netstate.New(), want.Keys()...)
}

func refusesNumbers(t *testing.T, s *subject) {
	s.prepare(t)
	have := Parse(t, contractState)
	s.bring(t, netstate.New(), have)
	for k := range have.Destinations {
		for name, v := range map[string]netstate.Destination{
			"weight":     {Method: netstate.DR, Weight: 65536},
			"last":       {Method: netstate.DR, LastWeight: 65536},
			"thresholds": {Method: netstate.DR, Weight: 1, Upper: 1, Lower: 2},
		} {
			if err := s.Apply(context.Background(), netstate.DestinationChange{Verb: netstate.Set, Entry: k, Value: v}); err == nil {
				t.Errorf("%s of %s is taken", name, k)
			}
		}
	}
	s.holds(t, have)
}

func anyTransition(t *testing.T, s *subject) {
	s.prepare(t)
	have := netstate.New()
	rapid.Check(t, func(t *rapid.T) {
		want := StateGen().Draw(t, "want")
		s.bring(t, have, want)
		s.holds(t, want, have.Keys()...)
		have = want
	})
}

func worksAtOnce(t *testing.T, s *subject) {
	s.prepare(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			vip := fmt.Sprintf("192.0.2.%d", i+1)
			want := Parse(t, fmt.Sprintf("guard %[1]s\nguard TCP %[1]s:80\naddress %[1]s dev dummy-lvs\nservice TCP %[1]s:80 rr\n"+
				"destination TCP %[1]s:80 10.0.0.7:80 DR weight 1\ndestination TCP %[1]s:80 10.0.0.8:80 DR weight 1", vip))
			for range 5 {
				s.bring(errorsOnly{t}, netstate.New(), want)
				s.holds(errorsOnly{t}, want)
				s.bring(errorsOnly{t}, want, netstate.New())
			}
		})
	}
	all.Wait()
}

// errorsOnly reports failures of a goroutine that must not end its test.
type errorsOnly struct{ testing.TB }

func (e errorsOnly) Fatalf(format string, args ...any) {
	e.Helper()
	e.Errorf(format, args...)
}

package netstate

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is a kernel that keeps the order in which destinations were added.
type model struct {
	State
	order map[ServiceKey][]DestinationKey
}

func (m *model) perform(op Op) {
	m.Perform(op)
	change, isDestination := op.(DestinationChange)
	if !isDestination {
		return
	}
	k := change.Entry
	if change.Verb != Set {
		m.order[k.Service] = slices.DeleteFunc(m.order[k.Service], func(d DestinationKey) bool { return d == k })
	}
	if change.Verb == Add || change.Verb == Move {
		m.order[k.Service] = append(m.order[k.Service], k)
	}
}

func (m *model) observe() Observation { return Observation{State: m.State, Order: m.order} }

// orderedGen makes states of one VIP with two services, the first of which is
// mostly Ordered.
func orderedGen() *rapid.Generator[State] {
	return rapid.Custom(func(t *rapid.T) State {
		s := New()
		for port := range uint16(2) {
			k := ServiceKey{Key: Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: TCP, Port: port + 1}
			if rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
				continue
			}
			scheduler := rapid.SampledFrom([]string{"mh", "mh", "wrr"}).Draw(t, "scheduler")
			s.Services[k] = Service{Scheduler: scheduler, PersistencePrefix: 32}
			for _, host := range rapid.SliceOfNDistinct(rapid.ByteRange(1, 9), 0, 6, rapid.ID).Draw(t, "servers") {
				d := DestinationKey{k, netip.AddrFrom4([4]byte{10, 0, 0, host}), k.Port}
				s.Destinations[d] = Destination{Method: DR, Weight: rapid.Uint32Range(0, 2).Draw(t, "weight")}
			}
		}
		return s
	})
}

func TestWhateverHappenedTheOrderIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{New(), map[ServiceKey][]DestinationKey{}}
		for range 4 {
			want := orderedGen().Draw(t, "want")
			failed := rapid.IntRange(-5, 10).Draw(t, "what fails and all behind it")
			for i, op := range m.observe().Diff(want) {
				if i == failed {
					break
				}
				m.perform(op)
			}
			for _, op := range m.observe().Diff(want) {
				m.perform(op)
			}
			if diff := cmp.Diff(want, m.State, equateAddrs); diff != "" {
				t.Fatalf("the state is not what is wanted (-want +got):\n%s", diff)
			}
			for service, order := range m.order {
				if want.Services[service].Ordered() && !slices.IsSortedFunc(order, compareDestinations) {
					t.Fatalf("the order of %s is %v", service, order)
				}
			}
			if ops := m.observe().Diff(want); len(ops) > 0 {
				t.Fatalf("there is more to do: %v", ops)
			}
		}
	})
}

func TestOnlyWhatIsBehindMoves(t *testing.T) {
	const service = "service TCP 192.0.2.1:80 mh\n"
	destination := func(host string) string { return "destination TCP 192.0.2.1:80 10.0.0." + host + ":80 DR weight 1\n" }
	cases := map[string]struct {
		// added is the order in which destinations were added.
		added   []string
		service string
		want    string
		wantOps []string
	}{
		"the order is canonical": {
			added: []string{"1", "2", "3"},
			want:  destination("1") + destination("2") + destination("3"),
		},
		"a server is added last": {
			added:   []string{"1", "2"},
			want:    destination("1") + destination("2") + destination("3"),
			wantOps: []string{"add destination TCP 192.0.2.1:80 10.0.0.3:80"},
		},
		"a server is added between others": {
			added: []string{"1", "3", "10"},
			want:  destination("1") + destination("2") + destination("3") + destination("10"),
			wantOps: []string{
				"add destination TCP 192.0.2.1:80 10.0.0.2:80",
				"move destination TCP 192.0.2.1:80 10.0.0.3:80",
				"move destination TCP 192.0.2.1:80 10.0.0.10:80",
			},
		},
		"a server is removed": {
			added:   []string{"1", "2", "3"},
			want:    destination("1") + destination("3"),
			wantOps: []string{"del destination TCP 192.0.2.1:80 10.0.0.2:80"},
		},
		"one is out of place, and goes to weight 0": {
			added: []string{"3", "1", "2"},
			want:  destination("1") + destination("2") + "destination TCP 192.0.2.1:80 10.0.0.3:80 DR weight 0 last 1",
			wantOps: []string{
				"move destination TCP 192.0.2.1:80 10.0.0.3:80",
				"set destination TCP 192.0.2.1:80 10.0.0.3:80",
			},
		},
		"the scheduler goes by no order": {
			added:   []string{"3", "1", "2"},
			service: "service TCP 192.0.2.1:80 wrr\n",
			want:    destination("1") + destination("2") + destination("3"),
		},
		"the order was not seen": {
			want: destination("1") + destination("2") + destination("3"),
			wantOps: []string{
				"add destination TCP 192.0.2.1:80 10.0.0.1:80",
				"add destination TCP 192.0.2.1:80 10.0.0.2:80",
				"add destination TCP 192.0.2.1:80 10.0.0.3:80",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			head := service
			if tc.service != "" {
				head = tc.service
			}
			have := Observation{State: parse(t, head), Order: map[ServiceKey][]DestinationKey{}}
			for _, host := range tc.added {
				for k, v := range parse(t, head+destination(host)).Destinations {
					have.Destinations[k] = v
					have.Order[k.Service] = append(have.Order[k.Service], k)
				}
			}
			var got []string
			for _, op := range have.Diff(parse(t, head+tc.want)) {
				got = append(got, op.String())
			}
			if diff := cmp.Diff(tc.wantOps, got); diff != "" {
				t.Errorf("Diff() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsStateless(t *testing.T) {
	for text, want := range map[string][2]bool{
		"service TCP 192.0.2.1:80 mh":                 {true, true},
		"service TCP 192.0.2.1:80 mh persistence 300": {true, false},
		"service TCP 192.0.2.1:80 wrr":                {false, false},
		"service TCP 192.0.2.1:80 sh":                 {false, false},
	} {
		for _, s := range parse(t, text).Services {
			if got := [2]bool{s.Ordered(), s.Stateless()}; got != want {
				t.Errorf("%s: ordered and stateless are %v, want %v", text, got, want)
			}
		}
	}
}

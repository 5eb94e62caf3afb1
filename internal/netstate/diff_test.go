package netstate

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// parse makes a state of its text form.
func parse(t *testing.T, text string) State {
	t.Helper()
	var s State
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

const (
	webGuard = "guard 192.0.2.1\nguard TCP 192.0.2.1:80\n"
	webVIP   = "address 192.0.2.1 dev dummy-lvs src 10.0.0.2\n"
	webTable = "service TCP 192.0.2.1:80 wrr\ndestination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1\n"
	web      = webGuard + webVIP + webTable

	markedTable = "service marked TCP 192.0.2.1:80 wrr\ndestination marked TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1\n"
	markedWeb   = webGuard + "guard marked TCP 192.0.2.1:80\n" + webVIP + markedTable
)

func TestDiff(t *testing.T) {
	cases := map[string]struct {
		have, want string
		wantOps    []string
	}{
		"nothing to do": {have: web, want: web},
		"a VIP comes: guard, address, service, destination, then it is let through": {
			want: web,
			wantOps: []string{
				"add guard 192.0.2.1",
				"add address 192.0.2.1 dev dummy-lvs",
				"add service TCP 192.0.2.1:80",
				"add destination TCP 192.0.2.1:80 10.0.0.7:80",
				"add guard TCP 192.0.2.1:80",
			},
		},
		"a VIP goes: the reverse": {
			have: web,
			wantOps: []string{
				"del guard TCP 192.0.2.1:80",
				"del destination TCP 192.0.2.1:80 10.0.0.7:80",
				"del service TCP 192.0.2.1:80",
				"del address 192.0.2.1 dev dummy-lvs",
				"del guard 192.0.2.1",
			},
		},
		"the kernel answers last of all": {
			want: web + "address 192.0.2.1 dev eth0\n",
			wantOps: []string{
				"add guard 192.0.2.1",
				"add address 192.0.2.1 dev dummy-lvs",
				"add service TCP 192.0.2.1:80",
				"add destination TCP 192.0.2.1:80 10.0.0.7:80",
				"add guard TCP 192.0.2.1:80",
				"add address 192.0.2.1 dev eth0",
			},
		},
		"the kernel stops answering first of all": {
			have: web + "address 192.0.2.1 dev eth0\n",
			wantOps: []string{
				"del address 192.0.2.1 dev eth0",
				"del guard TCP 192.0.2.1:80",
				"del destination TCP 192.0.2.1:80 10.0.0.7:80",
				"del service TCP 192.0.2.1:80",
				"del address 192.0.2.1 dev dummy-lvs",
				"del guard 192.0.2.1",
			},
		},
		"draining edits the destination alone": {
			have:    web,
			want:    webGuard + webVIP + "service TCP 192.0.2.1:80 wrr\ndestination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 0\n",
			wantOps: []string{"set destination TCP 192.0.2.1:80 10.0.0.7:80"},
		},
		"another scheduler edits the service alone": {
			have:    web,
			want:    webGuard + webVIP + "service TCP 192.0.2.1:80 mh\ndestination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1\n",
			wantOps: []string{"set service TCP 192.0.2.1:80"},
		},
		"a server is replaced: the new one is in before the old one goes": {
			have: web,
			want: webGuard + webVIP + "service TCP 192.0.2.1:80 wrr\ndestination TCP 192.0.2.1:80 10.0.0.9:80 DR weight 1\n",
			wantOps: []string{
				"add destination TCP 192.0.2.1:80 10.0.0.9:80",
				"del destination TCP 192.0.2.1:80 10.0.0.7:80",
			},
		},
		"a server steps in for others: it is in before they are at weight 0": {
			have: web + "destination TCP 192.0.2.1:80 10.0.0.8:80 DR weight 1\n",
			want: webGuard + webVIP + `service TCP 192.0.2.1:80 wrr
destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 0
destination TCP 192.0.2.1:80 10.0.0.9:80 DR weight 1
`,
			wantOps: []string{
				"add destination TCP 192.0.2.1:80 10.0.0.9:80",
				"set destination TCP 192.0.2.1:80 10.0.0.7:80",
				"del destination TCP 192.0.2.1:80 10.0.0.8:80",
			},
		},
		"and leaves when they have their weight again": {
			have: webGuard + webVIP + `service TCP 192.0.2.1:80 wrr
destination TCP 192.0.2.1:80 10.0.0.5:80 DR weight 1
destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 0
`,
			want: webGuard + webVIP + `service TCP 192.0.2.1:80 wrr
destination TCP 192.0.2.1:80 10.0.0.5:80 DR weight 0
destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1
`,
			wantOps: []string{
				"set destination TCP 192.0.2.1:80 10.0.0.7:80",
				"set destination TCP 192.0.2.1:80 10.0.0.5:80",
			},
		},
		"servers are added in order of address, then port": {
			have: web,
			want: web + `destination TCP 192.0.2.1:80 10.0.0.10:80 DR weight 1
destination TCP 192.0.2.1:80 10.0.0.9:80 DR weight 1
destination TCP 192.0.2.1:80 10.0.0.9:8 DR weight 1
`,
			wantOps: []string{
				"add destination TCP 192.0.2.1:80 10.0.0.9:8",
				"add destination TCP 192.0.2.1:80 10.0.0.9:80",
				"add destination TCP 192.0.2.1:80 10.0.0.10:80",
			},
		},
		"a flushed guard lets what works through before it drops the rest": {
			have:    webVIP + webTable,
			want:    web,
			wantOps: []string{"add guard TCP 192.0.2.1:80", "add guard 192.0.2.1"},
		},
		"a guard that is not wanted any more stops dropping first": {
			have:    web,
			want:    webVIP + webTable,
			wantOps: []string{"del guard 192.0.2.1", "del guard TCP 192.0.2.1:80"},
		},
		"a marked service comes: its packets are marked before they are let through": {
			have: "guard 192.0.2.1\n" + webVIP,
			want: markedWeb,
			wantOps: []string{
				"add service marked TCP 192.0.2.1:80",
				"add destination marked TCP 192.0.2.1:80 10.0.0.7:80",
				"add guard marked TCP 192.0.2.1:80",
				"add guard TCP 192.0.2.1:80",
			},
		},
		"a marked service goes: the reverse": {
			have: markedWeb,
			want: "guard 192.0.2.1\n" + webVIP,
			wantOps: []string{
				"del guard TCP 192.0.2.1:80",
				"del guard marked TCP 192.0.2.1:80",
				"del destination marked TCP 192.0.2.1:80 10.0.0.7:80",
				"del service marked TCP 192.0.2.1:80",
			},
		},
		"a service becomes marked: the new one is whole before the old one goes": {
			have: web,
			want: markedWeb,
			wantOps: []string{
				"add service marked TCP 192.0.2.1:80",
				"add destination marked TCP 192.0.2.1:80 10.0.0.7:80",
				"add guard marked TCP 192.0.2.1:80",
				"del destination TCP 192.0.2.1:80 10.0.0.7:80",
				"del service TCP 192.0.2.1:80",
			},
		},
		"a service is marked no more: the same the other way round": {
			have: markedWeb,
			want: web,
			wantOps: []string{
				"add service TCP 192.0.2.1:80",
				"add destination TCP 192.0.2.1:80 10.0.0.7:80",
				"del guard marked TCP 192.0.2.1:80",
				"del destination marked TCP 192.0.2.1:80 10.0.0.7:80",
				"del service marked TCP 192.0.2.1:80",
			},
		},
		"a flushed guard marks before it lets through": {
			have:    webVIP + markedTable,
			want:    markedWeb,
			wantOps: []string{"add guard marked TCP 192.0.2.1:80", "add guard TCP 192.0.2.1:80", "add guard 192.0.2.1"},
		},
		"keys come one after the other": {
			want: "guard 192.0.2.2\nguard 192.0.2.1\naddress 192.0.2.1 dev dummy-lvs\naddress 192.0.2.2 dev dummy-lvs\nservice fwmark 7 rr\n",
			wantOps: []string{
				"add guard 192.0.2.1", "add address 192.0.2.1 dev dummy-lvs",
				"add guard 192.0.2.2", "add address 192.0.2.2 dev dummy-lvs",
				"add service fwmark 7",
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, op := range Diff(parse(t, tc.have), parse(t, tc.want)) {
				got = append(got, op.String())
			}
			if diff := cmp.Diff(tc.wantOps, got); diff != "" {
				t.Errorf("Diff() (-want +got):\n%s", diff)
			}
		})
	}
}

func addrGen() *rapid.Generator[netip.Addr] {
	return rapid.SampledFrom([]netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
	})
}

func sourceGen() *rapid.Generator[netip.Addr] {
	return rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")})
}

func serviceGen() *rapid.Generator[Service] {
	return rapid.Custom(func(t *rapid.T) Service {
		return Service{
			Scheduler:         rapid.SampledFrom([]string{"rr", "wrr", "mh"}).Draw(t, "scheduler"),
			Flags:             rapid.SampledFrom([]SchedulerFlags{0, Fallback, Fallback | Port}).Draw(t, "flags"),
			OnePacket:         rapid.Bool().Draw(t, "one packet"),
			Persistence:       time.Duration(rapid.IntRange(0, 2).Draw(t, "persistence")) * time.Second,
			PersistencePrefix: uint8(rapid.SampledFrom([]int{24, 32, 128}).Draw(t, "prefix")),
		}
	})
}

func destinationGen() *rapid.Generator[Destination] {
	return rapid.Custom(func(t *rapid.T) Destination {
		return Destination{
			Method:     rapid.SampledFrom([]Method{DR, TUN, NAT}).Draw(t, "method"),
			Weight:     rapid.Uint32Range(0, 2).Draw(t, "weight"),
			LastWeight: rapid.Uint32Range(0, 2).Draw(t, "last weight"),
			Upper:      rapid.Uint32Range(0, 2).Draw(t, "upper"),
			Lower:      rapid.Uint32Range(0, 2).Draw(t, "lower"),
		}
	})
}

// stateGen makes states that a plan could want: no destination without its
// service, no service without its VIP, all of them guarded.
func stateGen() *rapid.Generator[State] {
	return rapid.Custom(func(t *rapid.T) State {
		s := New()
		for _, vip := range rapid.SliceOfNDistinct(addrGen(), 0, 3, rapid.ID).Draw(t, "VIPs") {
			s.Guard[GuardKey{VIP: vip}] = Present{}
			s.Addresses[AddressKey{DummyLink, vip}] = Address{Source: sourceGen().Draw(t, "source")}
			if rapid.Bool().Draw(t, "the kernel answers") {
				s.Addresses[AddressKey{"eth0", vip}] = Address{}
			}
			drawServices(t, s, vip)
		}
		return s
	})
}

func drawServices(t *rapid.T, s State, vip netip.Addr) {
	protocols := rapid.SampledFrom([]Protocol{TCP, UDP, SCTP})
	for range rapid.IntRange(0, 3).Draw(t, "services") {
		k := ServiceKey{
			Key: Key{Addr: vip}, Protocol: protocols.Draw(t, "protocol"), Port: uint16(rapid.IntRange(1, 2).Draw(t, "port")),
			Marked: rapid.Bool().Draw(t, "marked"),
		}
		s.Services[k] = serviceGen().Draw(t, "service")
		s.Guard[GuardKey{VIP: vip, Protocol: k.Protocol, Port: k.Port}] = Present{}
		if k.Marked {
			s.Guard[GuardKey{VIP: vip, Protocol: k.Protocol, Port: k.Port, Marked: true}] = Present{}
		}
		for range rapid.IntRange(0, 3).Draw(t, "destinations") {
			d := DestinationKey{k, addrGen().Draw(t, "server"), k.Port}
			s.Destinations[d] = destinationGen().Draw(t, "destination")
		}
	}
}

// service says whether there is an unmarked service behind an entry of the guard,
// and whether the guard marks packets for a marked one.
func (s State) service(k GuardKey) (unmarked, marks bool) {
	k.Marked = false
	_, unmarked = s.Services[k.service()]
	k.Marked = true
	_, marks = s.Guard[k]
	return unmarked, marks
}

// unsafe says what is wrong with a state at any one moment, "" if nothing.
func unsafe(s State) string {
	for k := range s.Addresses {
		if _, guarded := s.Guard[GuardKey{VIP: k.Addr}]; !guarded {
			return fmt.Sprintf("%s has no guard", k)
		}
		if _, ok := s.Addresses[AddressKey{DummyLink, k.Addr}]; !ok {
			return fmt.Sprintf("%s and not on %s", k, DummyLink)
		}
	}
	for k := range s.Guard {
		if k.isService() && !s.Serves(k) {
			return fmt.Sprintf("%s is for no service", k)
		}
		unmarked, marks := s.service(k)
		if k.isService() && !k.Marked && !unmarked && !marks {
			return fmt.Sprintf("%s lets through what is not marked, and the service is for what is", k)
		}
	}
	for k := range s.Services {
		if _, ok := s.Addresses[AddressKey{DummyLink, k.Key.Addr}]; k.Key.Mark == 0 && !ok {
			return fmt.Sprintf("%s has no VIP", k)
		}
	}
	for k := range s.Destinations {
		if _, ok := s.Services[k.Service]; !ok {
			return fmt.Sprintf("%s has no service", k)
		}
	}
	return ""
}

func TestDiffLeadsToWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := stateGen().Draw(t, "have"), stateGen().Draw(t, "want")
		state := have.Clone()
		for _, op := range Diff(have, want) {
			checkOp(t, state, want, op)
			state.Perform(op)
			if wrong := unsafe(state); wrong != "" {
				t.Fatalf("after %s: %s", op, wrong)
			}
		}
		if diff := cmp.Diff(want, state, equateAddrs); diff != "" {
			t.Fatalf("the operations lead elsewhere (-want +got):\n%s", diff)
		}
		if ops := Diff(state, want); len(ops) != 0 {
			t.Fatalf("a second Diff has more to do: %v", ops)
		}
	})
}

// checkOp says whether an operation fits the state that it is done to.
func checkOp(t *rapid.T, state, want State, op Op) {
	t.Helper()
	var verb Verb
	var there bool
	switch c := op.(type) {
	case GuardChange:
		verb = c.Verb
		_, there = state.Guard[c.Entry]
	case AddressChange:
		verb = c.Verb
		_, there = state.Addresses[c.Entry]
	case ServiceChange:
		verb = c.Verb
		_, there = state.Services[c.Entry]
	case DestinationChange:
		verb = c.Verb
		_, there = state.Destinations[c.Entry]
		if verb == Del {
			successorsAreIn(t, state, want, c.Entry.Service)
		}
	default:
		t.Fatalf("an operation of type %T", op)
	}
	if there == (verb == Add) {
		t.Fatalf("%s, but there before: %t", op, there)
	}
}

// successorsAreIn checks that a service that stays has all its new servers.
func successorsAreIn(t *rapid.T, state, want State, service ServiceKey) {
	t.Helper()
	for k, v := range want.Destinations {
		if got, ok := state.Destinations[k]; k.Service == service && (!ok || got != v) {
			t.Fatalf("a server of %s goes before %s is in", service, k)
		}
	}
}

// schedules lists the services that have somewhere to send a new connection.
func schedules(s State) map[ServiceKey]bool {
	services := map[ServiceKey]bool{}
	for k, v := range s.Destinations {
		if v.Weight > 0 {
			services[k.Service] = true
		}
	}
	return services
}

// TestDiffLeavesNoServiceBare has services that stay, since what is drawn for
// others rarely has the same ones before and after.
func TestDiffLeavesNoServiceBare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := New(), New()
		for _, s := range []State{have, want} {
			for port := range uint16(2) {
				k := ServiceKey{Key: Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: TCP, Port: port + 1}
				s.Services[k] = Service{Scheduler: "wrr"}
				for _, server := range rapid.SliceOfDistinct(addrGen(), rapid.ID).Draw(t, "servers") {
					s.Destinations[DestinationKey{k, server, k.Port}] = Destination{Method: DR, Weight: rapid.Uint32Range(0, 2).Draw(t, "weight")}
				}
			}
		}
		before, after := schedules(have), schedules(want)
		state := have.Clone()
		for _, op := range Diff(have, want) {
			state.Perform(op)
			now := schedules(state)
			for service := range after {
				if before[service] && !now[service] {
					t.Fatalf("after %s: %s has no destination of any weight, and had and will have one", op, service)
				}
			}
		}
	})
}

func TestDiffIsSafeWhateverFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, want := stateGen().Draw(t, "have"), stateGen().Draw(t, "want")
		for range 3 { // attempts: each begins with what the last one left
			failed := map[Key]bool{}
			for _, op := range Diff(state.Clone(), want) {
				if failed[op.Key()] {
					continue
				}
				if rapid.IntRange(0, 4).Draw(t, "luck") == 0 {
					failed[op.Key()] = true
					continue
				}
				state.Perform(op)
				if wrong := unsafe(state); wrong != "" {
					t.Fatalf("after %s: %s", op, wrong)
				}
			}
			for _, key := range state.Keys() {
				if !failed[key] {
					if diff := cmp.Diff(want.Of(key), state.Of(key), equateAddrs); diff != "" {
						t.Fatalf("%s did not fail and is not as wanted (-want +got):\n%s", key, diff)
					}
				}
			}
		}
	})
}

func TestDiffOfKeysIsTheDiffOfEachKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := stateGen().Draw(t, "have"), stateGen().Draw(t, "want")
		both := have.Clone()
		for _, op := range Diff(New(), want) {
			both.Perform(op)
		}
		var apart []string
		for _, key := range both.Keys() {
			for _, op := range Diff(have.Of(key), want.Of(key)) {
				apart = append(apart, op.String())
			}
		}
		var together []string
		for _, op := range Diff(have, want) {
			together = append(together, op.String())
		}
		if diff := cmp.Diff(apart, together); diff != "" {
			t.Fatalf("keys depend on each other (-apart +together):\n%s", diff)
		}
	})
}

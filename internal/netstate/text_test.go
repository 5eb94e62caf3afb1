package netstate

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// equateAddrs compares addresses by value, and nil maps with empty ones.
var equateAddrs = cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}

const everyForm = `guard 192.0.2.1
guard TCP 192.0.2.1:80
guard marked TCP 192.0.2.1:80
guard UDP [2001:db8::1]:53
address 192.0.2.1 dev dummy-lvs src 10.0.0.2
address 192.0.2.1 dev eth0
service TCP 192.0.2.1:80 wrr
service SCTP 192.0.2.1:132 sh flags 0x18
service UDP [2001:db8::1]:53 rr one-packet
service TCP [2001:db8::1]:443 wlc persistence 300 prefix 64
service marked TCP 192.0.2.1:80 rr
service fwmark 7 mh persistence 360
destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 0
destination TCP 192.0.2.1:80 10.0.0.8:80 TUN weight 65535 upper 100 lower 50
destination UDP [2001:db8::1]:53 [2001:db8::7]:53 NAT weight 1
destination marked TCP 192.0.2.1:80 10.0.0.7:80 DR weight 2
destination fwmark 7 10.0.0.7:0 DR weight 1
destination fwmark 7 10.0.0.8:0 DR weight 0 last 5
`

func everyFormState() State {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	web := ServiceKey{Key: Key{Addr: v4}, Protocol: TCP, Port: 80}
	dns := ServiceKey{Key: Key{Addr: v6}, Protocol: UDP, Port: 53}
	mark := ServiceKey{Key: Key{Mark: 7}}
	s1, s2 := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8")
	s := New()
	s.Guard[GuardKey{VIP: v4}] = Present{}
	s.Guard[GuardKey{VIP: v4, Protocol: TCP, Port: 80}] = Present{}
	s.Guard[GuardKey{VIP: v4, Protocol: TCP, Port: 80, Marked: true}] = Present{}
	s.Guard[GuardKey{VIP: v6, Protocol: UDP, Port: 53}] = Present{}
	s.Addresses[AddressKey{DummyLink, v4}] = Address{Source: netip.MustParseAddr("10.0.0.2")}
	s.Addresses[AddressKey{"eth0", v4}] = Address{}
	markedWeb := web
	markedWeb.Marked = true
	s.Services[web] = Service{Scheduler: "wrr", PersistencePrefix: 32}
	s.Services[markedWeb] = Service{Scheduler: "rr", PersistencePrefix: 32}
	s.Destinations[DestinationKey{markedWeb, s1, 80}] = Destination{Method: DR, Weight: 2}
	s.Services[ServiceKey{Key: Key{Addr: v4}, Protocol: SCTP, Port: 132}] = Service{Scheduler: "sh", Flags: Fallback | Port, PersistencePrefix: 32}
	s.Services[dns] = Service{Scheduler: "rr", OnePacket: true, PersistencePrefix: 128}
	s.Services[ServiceKey{Key: Key{Addr: v6}, Protocol: TCP, Port: 443}] = Service{
		Scheduler: "wlc", Persistence: 300 * time.Second, PersistencePrefix: 64,
	}
	s.Services[mark] = Service{Scheduler: "mh", Persistence: 360 * time.Second, PersistencePrefix: 32}
	s.Destinations[DestinationKey{web, s1, 80}] = Destination{Method: DR}
	s.Destinations[DestinationKey{web, s2, 80}] = Destination{Method: TUN, Weight: 65535, Upper: 100, Lower: 50}
	s.Destinations[DestinationKey{dns, netip.MustParseAddr("2001:db8::7"), 53}] = Destination{Method: NAT, Weight: 1}
	s.Destinations[DestinationKey{mark, s1, 0}] = Destination{Method: DR, Weight: 1}
	s.Destinations[DestinationKey{mark, s2, 0}] = Destination{Method: DR, LastWeight: 5}
	return s
}

func TestTextIsReadable(t *testing.T) {
	text, err := everyFormState().MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	// Lines are compared as a set where the canonical order is by number.
	if diff := cmp.Diff(sortedLines(everyForm), sortedLines(string(text))); diff != "" {
		t.Errorf("MarshalText() differs (-want +got):\n%s", diff)
	}
	var got State
	if err := got.UnmarshalText([]byte("# a comment\n\n" + everyForm)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everyFormState(), got, equateAddrs); diff != "" {
		t.Errorf("UnmarshalText() differs (-want +got):\n%s", diff)
	}
}

func sortedLines(text string) map[string]bool {
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		lines[line] = true
	}
	return lines
}

func TestTextThatIsNoState(t *testing.T) {
	cases := map[string]string{
		"unknown entry":         "route 192.0.2.1",
		"nothing behind":        "guard",
		"no address":            "guard web",
		"no port":               "guard TCP 192.0.2.1",
		"unknown protocol":      "guard DCCP 192.0.2.1:80",
		"protocol out of range": "guard protocol-256 192.0.2.1:80",
		"no link":               "address 192.0.2.1 dev",
		"no dev":                "address 192.0.2.1 dummy-lvs",
		"too much":              "address 192.0.2.1 dev dummy-lvs src 10.0.0.1 10.0.0.2",
		"no scheduler":          "service TCP 192.0.2.1:80",
		"unknown option":        "service TCP 192.0.2.1:80 wrr pe sip",
		"mark zero":             "service fwmark 0 wrr",
		"prefix out of range":   "service TCP 192.0.2.1:80 wrr prefix 256",
		"persistence overflows": "service TCP 192.0.2.1:80 wrr persistence 9223372037",
		"no weight":             "destination TCP 192.0.2.1:80 10.0.0.7:80 DR",
		"unknown method":        "destination TCP 192.0.2.1:80 10.0.0.7:80 LOCAL weight 1",
		"twice":                 "guard 192.0.2.1\nguard 192.0.2.1",
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			got := everyFormState()
			if err := got.UnmarshalText([]byte(text)); !errors.Is(err, ErrText) {
				t.Errorf("UnmarshalText(%q) = %v, want ErrText", text, err)
			}
			if diff := cmp.Diff(everyFormState(), got, equateAddrs); diff != "" {
				t.Errorf("a text that is refused changed the state (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStateThatHasNoText(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.1")
	cases := map[string]func(State){
		"a link of two words":   func(s State) { s.Addresses[AddressKey{"eth 0", vip}] = Address{} },
		"a link without a name": func(s State) { s.Addresses[AddressKey{"", vip}] = Address{} },
		"no address":            func(s State) { s.Guard[GuardKey{}] = Present{} },
		"no scheduler":          func(s State) { s.Services[ServiceKey{Key: Key{Addr: vip}, Protocol: TCP, Port: 80}] = Service{} },
		"mark and address":      func(s State) { s.Services[ServiceKey{Key: Key{vip, 7}}] = Service{Scheduler: "rr"} },
		"a part of a second": func(s State) {
			s.Services[ServiceKey{Key: Key{Addr: vip}, Protocol: TCP, Port: 80}] = Service{Scheduler: "rr", Persistence: 1}
		},
		"a destination for none": func(s State) { s.Destinations[DestinationKey{}] = Destination{} },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			s := New()
			spoil(s)
			if text, err := s.MarshalText(); !errors.Is(err, ErrText) {
				t.Errorf("MarshalText() = %q, %v, want ErrText", text, err)
			}
		})
	}
}

func TestTextOfAnyStateReadsBackAsThatState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := stateGen().Draw(t, "state")
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := got.UnmarshalText(text); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, equateAddrs); diff != "" {
			t.Errorf("the state changed on its way through text (-want +got):\n%s", diff)
		}
	})
}

func FuzzUnmarshalText(f *testing.F) {
	for line := range strings.Lines(everyForm) {
		f.Add(line)
	}
	f.Add(everyForm)
	f.Add("service protocol-99 [fe80::1%eth0]:1 x flags 0xffffffff")
	f.Fuzz(func(t *testing.T, text string) {
		var first State
		if first.UnmarshalText([]byte(text)) != nil {
			return
		}
		written, err := first.MarshalText()
		if err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		var second State
		if err := second.UnmarshalText(written); err != nil {
			t.Fatalf("what was written can't be read: %v\n%s", err, written)
		}
		if diff := cmp.Diff(first, second, equateAddrs); diff != "" {
			t.Errorf("the state changed (-first +second):\n%s", diff)
		}
	})
}

//go:build kernel

package kernel_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestDRForwardsByWeightAndRepliesGoPastTheDirector(t *testing.T) {
	l := newLab(t)
	l.serve(guarded, web4)
	replies := l.director.Sniff("eth0", fromVIP)
	atClient := l.client.Sniff("eth0", fromVIP)

	wantCounts(t, count(t, l.client, "tcp", vip4+":80", 30), map[string]int{"s1": 10, "s2": 20})
	if n := replies(); n != 0 {
		t.Errorf("%d frames from the VIP came to the director, want none", n)
	}
	if n := atClient(); n < 30 {
		t.Errorf("%d frames from the VIP came to the client, want 30 and more: the check counts nothing", n)
	}
}

// fromVIP matches IPv4 frames that come from the VIP.
func fromVIP(frame []byte) bool {
	source := netip.MustParseAddr(vip4).AsSlice()
	return len(frame) >= 34 && frame[12] == 0x08 && frame[13] == 0x00 && bytes.Equal(frame[26:30], source)
}

func TestDRForwardsIPv6(t *testing.T) {
	l := newLab(t)
	l.serve(guarded, `
guard 2001:db8::100
guard TCP [2001:db8::100]:80
address 2001:db8::100 dev dummy-lvs
service TCP [2001:db8::100]:80 wrr
destination TCP [2001:db8::100]:80 [2001:db8::21]:80 DR weight 1
destination TCP [2001:db8::100]:80 [2001:db8::22]:80 DR weight 2
`)
	wantCounts(t, count(t, l.client, "tcp", "[2001:db8::100]:80", 12), map[string]int{"s1": 4, "s2": 8})
}

func TestDRForwardsUDP(t *testing.T) {
	l := newLab(t)
	for i, s := range l.servers {
		s.ServeUDP(vip4+":53", fmt.Sprintf("s%d", i+1))
	}
	l.serve(guarded, `
guard 192.0.2.100
guard UDP 192.0.2.100:53
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
service UDP 192.0.2.100:53 rr one-packet
destination UDP 192.0.2.100:53 192.0.2.21:53 DR weight 1
destination UDP 192.0.2.100:53 192.0.2.22:53 DR weight 1
`)
	wantCounts(t, count(t, l.client, "udp", vip4+":53", 8), map[string]int{"s1": 4, "s2": 4})
}

func TestPersistenceHoldsANetwork(t *testing.T) {
	cases := map[string]struct {
		prefix  int
		wantOne bool
	}{
		"a prefix of 24 makes two addresses of it one client": {24, true},
		"a prefix of 32 keeps them apart":                     {32, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			want := kerneltest.Parse(t, web4)
			for k, v := range want.Services {
				v.Scheduler, v.Persistence, v.PersistencePrefix = "rr", 300e9, uint8(tc.prefix)
				want.Services[k] = v
			}
			prepare(t, l.kernel, guarded)
			bring(t, l.kernel, want)
			holds(t, l.kernel, want)

			answers := map[string]string{}
			for range 3 {
				for _, source := range []string{client4, "192.0.2.11"} {
					answer, err := l.client.Ask("tcp", source, vip4+":80")
					if err != nil {
						t.Fatal(err)
					}
					if was, ok := answers[source]; ok && was != answer {
						t.Errorf("%s went from %s to %s", source, was, answer)
					}
					answers[source] = answer
				}
			}
			if one := answers[client4] == answers["192.0.2.11"]; one != tc.wantOne {
				t.Errorf("answers %v: one server for both: %t, want %t", answers, one, tc.wantOne)
			}
		})
	}
}

func TestTheDirectorsOwnProcessesReachTheVIP(t *testing.T) {
	l := newLab(t)
	l.director.SetSysctl("ipv4/conf/eth0/rp_filter", "1")
	want := l.serve(guarded, web4)
	wantCounts(t, count(t, l.director, "tcp", vip4+":80", 6), map[string]int{"s1": 2, "s2": 4})

	// Each of the two measures is needed.
	key := netstate.AddressKey{Link: netstate.DummyLink, Addr: netip.MustParseAddr(vip4)}
	apply(t, l.kernel, netstate.AddressChange{Verb: netstate.Set, Entry: key})
	if err := l.director.Refused("tcp", vip4+":80"); err != nil {
		t.Errorf("without a source: %v", err)
	}
	apply(t, l.kernel, netstate.AddressChange{Verb: netstate.Set, Entry: key, Value: want.Addresses[key]})
	l.director.SetSysctl("ipv4/conf/eth0/accept_local", "0")
	if err := l.director.Refused("tcp", vip4+":80"); err != nil {
		t.Errorf("without accept_local: %v", err)
	}
	prepare(t, l.kernel, guarded)
	wantCounts(t, count(t, l.director, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})
}

func TestTheVIPsRouteIsRepaired(t *testing.T) {
	l := newLab(t)
	want := l.serve(guarded, web4+"address 192.0.2.100 dev eth0\n")
	vip := netip.MustParseAddr(vip4)
	l.director.DeleteLocalRoutes(vip)
	if err := l.client.Refused("tcp", vip4+":80"); err != nil {
		t.Fatal(err)
	}
	bring(t, l.kernel, want)
	holds(t, l.kernel, want)
	wantCounts(t, count(t, l.client, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})
	// The one on the dummy device is found first, or the node's own packets would
	// come from the VIP.
	wantCounts(t, count(t, l.director, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})

	bring(t, l.kernel, netstate.New())
	if left := l.director.LocalRoutes(vip); len(left) != 0 {
		t.Errorf("local routes are left behind: %v", left)
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	l := newLab(t)
	want := l.serve(guarded, web4)
	count(t, l.client, "tcp", vip4+":80", 6)
	seen, err := l.kernel.Observe(t.Context(), want.Keys()[0])
	if err != nil {
		t.Fatal(err)
	}
	total := uint32(0)
	for _, c := range seen.Connections {
		total += c.Active + c.Inactive
	}
	if total != 6 {
		t.Errorf("connections %v, want 6 in all", seen.Connections)
	}
}

func TestOpenConnectionsLiveThroughEdits(t *testing.T) {
	l := newLab(t)
	for _, s := range l.servers {
		s.ServeEcho("[::]:7")
	}
	text := `
guard 192.0.2.100
guard TCP 192.0.2.100:7
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
service TCP 192.0.2.100:7 rr
destination TCP 192.0.2.100:7 192.0.2.21:7 DR weight 1
`
	l.serve(guarded, text)
	conn := l.client.Connect("tcp", vip4+":7")
	for _, edit := range []string{
		"service TCP 192.0.2.100:7 wlc persistence 60\ndestination TCP 192.0.2.100:7 192.0.2.21:7 DR weight 1",
		"service TCP 192.0.2.100:7 rr\ndestination TCP 192.0.2.100:7 192.0.2.21:7 DR weight 0",
		"service TCP 192.0.2.100:7 rr\ndestination TCP 192.0.2.100:7 192.0.2.21:7 DR weight 5 upper 10\n" +
			"destination TCP 192.0.2.100:7 192.0.2.22:7 DR weight 5",
	} {
		bring(t, l.kernel, kerneltest.Parse(t,
			"guard 192.0.2.100\nguard TCP 192.0.2.100:7\naddress 192.0.2.100 dev dummy-lvs src 192.0.2.2\n"+edit))
		if got := conn.Echo("hello"); got != "hello" {
			t.Errorf("after %q the connection says %q", edit, got)
		}
	}
}

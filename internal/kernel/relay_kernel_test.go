//go:build kernel

package kernel_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

// echoes serves the echo port of both VIPs.
const echoes = `
guard 192.0.2.100
guard TCP 192.0.2.100:7
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
service TCP 192.0.2.100:7 rr
destination TCP 192.0.2.100:7 192.0.2.21:7 DR weight 1
destination TCP 192.0.2.100:7 192.0.2.22:7 DR weight 1
guard 2001:db8::100
guard TCP [2001:db8::100]:7
address 2001:db8::100 dev dummy-lvs
service TCP [2001:db8::100]:7 rr
destination TCP [2001:db8::100]:7 [2001:db8::21]:7 DR weight 1
destination TCP [2001:db8::100]:7 [2001:db8::22]:7 DR weight 1
`

// otherEchoes is the same on the other director.
var otherEchoes = strings.ReplaceAll(echoes, "src 192.0.2.2", "src "+other4)

// pair is a lab with a second director, both of which serve echoes.
type pair struct {
	*lab
	other       *netlab.NS
	otherKernel *kernel.Client
}

const other4, other6 = "192.0.2.3", "2001:db8::3"

func newPair(t *testing.T) pair {
	t.Helper()
	p := pair{lab: newLab(t)}
	for _, s := range p.servers {
		s.ServeEcho("[::]:7")
	}
	p.other = p.segment.Host(other4+"/24", other6+"/64")
	p.otherKernel = open(t, p.other)
	p.serve(guarded, echoes)
	prepare(t, p.otherKernel, guarded)
	bring(t, p.otherKernel, kerneltest.Parse(t, otherEchoes))
	return p
}

// move makes the client send to the other director from now on.
func (p pair) move() {
	p.client.Neighbor("eth0", vip4, p.other.MAC("eth0"))
	p.client.Neighbor("eth0", vip6, p.other.MAC("eth0"))
}

// moveBack makes the client send to the first director again.
func (p pair) moveBack() {
	p.client.Neighbor("eth0", vip4, p.director.MAC("eth0"))
	p.client.Neighbor("eth0", vip6, p.director.MAC("eth0"))
}

// both says where packets of both VIPs go.
func both(to4, to6 string) map[netip.Addr]netip.Addr {
	return map[netip.Addr]netip.Addr{
		netip.MustParseAddr(vip4): netip.MustParseAddr(to4),
		netip.MustParseAddr(vip6): netip.MustParseAddr(to6),
	}
}

// toFirst is the other director's relay to the first.
func (p pair) toFirst() kernel.Relay {
	return kernel.Relay{
		Interface: "eth0",
		To:        both(director4, "2001:db8::2"),
		Directors: []net.HardwareAddr{p.director.MAC("eth0")},
	}
}

func (p pair) toOther() kernel.Relay {
	return kernel.Relay{
		Interface: "eth0",
		To:        both(other4, other6),
		Directors: []net.HardwareAddr{p.other.MAC("eth0")},
	}
}

func setRelay(t *testing.T, k *kernel.Client, relay kernel.Relay) {
	t.Helper()
	if err := k.SetRelay(t.Context(), relay); err != nil {
		t.Fatal(err)
	}
}

func TestOpenConnectionsLiveThroughAMoveOfTheVIP(t *testing.T) {
	for name, address := range map[string]string{"IPv4": vip4 + ":7", "IPv6": "[" + vip6 + "]:7"} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			setRelay(t, p.otherKernel, p.toFirst())
			setRelay(t, p.kernel, p.toOther())
			conn := p.client.Connect("tcp", address)
			if got := conn.Echo("before"); got != "before" {
				t.Fatalf("the connection says %q", got)
			}
			p.move()
			for range 3 {
				if got := conn.Echo("after"); got != "after" {
					t.Fatalf("the connection says %q", got)
				}
			}
			if got := p.client.Connect("tcp", address).Echo("new"); got != "new" {
				t.Errorf("a new connection says %q", got)
			}
			// Without the relay the new director does not know the connection.
			setRelay(t, p.otherKernel, kernel.Relay{})
			if _, err := conn.Try("unknown"); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("without a relay: %v, want a reset", err)
			}
		})
	}
}

// TestEachVIPIsHandedOnByItself: VIPs of another group may have come from another
// director, or have none to be handed on to.
func TestEachVIPIsHandedOnByItself(t *testing.T) {
	p := newPair(t)
	opened := map[string]string{vip4: vip4 + ":7", vip6: "[" + vip6 + "]:7"}
	for _, vip := range []string{vip4, vip6, vip4} {
		relay := p.toFirst()
		for other := range relay.To {
			if other.String() != vip {
				delete(relay.To, other)
			}
		}
		setRelay(t, p.otherKernel, relay)
		p.moveBack()
		conns := map[string]interface {
			Try(string) (string, error)
		}{}
		for vip, address := range opened {
			conn := p.client.Connect("tcp", address)
			conn.Echo("before")
			conns[vip] = conn
		}
		p.move()
		for other, conn := range conns {
			_, err := conn.Try("after")
			if other == vip && err != nil {
				t.Errorf("only %s is handed on, and its connection ends: %v", vip, err)
			}
			if other != vip && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("only %s is handed on, and a connection to %s ends by %v, want a reset", vip, other, err)
			}
		}
	}
}

func TestAConnectionThatNoDirectorKnowsIsReset(t *testing.T) {
	p := newPair(t)
	// Opened past the directors, so that neither has it.
	p.client.Neighbor("eth0", vip4, p.servers[0].MAC("eth0"))
	conn := p.client.Connect("tcp", vip4+":7")
	conn.Echo("hello")
	setRelay(t, p.kernel, p.toOther())
	setRelay(t, p.otherKernel, p.toFirst())
	p.move()
	began := time.Now()
	if _, err := conn.Try("unknown"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %s: %v, want a reset", time.Since(began), err)
	}
}

func TestTheRelayOutlivesItsProcessAndAFlush(t *testing.T) {
	p := newPair(t)
	setRelay(t, p.otherKernel, p.toFirst())
	conn := p.client.Connect("tcp", vip4+":7")
	p.move()
	conn.Echo("moved")

	// The next process has not decided yet.
	next := open(t, p.other)
	prepare(t, next, guarded)
	conn.Echo("adopted")

	nft := dialNFT(t, p.other)
	for _, table := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		nft.DelTable(&nftables.Table{Name: "lvs-operator", Family: table})
	}
	// Without a guard a packet meets a reset, be it only the acknowledgement that the
	// client had put off.
	p.moveBack()
	flush(t, nft)
	prepare(t, p.otherKernel, guarded)
	p.move()
	// The guard is whole before the audit.
	conn.Echo("repaired")
	bring(t, p.otherKernel, kerneltest.Parse(t, otherEchoes))
	conn.Echo("audited")
}

func TestANeighbourThatIsGoneIsFoundOut(t *testing.T) {
	l := newLab(t)
	server := netip.MustParseAddr("192.0.2.21")
	look := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for time.Now().Before(deadline) {
			there, err := l.kernel.Probe(t.Context(), "eth0", server)
			if err != nil {
				t.Fatal(err)
			}
			mac, err := l.kernel.Neighbor(t.Context(), "eth0", server)
			if err != nil {
				t.Fatal(err)
			}
			if there == want && (mac != nil) == want {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("the neighbour is not found to be there: %t", want)
	}
	look(true)
	if err := l.servers[0].Links().LinkSetDown(l.servers[0].Link("eth0")); err != nil {
		t.Fatal(err)
	}
	look(false)
	l.servers[0].Up("eth0")
	look(true)
}

func TestNoRelayIsLeftBehind(t *testing.T) {
	p := newPair(t)
	setRelay(t, p.kernel, p.toOther())
	if err := p.kernel.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	tables, err := dialNFT(t, p.director).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) > 0 {
		t.Errorf("%d tables are left, the first %q", len(tables), tables[0].Name)
	}
}

func TestARelayWithoutAGuardIsNotMadeLater(t *testing.T) {
	p := newPair(t)
	prepare(t, p.kernel, unguarded)
	setRelay(t, p.kernel, p.toOther())
	// On a kernel that cannot relay, the guard would fail with it.
	prepare(t, p.kernel, guarded)
	table := &nftables.Table{Name: "lvs-operator", Family: nftables.TableFamilyIPv4}
	rules, err := dialNFT(t, p.director).GetRules(table, &nftables.Chain{Table: table, Name: "input"})
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) > 0 {
		t.Errorf("%d rules hand on, want none", len(rules))
	}
}

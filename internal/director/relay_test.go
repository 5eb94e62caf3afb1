package director

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

var (
	first4, second4 = netip.MustParseAddr("192.168.11.11"), netip.MustParseAddr("192.168.11.12")
	first6          = netip.MustParseAddr("fd00:11::11")
	vip6            = netstate.Key{Addr: netip.MustParseAddr("fd00:11::200")}
)

// knownTo tells a director of the other of two.
func knownTo(p *process, other Peer) {
	other.Live = true
	p.SetPeers(Rank{}, []Peer{other})
}

func lb1() Peer {
	return Peer{Node: "lb-1", Address: first4, IPv6Address: first6, MAC: "02:00:00:00:00:0b", Candidate: true}
}

func lb2() Peer {
	return Peer{Node: "lb-2", Address: second4, MAC: "02:00:00:00:00:0c", Candidate: true}
}

func wantRelay(t *testing.T, when string, n *node, want ...netip.Addr) {
	t.Helper()
	if got := n.relaysTo(); !slices.Equal(got, want) {
		t.Errorf("%s it relays to %v, want %v", when, got, want)
	}
}

func TestUnknownConnectionsGoToTheDirectorBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		n1, n2, dir := newNode(11), newNode(12), t.TempDir()
		one := start(t, "lb-1", n1, l, t.TempDir())
		one.Join(pool())
		one.plan(vip1)
		one.Program(desired(vip6, first6))
		pass(5 * time.Second)
		two := start(t, "lb-2", n2, l, dir)
		two.Join(pool())
		two.plan(vip1)
		two.Program(desired(vip6, first6))
		knownTo(one, lb2())
		knownTo(two, lb1())
		pass(15 * time.Second)
		if l.holder() != "lb-1" {
			t.Fatalf("the Lease is %q's, want lb-1's", l.holder())
		}
		wantRelay(t, "as long as nobody had the VIPs before the holder,", n1)
		wantRelay(t, "a standby needs no time at a takeover:", n2, first4, first6)

		// That it did not answer is from a time when it was down.
		n2.setGone(first4)
		one.stop()
		pass(judgeEvery)
		n2.setGone(netip.Addr{})
		pass(5 * time.Second)
		if l.holder() != "lb-2" {
			t.Fatalf("the Lease is %q's, want lb-2's", l.holder())
		}
		wantRelay(t, "after a takeover", n2, first4, first6)

		// The next process has it from the checkpoint: the Lease names it itself.
		two.end()
		<-two.gone
		n2.relay.To = nil
		two = start(t, "lb-2", n2, l, dir)
		two.Join(pool())
		two.plan(vip1)
		two.Program(desired(vip6, first6))
		two.SetPeers(Rank{}, []Peer{lb1()})
		pass(5 * time.Second)
		wantRelay(t, "after a restart", n2, first4, first6)

		n2.setGone(first4)
		pass(2*probeEvery + judgeEvery)
		wantRelay(t, "after the machine before it is gone", n2)
	})
}

func TestADirectorThatLeftThePoolIsSentNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		one := start(t, "lb-1", newNode(11), l, t.TempDir())
		one.Join(pool())
		one.plan(vip1)
		one.Program(desired(vip6, first6))
		pass(5 * time.Second)
		n2 := newNode(12)
		two := start(t, "lb-2", n2, l, t.TempDir())
		two.Join(pool())
		two.plan(vip1)
		two.Program(desired(vip6, first6))
		knownTo(one, lb2())
		knownTo(two, lb1())
		pass(2 * time.Second)
		wantRelay(t, "while the active director is in the pool", n2, first4, first6)
		two.SetPeers(Rank{}, nil)
		pass(time.Second)
		wantRelay(t, "when it left", n2)
	})
}

func TestMetricsTellOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		n1 := newNode(11)
		one := startWith(t, "lb-1", n1, &leases{}, t.TempDir(), NewMetrics(registry))
		one.Join(pool())
		one.plan(vip1)
		pass(5 * time.Second)
		value := func(name string) float64 {
			t.Helper()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				if family.GetName() == name {
					return family.GetMetric()[0].GetGauge().GetValue()
				}
			}
			t.Fatalf("there is no metric %s", name)
			return 0
		}
		ago := float64(time.Now().UnixMilli())/1000 - value("lvs_director_lease_renewed_timestamp_seconds")
		if ago < 0 || ago > 2 {
			t.Errorf("the Lease was renewed %v s ago, want up to 2: it is renewed each second", ago)
		}
		if value("lvs_director_relaying") != 0 {
			t.Error("it relays, and there is nobody to relay to")
		}
	})
}

// A machine that was found silent before its Lease was taken is not waited for.
func TestNothingIsHandedOnToAMachineThatIsKnownToBeDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		s := p.present()
		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Address: first4, MAC: "02:00:00:00:00:0c"}})
		s.mu.Lock()
		s.groups[0].previous = "lb-2"
		s.mu.Unlock()
		pass(time.Second)
		wantRelay(t, "before", p.node, first4)
		s.groups[0].transition(Transition{Active: true, Reason: string(election.HolderDead), At: time.Now()})
		pass(time.Second)
		wantRelay(t, "after it was found dead", p.node)
	})
}

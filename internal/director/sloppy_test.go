package director

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// scheduledBy returns a plan of port 80 by a scheduler.
func scheduledBy(scheduler string, key netstate.Key, servers ...netip.Addr) plan.Desired {
	d := desired(key, servers...)
	d.State.Services[webOf(key)] = netstate.Service{Scheduler: scheduler}
	return d
}

// planBy hands a VIP over as the planner does.
func (p *process) planBy(scheduler string, key netstate.Key) {
	p.mu.Lock()
	p.wanted[key] = struct{}{}
	p.mu.Unlock()
	p.Program(scheduledBy(scheduler, key, rs1, rs2))
	p.Synced("default")
}

func wantSloppy(t *testing.T, when string, n *node, want bool) {
	t.Helper()
	prepared, _ := n.fake.Node()
	if got := prepared.Sloppy != nil && prepared.Sloppy.TCP; got != want {
		t.Errorf("%s IPVS takes up connections in their middle: %t, want %t", when, got, want)
	}
}

func TestConnectionsAreTakenUpWhereAnyDirectorFindsTheirServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, "lb-1", newNode(11), &leases{}, t.TempDir())
		p.Join(pool())
		p.planBy("wrr", vip1)
		pass(5 * time.Second)
		wantSloppy(t, "with wrr alone", p.node, false)
		p.planBy("mh", vip2)
		pass(time.Second)
		wantSloppy(t, "with mh besides, and nobody before", p.node, true)
		p.planBy("wrr", vip2)
		pass(time.Second)
		wantSloppy(t, "when the last mh is gone", p.node, false)
	})
}

// handedOver are two directors of which the second took over from the first.
func handedOver(t *testing.T, schedulers map[netstate.Key]string) (*process, *node) {
	t.Helper()
	l := &leases{}
	n1, n2 := newNode(11), newNode(12)
	one := start(t, "lb-1", n1, l, t.TempDir())
	two := start(t, "lb-2", n2, l, t.TempDir())
	one.Join(pool())
	for key, scheduler := range schedulers {
		one.planBy(scheduler, key)
	}
	pass(5 * time.Second)
	two.Join(pool())
	for key, scheduler := range schedulers {
		two.planBy(scheduler, key)
	}
	knownTo(one, lb2())
	knownTo(two, lb1())
	pass(15 * time.Second)
	one.stop()
	pass(5 * time.Second)
	if l.holder() != "lb-2" {
		t.Fatalf("the Lease is %q's, want lb-2's", l.holder())
	}
	return two, n2
}

func TestWithOtherServicesConnectionsGoToTheDirectorBeforeAsLongAsThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n2 := handedOver(t, map[netstate.Key]string{vip1: "wrr", vip2: "mh"})
		wantRelay(t, "after a handover", n2, first4)
		wantSloppy(t, "while there is a director before", n2, false)
		n2.setGone(first4)
		pass(2*probeEvery + 2*judgeEvery)
		wantRelay(t, "when its machine is gone", n2)
		wantSloppy(t, "when its machine is gone", n2, true)
		if n2.gap {
			t.Error("nothing was handed on any more before IPVS took it up: mh's connections were reset")
		}
	})
}

func TestWithMHAloneConnectionsAreTakenUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two, n2 := handedOver(t, map[netstate.Key]string{vip1: "mh"})
		wantSloppy(t, "after a handover", n2, true)
		// Another service comes.
		two.planBy("wrr", vip2)
		pass(time.Second)
		wantSloppy(t, "when another service comes, and there is a director before", n2, false)
	})
}

func TestWithoutAGuardNothingIsHandedOn(t *testing.T) {
	m := mix{TCP: true, otherTCP: true, SCTP: true}
	var r relay
	if got := m.sloppy(r.relaying(lb1Relay(), true, false)); !got.TCP {
		t.Errorf("sloppy is %+v", *got)
	}
	if got := m.sloppy(r.relaying(lb1Relay(), true, true)); got != nil {
		t.Errorf("an earlier process may have told the kernel to hand on, and sloppy is %+v", *got)
	}
	r.problem = "the kernel cannot"
	if got := m.sloppy(r.relaying(lb1Relay(), true, true)); !got.TCP || !got.SCTP {
		t.Errorf("the kernel cannot hand on, and sloppy is %+v", *got)
	}
}

func TestAServerBetweenOthersIsPutInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.run(t)
		between := netip.MustParseAddr("192.168.11.136")
		b.Program(scheduledBy("mh", vip1, rs1, rs2))
		synctest.Wait()
		b.Program(scheduledBy("mh", vip1, rs1, between, rs2))
		synctest.Wait()
		seen, err := b.fake.Observe(t.Context(), vip1)
		if err != nil {
			t.Fatal(err)
		}
		want := []netip.Addr{rs1, between, rs2}
		for i, key := range seen.Order[webOf(vip1)] {
			if i >= len(want) || key.Addr != want[i] {
				t.Fatalf("the order is %v, want %v", seen.Order[webOf(vip1)], want)
			}
		}
	})
}

func lb1Relay() kernel.Relay {
	return kernel.Relay{Interface: "eth0", To: map[netip.Addr]netip.Addr{vip1.Addr: first4}}
}

func TestServersOfMHThatWaitForAVerdictAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, "lb-1", newNode(11), &leases{}, t.TempDir())
		p.Join(pool())
		d := scheduledBy("mh", vip1, rs1)
		// Nobody knows how to look at this one, and it takes long to say so.
		d.Checks[destinationOf(vip1, rs1)] = []plan.Check{{Probe: health.Probe{
			Target:   health.Target{Type: "riddle", Addr: rs1, Port: 80},
			Schedule: health.Schedule{Interval: time.Second, Timeout: time.Second, RetryInterval: time.Second, FailureThreshold: 1000, SuccessThreshold: 1},
		}}}
		p.Program(d)
		p.Synced("default")
		pass(3 * time.Second)
		if _, there := p.node.fake.State().Destinations[destinationOf(vip1, rs1)]; !there {
			t.Error("the server is not in the table")
		}
		if got := p.Status().Waiting; got.For != WaitingForVerdicts {
			t.Errorf("waiting for %d (%s), want %d", got.For, got.Message, WaitingForVerdicts)
		}
		pass(verdictPatience)
		if got := p.Status().Waiting; got.For != WaitingForNothing {
			t.Errorf("waiting for %d (%s) in the end", got.For, got.Message)
		}
	})
}

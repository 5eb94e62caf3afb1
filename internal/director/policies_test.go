package director

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// sorry is the sorry server of checked plans.
var sorry = netip.MustParseAddr("192.168.11.250")

// checked is a plan whose real servers have a check and weight 100.
func checked(policy plan.Policy, servers ...netip.Addr) plan.Desired {
	d := desired(vip1, servers...)
	d.Policies = map[netstate.ServiceKey]plan.Policy{webOf(vip1): policy}
	for key, destination := range d.State.Destinations {
		destination.Weight = 100
		d.State.Destinations[key] = destination
		d.Checks[key] = []plan.Check{{Probe: health.Probe{Target: health.Target{Type: health.TCP, Addr: key.Addr, Port: 80}}}}
	}
	return d
}

// verdict changes what is known of a server, and tells the worker.
func (b *bench) verdict(server netip.Addr, verdict health.Verdict) {
	b.judge(server, verdict)
	b.Enqueue(vip1)
	synctest.Wait()
}

func (b *bench) weights() map[netip.Addr]uint32 {
	weights := map[netip.Addr]uint32{}
	for key, destination := range b.fake.State().Destinations {
		weights[key.Addr] = destination.Weight
	}
	return weights
}

func (b *bench) wantWeights(t *testing.T, want map[netip.Addr]uint32) {
	t.Helper()
	if diff := cmp.Diff(want, b.weights(), addr); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}

// since returns the operations after the first so many, shortened.
func (b *bench) since(first int) []string {
	var ops []string
	for _, op := range b.fake.Applied()[first:] {
		ops = append(ops, strings.ReplaceAll(op.String(), " destination TCP 192.168.11.200:80 192.168.11", ""))
	}
	return ops
}

func TestASorryServerStepsInAndLeavesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.judge(rs1, health.Up)
		b.judge(rs2, health.Up)
		b.run(t)
		b.Program(checked(plan.Policy{Quorum: 150, Scale: 1, DrainTimeout: 10 * time.Second, Sorry: sorry}, rs1, rs2))
		synctest.Wait()
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 100, rs2: 100})
		if outcome, _ := b.Outcome(vip1); len(outcome.QuorumLost) > 0 || b.QuorumsLost() != 0 {
			t.Errorf("quorums lost: %v", outcome.QuorumLost)
		}

		b.tales()
		before := len(b.fake.Applied())
		b.verdict(rs2, health.Down)
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 0, sorry: 1})
		if want := []string{"add.250:80", "set.135:80", "del.138:80"}; !slices.Equal(b.since(before), want) {
			t.Errorf("operations %q, want %q", b.since(before), want)
		}
		if outcome, _ := b.Outcome(vip1); len(outcome.QuorumLost) != 1 || b.QuorumsLost() != 1 || len(b.tales()) == 0 {
			t.Errorf("quorums lost: %v", outcome.QuorumLost)
		}

		b.fake.SetConnections(netstate.DestinationKey{Service: webOf(vip1), Addr: sorry, Port: 80}, netstate.Connections{Active: 1})
		before = len(b.fake.Applied())
		b.verdict(rs2, health.Up)
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 100, rs2: 100, sorry: 0})
		if want := []string{"set.135:80", "add.138:80", "set.250:80"}; !slices.Equal(b.since(before), want) {
			t.Errorf("operations %q, want %q", b.since(before), want)
		}
		pass(11 * time.Second)
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 100, rs2: 100})
		if outcome, _ := b.Outcome(vip1); len(outcome.QuorumLost) > 0 || len(outcome.Draining) > 0 {
			t.Errorf("outcome %+v", outcome)
		}
	})
}

func TestASlowStartGoesOnByItselfAndOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.judge(rs1, health.Up)
		b.run(t)
		slow := checked(plan.Policy{Quorum: 1, Scale: 100, SlowStart: 36 * time.Second}, rs1)
		b.Program(slow)
		synctest.Wait()
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 10})
		if outcome, _ := b.Outcome(vip1); len(outcome.Rising) != 1 {
			t.Errorf("rising: %v", outcome.Rising)
		}
		pass(18 * time.Second)
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 55})

		b.Forget() // The first process is at its end.
		again := newBench(t, b.fake)
		again.Adopt([]netstate.Key{vip1})
		again.run(t)
		again.Program(slow)
		synctest.Wait()
		again.wantWeights(t, map[netip.Addr]uint32{rs1: 55}) // Nobody knows of it yet.
		again.verdict(rs1, health.Up)
		again.wantWeights(t, map[netip.Addr]uint32{rs1: 55})
		pass(17 * time.Second)
		again.wantWeights(t, map[netip.Addr]uint32{rs1: 95})
		pass(time.Second)
		again.wantWeights(t, map[netip.Addr]uint32{rs1: 100})
		if outcome, _ := again.Outcome(vip1); len(outcome.Rising) > 0 || !outcome.Programmed {
			t.Errorf("outcome %+v", outcome)
		}
	})
}

func TestPlansThatDifferInPoliciesOrReadinessAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, kerneltest.NewFake())
		b.judge(rs1, health.Up)
		b.judge(rs2, health.Down)
		b.Program(checked(plan.Policy{Quorum: 1}, rs1, rs2))
		b.run(t)
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 100})

		quiesce := checked(plan.Policy{Quorum: 1, Quiesce: true}, rs1, rs2)
		b.Program(quiesce)
		if outcome, _ := b.Outcome(vip1); outcome.Programmed {
			t.Error("another policy counts as programmed before its pass")
		}
		synctest.Wait()
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 100, rs2: 0})

		unready := checked(plan.Policy{Quorum: 1, Quiesce: true}, rs1, rs2)
		unready.Unready = map[netstate.DestinationKey]string{destinationOf(vip1, rs1): "its pod is not Ready"}
		b.Program(unready)
		if outcome, _ := b.Outcome(vip1); outcome.Programmed {
			t.Error("another readiness counts as programmed before its pass")
		}
		synctest.Wait()
		b.wantWeights(t, map[netip.Addr]uint32{rs1: 0, rs2: 0})
	})
}

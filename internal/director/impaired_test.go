package director

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
)

// pair starts an active director and a warm one.
func pair(t *testing.T, l *leases) (first, second *process) {
	t.Helper()
	first = active(t, l, t.TempDir())
	second = start(t, "lb-2", newNode(12), l, t.TempDir())
	second.Join(pool())
	second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, Candidate: true}})
	pass(time.Second)
	second.plan(vip1)
	first.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true, Candidate: true}})
	pass(5 * time.Second)
	return first, second
}

func TestADirectorWhoseKernelRefusesAVIPHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		first, second := pair(t, l)
		first.node.fake.SetScheduler("wrr", kerneltest.Missing)
		first.plan(vip1, vip2)
		second.plan(vip1, vip2)
		pass(2 * time.Second)
		if refused := first.Status().Refused; len(refused) > 0 || l.holder() != "lb-1" {
			t.Errorf("refused %v after a moment, the Lease is %q's", refused, l.holder())
		}
		pass(10 * time.Second)
		if refused := first.Status().Refused; len(refused) != 1 || refused[0].Key != vip2 {
			t.Errorf("refused = %v", refused)
		}
		if l.holder() != "lb-2" || !second.Announces(vip2.Addr) || first.Active(0) {
			t.Errorf("the Lease is %q's", l.holder())
		}

		// It comes back when it is mended, and does not take the group back.
		second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, Candidate: true, Impaired: true}})
		first.node.fake.SetScheduler("wrr", kerneltest.There)
		pass(11 * time.Second)
		second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, Candidate: true}})
		pass(time.Minute)
		if refused := first.Status().Refused; len(refused) > 0 || l.holder() != "lb-2" {
			t.Errorf("refused %v in the end, the Lease is %q's", refused, l.holder())
		}
	})
}

func TestDirectorsWhoseKernelsRefuseTheSameMoveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		first, second := pair(t, l)
		for _, p := range []*process{first, second} {
			p.node.fake.SetScheduler("wrr", kerneltest.Missing)
			p.plan(vip1, vip2)
		}
		pass(5 * time.Second)
		first.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true, Candidate: true, Impaired: true}})
		second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, Candidate: true, Impaired: true}})
		pass(time.Minute)
		if l.holder() != "lb-1" || len(first.Status().Refused) != 1 || len(second.Status().Refused) != 1 {
			t.Errorf("the Lease is %q's", l.holder())
		}
		// The peer is mended first. This one tries again at once.
		for _, p := range []*process{first, second} {
			p.node.fake.SetScheduler("wrr", kerneltest.There)
		}
		first.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true, Candidate: true}})
		pass(time.Second)
		if len(first.Status().Refused) > 0 || l.holder() != "lb-1" {
			t.Errorf("the Lease is %q's, refused %v", l.holder(), first.Status().Refused)
		}
	})
}

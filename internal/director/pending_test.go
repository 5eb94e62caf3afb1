package director

import (
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// watchRole looks every millisecond how a director finds itself, and returns for
// how long in all its role was pending, and for how long it said that it was not
// active.
func watchRole(p *process, over time.Duration) (pending, standby time.Duration) {
	for began := time.Now(); time.Since(began) < over; {
		pass(time.Millisecond)
		switch status := p.Status(); {
		case status.RolePending:
			pending += time.Millisecond
		case !status.Announcing:
			standby += time.Millisecond
		}
	}
	return pending, standby
}

func TestAHolderThatStoodStillDoesNotSayThatItIsStandby(t *testing.T) {
	for name, slow := range map[string]time.Duration{"the API server answers": 300 * time.Millisecond, "it does not": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &leases{}
				p := active(t, l, t.TempDir())
				l.setSlow(slow)
				p.sleep(5 * time.Second)
				pass(100 * time.Millisecond)
				if p.Active(0) {
					t.Fatal("it announces before it knows whether the Lease is another's")
				}
				changes := p.changes()
				pending, standby := watchRole(p, 5*time.Second)
				if !p.Active(0) || standby > 0 || pending == 0 || pending > 2500*time.Millisecond {
					t.Errorf("active: %t, pending for %s, said for %s that it was not active", p.Active(0), pending, standby)
				}
				if p.changes() == changes {
					t.Error("nobody was told that it is active still")
				}
			})
		})
	}
}

func TestAHolderThatStoodStillSaysAtOnceThatTheLeaseIsAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		p := active(t, l, t.TempDir())
		p.sleep(5 * time.Second)
		l.mu.Lock()
		taken := l.lease.DeepCopy()
		taken.Spec.HolderIdentity = new("lb-2")
		l.put(taken, watch.Modified)
		l.mu.Unlock()
		const look = time.Second
		if pending, standby := watchRole(p, look); pending > 100*time.Millisecond || pending+standby != look {
			t.Errorf("pending for %s, said for %s that it was not active", pending, standby)
		}
	})
}

func TestADirectorThatCannotFindOutSaysThatItIsNotActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		l.setAway(true)
		p := start(t, "lb-1", newNode(11), l, t.TempDir())
		p.Join(pool())
		if pending, standby := watchRole(p, 2*pendingPatience); pending > pendingPatience || standby < pendingPatience {
			t.Errorf("pending for %s, said for %s that it was not active", pending, standby)
		}
	})
}

func TestAHolderThatIsStartedAgainNeverSaysThatItIsStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := &leases{}, t.TempDir()
		first := active(t, l, dir)
		// As if it had been killed: it gives nothing up.
		l.setAway(true)
		first.stop()
		l.setAway(false)
		l.setSlow(500 * time.Millisecond)
		second := start(t, "lb-1", first.node, l, dir)
		second.Join(pool())
		pending, standby := watchRole(second, 5*time.Second)
		if !second.Active(0) || standby > 0 || pending == 0 {
			t.Errorf("active: %t, pending for %s, said for %s that it was not active", second.Active(0), pending, standby)
		}
	})
}

func TestWhatIsInTheKernelOfTheActiveDirectorIsSaidToBeAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		p.plan(vip1, vip2)
		for range 100 {
			pass(time.Millisecond)
			if outcome, _ := p.Outcome(vip2); outcome.Programmed && !p.Announces(vip2.Addr) {
				t.Fatal("the VIP is in the kernel, and nobody is said to announce it")
			}
		}
		if !p.Announces(vip2.Addr) {
			t.Error("not announced")
		}
	})
}

func TestTheRoleIsPendingBeforeAnyDecision(t *testing.T) {
	d := New(Config{Node: "lb-1", Changed: func(netstate.Key) {}, SiteChanged: func() {}})
	if d.Status().RolePending {
		t.Error("the role in no pool is pending")
	}
	d.Join(pool())
	if !d.Status().RolePending {
		t.Error("the role is not pending before there is a session")
	}
	d.nextSession()
	if !d.Status().RolePending {
		t.Error("the role is not pending before the first decision")
	}
}

func TestADirectorThatJustWokeSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		// Nobody has decided since.
		p.sleep(LeaseDuration)
		if epoch, _ := p.Term(0); epoch != 0 || p.Active(0) || !p.Status().RolePending {
			t.Errorf("in term %d, active: %t, and pending: %t", epoch, p.Active(0), p.Status().RolePending)
		}
		pass(time.Second)
		if epoch, _ := p.Term(0); epoch == 0 || !p.Active(0) || p.Status().RolePending {
			t.Errorf("a second later in term %d, active: %t, and pending: %t", epoch, p.Active(0), p.Status().RolePending)
		}
	})
}

func TestTheEndOfDoubtIsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, standby := pair(t, &leases{})
		s := standby.present()
		g := s.groups[0]
		s.mu.Lock()
		decision := g.decision
		s.mu.Unlock()
		for _, step := range []struct {
			reason election.Reason
			news   int
		}{{election.HeldByOther, 0}, {election.NotRead, 0}, {election.NotRead, 0}, {election.HeldByOther, 1}, {election.HeldByOther, 0}} {
			decision.Reason = step.reason
			before := standby.changes()
			if g.decide(decision); standby.changes()-before != step.news {
				t.Errorf("%s: told %d times, want %d", step.reason, standby.changes()-before, step.news)
			}
		}
	})
}

package director

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// active is a director that is alone, active, and serves vip1.
func active(t *testing.T, l *leases, dir string) *process {
	t.Helper()
	p := start(t, "lb-1", newNode(11), l, dir)
	p.Join(pool())
	p.SetPeers(Rank{}, nil)
	pass(time.Second)
	p.plan(vip1)
	pass(5 * time.Second)
	if !p.Active(0) || !p.Announces(vip1.Addr) || l.holder() != "lb-1" {
		t.Fatalf("not active: %+v, the Lease is %q's", p.Status(), l.holder())
	}
	return p
}

func answering(s netstate.State) netstate.State {
	s.Addresses = maps.Clone(s.Addresses)
	for address := range maps.Clone(s.Addresses) {
		s.Addresses[netstate.AddressKey{Link: "eth0", Addr: address.Addr}] = netstate.Address{}
	}
	return s
}

func TestADirectorThatIsAloneServesAndTheKernelAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		expect(t, p.node.fake, answering(desired(vip1, rs1, rs2).State))
		if err := p.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		status := p.Status()
		if !status.KernelAnswers || !status.Programmed || status.VIPs != 1 || status.Address != netip.MustParseAddr("192.168.11.11") {
			t.Errorf("status = %+v", status)
		}
		// The VIP on the interface is neither the node's own nor its source.
		pass(2 * prepareAudit)
		local := p.Local()
		if len(local.Own) != 1 || local.Own[0] != status.Address || local.Source != status.Address {
			t.Errorf("local = %+v", local)
		}

		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true}})
		pass(time.Second)
		expect(t, p.node.fake, desired(vip1, rs1, rs2).State)
	})
}

func TestARestartLosesNothing(t *testing.T) {
	for name, away := range map[string]bool{"with the API": false, "with the API away": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, dir := &leases{}, t.TempDir()
				first := active(t, l, dir)
				// The dead are no company, and are not forgotten.
				first.SetPeers(Rank{}, []Peer{{Node: "lb-9", Address: netip.MustParseAddr("192.168.11.19"), MAC: "02:00:00:00:00:19"}})
				l.setAway(away)
				pass(time.Second)
				first.stop()
				held := map[bool]string{false: "", true: "lb-1"}[away]
				if l.holder() != held {
					t.Errorf("after the end the Lease is %q's", l.holder())
				}
				before := len(first.node.fake.Applied())
				expect(t, first.node.fake, answering(desired(vip1, rs1, rs2).State))

				second := start(t, "lb-1", first.node, l, dir)
				if !away {
					pass(time.Second)
					second.Join(pool())
					second.plan(vip1)
				}
				pass(2 * syncPatience)
				if !second.Active(0) || !second.Announces(vip1.Addr) {
					t.Errorf("not active: %+v", second.Status())
				}
				if err := second.Ready(); err != nil {
					t.Errorf("not ready: %v", err)
				}
				if ops := first.node.fake.Applied()[before:]; len(ops) > 0 {
					t.Errorf("the restart changed the kernel: %v", ops)
				}
				// Then the API is there, and has one VIP more.
				l.setAway(false)
				second.Join(pool())
				second.SetPeers(Rank{}, nil)
				second.plan(vip1, vip2)
				pass(2 * time.Second)
				expect(t, second.node.fake, answering(desired(vip1, rs1, rs2).State), answering(desired(vip2, rs1, rs2).State))
			})
		})
	}
}

func TestTheAPIServerGoesAndNothingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		p := active(t, l, t.TempDir())
		l.setAway(true)
		for range 100 {
			pass(time.Second)
			if !p.Active(0) || !p.Announces(vip1.Addr) {
				t.Fatal("the director stopped")
			}
		}
		if p.Status().APIReachable {
			t.Error("the API server counts as reachable")
		}
		// Drift is repaired all the same.
		p.node.fake.Meddle(func(s netstate.State) { clear(s.Services); clear(s.Destinations) })
		pass(auditInterval)
		expect(t, p.node.fake, answering(desired(vip1, rs1, rs2).State))
	})
}

func TestWhatWasDeletedWhileTheDirectorWasDownGoesAfterTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := &leases{}, t.TempDir()
		first := active(t, l, dir)
		first.plan(vip2)
		pass(time.Second)
		first.stop()
		second := start(t, "lb-1", first.node, l, dir)
		second.Join(pool())
		second.SetPeers(Rank{}, nil)
		pass(time.Second)
		second.plan(vip1) // And not vip2.
		pass(removalDoubt)
		if !second.Announces(vip2.Addr) {
			t.Error("withdrawn on one list")
		}
		pass(2 * removalGather)
		if second.Announces(vip2.Addr) || !second.Announces(vip1.Addr) {
			t.Error("announces what nobody wants, or not what is")
		}
		pass(lingerTime)
		expect(t, second.node.fake, answering(desired(vip1, rs1, rs2).State))
	})
}

func TestASecondDirectorIsWarmAndSilentAndTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		first := active(t, l, t.TempDir())
		second := start(t, "lb-2", newNode(12), l, t.TempDir())
		second.Join(pool())
		second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, KernelAnswers: true}})
		pass(time.Second)
		second.plan(vip1)
		pass(time.Minute)
		if second.Active(0) || second.Announces(vip1.Addr) {
			t.Fatal("two directors announce")
		}
		expect(t, second.node.fake, desired(vip1, rs1, rs2).State)
		if w := second.Status().Waiting; w.For != WaitingForPeer || !strings.Contains(w.Message, "lb-1") {
			t.Errorf("waiting = %+v", w)
		}
		if err := second.Ready(); err != nil {
			t.Errorf("a standby is not ready: %v", err)
		}
		first.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true}})
		second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true}})
		pass(time.Second)
		first.stop()
		pass(time.Second)
		if !second.Active(0) || !second.Announces(vip1.Addr) || l.holder() != "lb-2" {
			t.Errorf("no takeover: %+v", second.Status())
		}
		if last := second.Status().Last; last == nil || !last.Active {
			t.Errorf("last transition = %+v", last)
		}
		epoch, since := second.Term(0)
		pass(time.Minute)
		if later, when := second.Term(0); epoch != 2 || later != epoch || when != since || time.Since(since) < time.Minute {
			t.Errorf("in term %d since %s, and a minute later in %d since %s", epoch, since, later, when)
		}
		if epoch, _ := first.Term(0); epoch != 0 {
			t.Errorf("the one before is in term %d", epoch)
		}
	})
}

func TestADirectorThatCannotServeHandsOver(t *testing.T) {
	for name, fails := range map[string]func(*process){
		"its link is down": func(p *process) {
			down := p.node.link
			down.Running = false
			p.node.news <- down
		},
		"its kernel refuses": func(p *process) { p.node.setIPVS(false) },
		"its node is cordoned": func(p *process) {
			p.SetPeers(Rank{Cordoned: true}, []Peer{{Node: "lb-2", Live: true, Candidate: true}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &leases{}
				first := active(t, l, t.TempDir())
				second := start(t, "lb-2", newNode(12), l, t.TempDir())
				second.Join(pool())
				second.SetPeers(Rank{}, []Peer{{Node: "lb-1", Live: true, Candidate: true}})
				second.plan(vip1)
				first.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true, Candidate: true}})
				pass(15 * time.Second)
				if !first.Active(0) || second.Active(0) {
					t.Fatal("the first is not the active one")
				}
				fails(first)
				// What a kernel refuses is noticed when it is next looked at.
				pass(prepareAudit + time.Second)
				if first.Active(0) || !second.Active(0) || l.holder() != "lb-2" {
					t.Errorf("not handed over: %+v, the Lease is %q's", first.Status(), l.holder())
				}
			})
		})
	}
}

func TestLeavingCleansUpAndWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := &leases{}, t.TempDir()
		p := active(t, l, dir)
		restores := 0
		p.node.Script(func(c kernelCall) kernelFault {
			if c.Method == "Restore" {
				if restores++; restores == 1 {
					return kernelFails
				}
			}
			return kernelWorks
		})
		if err := p.Leave(t.Context()); err == nil || !p.Marked() {
			t.Errorf("err = %v, marked: %t", err, p.Marked())
		}
		if l.holder() != "" || p.PoolName() != "" || p.Active(0) {
			t.Errorf("the Lease is %q's, the pool %q", l.holder(), p.PoolName())
		}
		p.Program(desired(vip1, rs1)) // What was on its way comes too late.
		if err := p.Leave(t.Context()); err != nil || p.Marked() {
			t.Errorf("err = %v, marked: %t", err, p.Marked())
		}
		pass(2 * auditInterval)
		expect(t, p.node.fake)
		if p.store.load() != nil {
			t.Error("the checkpoint is still there")
		}
		if err := p.Ready(); err != nil {
			t.Errorf("in no pool: %v", err)
		}

		p.Join(pool())
		pass(time.Second)
		p.plan(vip1)
		pass(5 * time.Second)
		if !p.Active(0) {
			t.Errorf("back in the pool: %+v", p.Status())
		}
	})
}

func TestANodeWithoutIPVSTakesPartAsSoonAsItHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		n.setIPVS(false)
		p := start(t, "lb-1", n, &leases{}, t.TempDir())
		if err := p.Ready(); err == nil {
			t.Error("ready before it is known which pool it is in")
		}
		p.Join(pool())
		pass(time.Second)
		p.plan(vip1)
		pass(time.Minute)
		status := p.Status()
		if status.Err == nil || status.Facts.IPVS || status.Announcing || p.Ready() == nil || p.Alive() != nil {
			t.Errorf("status = %+v, ready: %v, alive: %v", status, p.Ready(), p.Alive())
		}
		n.setIPVS(true)
		pass(prepareRetry + time.Second)
		if !p.Active(0) || p.Ready() != nil {
			t.Errorf("status = %+v, ready: %v", p.Status(), p.Ready())
		}
		expect(t, n.fake, desired(vip1, rs1, rs2).State) // It is not known whether it is alone.
	})
}

func TestAFlushedGuardIsBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		p.node.fake.FlushGuard()
		p.node.guard <- struct{}{}
		pass(time.Second)
		expect(t, p.node.fake, answering(desired(vip1, rs1, rs2).State))
	})
}

func TestChangedSettingsReachTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		changed := pool()
		changed.Timeouts = netstate.Timeouts{TCP: time.Minute}
		p.Join(changed)
		pass(time.Second)
		if prepared, _ := p.node.fake.Node(); prepared.Timeouts != changed.Timeouts {
			t.Errorf("prepared %+v", prepared)
		}
		if !p.Active(0) || !p.Announces(vip1.Addr) {
			t.Error("a changed setting ended the announcement")
		}
	})
}

func TestWhyADirectorIsNoCandidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		n.link.Running = false
		p := start(t, "lb-1", n, &leases{}, t.TempDir())
		want := func(wait Wait) {
			t.Helper()
			pass(time.Second)
			if got := p.Status().Waiting; got.For != wait {
				t.Errorf("waiting for %d (%s), want %d", got.For, got.Message, wait)
			}
		}
		want(WaitingForPool)
		n.setIPVS(false)
		p.Join(pool())
		want(WaitingForNode)
		n.setIPVS(true)
		pass(prepareRetry)
		want(WaitingForLink)
		up := n.link
		up.Running = true
		n.news <- up
		want(WaitingForPlan)
		p.worker.Block(ErrPending)
		p.plan(vip1)
		want(WaitingForKernel)
		p.worker.Block(nil)
		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Live: true, KernelAnswers: true}})
		want(WaitingForPeer)
		p.SetPeers(Rank{}, nil)
		want(WaitingForNothing)
		// A VIP that is added later is no reason not to serve the others.
		p.worker.Block(ErrPending)
		p.plan(vip1, vip2)
		want(WaitingForNothing)
		if !p.Status().Programmed {
			t.Error("the director is not ready for the sake of one VIP")
		}
		p.worker.Block(nil)
	})
}

func TestClaimsOfAVIP(t *testing.T) {
	type source struct {
		mac  announce.MAC
		peer Peer
	}
	stranger := source{mac: announce.MAC{2, 9}}
	peer := source{announce.MAC{2, 8}, Peer{Node: "lb-8", Live: true}}
	dead := source{announce.MAC{2, 7}, Peer{Node: "lb-7"}}
	confirmed := election.Decision{Announce: true, Confirmed: true}
	by := func(s source, node string) []Conflict { return []Conflict{{vip1.Addr, s.mac, node}} }
	for name, tc := range map[string]struct {
		decision election.Decision
		since    time.Duration
		from     source
		want     []Conflict
	}{
		"of a stranger":                        {election.Decision{Announce: true}, time.Second, stranger, by(stranger, "")},
		"of a peer":                            {confirmed, time.Minute, peer, by(peer, "")},
		"of a peer, just after a takeover":     {confirmed, time.Second, peer, nil},
		"of a peer that may hold the Lease":    {election.Decision{Announce: true}, time.Minute, peer, nil},
		"of a dead peer's kernel":              {confirmed, time.Minute, dead, by(dead, "lb-7")},
		"of a dead peer, just after it died":   {confirmed, time.Second, dead, nil},
		"of one that is dead or cut off alone": {election.Decision{Announce: true}, time.Minute, dead, nil},
		"on a standby":                         {election.Decision{}, time.Minute, stranger, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &group{decision: tc.decision, since: time.Now().Add(-tc.since)}
				s := &session{groups: []*group{g}}
				claim := announce.Claim{VIP: vip1.Addr, MAC: tc.from.mac, When: time.Now()}
				for _, first := range []bool{true, false} {
					if got, news := s.disputes(claim, tc.from.peer); got != (tc.want != nil) || news != (got && first) {
						t.Errorf("a conflict: %t, and news: %t", got, news)
					}
				}
				if diff := cmp.Diff(tc.want, g.conflicts.present(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
					t.Errorf("conflicts (-want +got):\n%s", diff)
				}
				time.Sleep(2 * conflictFade)
				if g.conflicts.present() != nil || g.conflicts.fade() != (tc.want != nil) || g.conflicts.fade() {
					t.Error("a conflict stays for ever")
				}
			})
		})
	}
}

func TestConflictsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c conflicts
		for i := range 2 * maxConflicts {
			claim := announce.Claim{VIP: vip1.Addr, MAC: announce.MAC{2, byte(i >> 8), byte(i)}, When: time.Now()}
			if news := c.add(claim, ""); news != (i < maxConflicts) {
				t.Fatalf("claim %d is news: %t", i, news)
			}
		}
		if got := len(c.present()); got != maxConflicts {
			t.Errorf("%d conflicts, want %d", got, maxConflicts)
		}
	})
}

// spoken notes what is announced and defended.
type spoken struct{ announced, defended int }

func (s *spoken) Announce(...netip.Addr)  { s.announced++ }
func (s *spoken) Defend(netip.Addr) error { s.defended++; return nil }

func TestADeadDirectorsKernelIsAnsweredAndShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		dead := Peer{Node: "lb-2", MAC: "02:00:00:00:00:12"}
		heard := announce.MAC{2, 0, 0, 0, 0, 0x12}
		said := &spoken{}
		hear := func() []Conflict {
			p.present().hear(announce.Claim{VIP: vip1.Addr, MAC: heard, When: time.Now()}, said)
			return p.Status().Conflicts
		}
		p.SetPeers(Rank{}, []Peer{dead})
		hear()
		if got := hear(); len(got) != 1 || got[0] != (Conflict{vip1.Addr, heard, "lb-2"}) || said.announced != 1 {
			t.Errorf("conflicts = %+v, announced %d times at once, want once", got, said.announced)
		}
		pass(time.Second)
		if hear(); said.announced != 2 {
			t.Errorf("announced %d times, want again a second later", said.announced)
		}
		// When it lives again, its frames are those of a peer.
		dead.Live = true
		p.SetPeers(Rank{}, []Peer{dead})
		pass(time.Second)
		if got := hear(); len(got) != 1 || got[0].Peer != "" || said.announced != 2 {
			t.Errorf("conflicts = %+v, announced %d times", got, said.announced)
		}
		changes := p.changes()
		pass(conflictFade + time.Second)
		if got := p.Status().Conflicts; got != nil || p.changes() == changes {
			t.Errorf("conflicts = %+v a minute later, or nobody was told", got)
		}
	})
}

func TestAFailedLookAtTheNodeForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		before := p.Local()
		p.present().noteNode(kernel.Facts{}, errBroken)
		if after := p.Local(); after.Pool != before.Pool || len(after.Own) != len(before.Own) {
			t.Errorf("local = %+v, before %+v", after, before)
		}
	})
}

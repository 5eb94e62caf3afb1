package election

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestHandover is about a director "a" and its peers "b" and "c".
func TestHandover(t *testing.T) {
	self := func(change func(*Self)) Self {
		s := Self{Node: "a", Instance: "a1", Candidate: true}
		if change != nil {
			change(&s)
		}
		return s
	}
	peer := func(node string, priority int32) Peer { return Peer{Node: node, Candidate: true, Priority: priority} }
	mine := Lease{Known: true, Exists: true, Holder: "a", Instance: "a1", Epoch: 7, ChangedAt: at(0)}
	asked := func(by string) Lease { l := mine; l.RequestedBy = by; return l }
	others := Lease{Known: true, Exists: true, Holder: "b", Instance: "b1", Epoch: 8, ChangedAt: at(0)}
	vacant := func(successor string) Lease {
		return Lease{Known: true, Exists: true, Epoch: 7, ChangedAt: at(0), Successor: successor}
	}
	holding := Own{Announcing: true, RenewSent: at(0)}
	yielding := Own{Announcing: true, Yield: Yield{Begun: at(0), LastAt: at(0), Tried: []string{"b"}, Why: Unfit}}
	taken := yielding
	taken.Yield.TakenAt = at(100)
	confirmed := Decision{Announce: true, Confirmed: true, Epoch: 7, NextAt: at(1000), Reason: Holding}
	release := func(to string, why Reason) Decision {
		d := confirmed
		d.Write, d.Successor, d.Why = Release, to, why
		return d
	}
	impaired := func(s *Self) { s.Impaired = true }
	outdone := func(since int) Own { o := holding; o.OutdoneSince = at(since); return o }
	until := func(next int) Decision { d := confirmed; d.NextAt = at(next); return d }
	unfit, cordoned, leaving := func(s *Self) { s.Unfit = true }, func(s *Self) { s.Cordoned = true }, func(s *Self) { s.Terminating = true }
	away := Contact{Answered: at(0), Failed: at(9900)}

	cases := map[string]struct {
		now     int
		self    Self
		peers   []Peer
		lease   Lease
		contact Contact
		own     Own
		never   bool
		heard   int
		want    Decision
	}{
		"who leaves names the best peer and goes on": {
			now: 500, self: self(leaving), peers: []Peer{peer("b", 0), peer("c", 1)}, lease: mine, own: holding,
			want: release("c", Leaving),
		},
		"who cannot serve hands over": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: mine, own: holding, want: release("b", Unfit),
		},
		"who cannot serve stays if nobody else can": {
			now: 500, self: self(unfit), peers: []Peer{{Node: "b"}}, lease: mine, own: holding, want: confirmed,
		},
		"a cordoned holder hands over": {
			now: 500, self: self(cordoned), peers: []Peer{peer("b", 0)}, lease: mine, own: holding, want: release("b", Cordoned),
		},
		"a cordoned holder stays among cordoned ones": {
			now: 500, self: self(cordoned), peers: []Peer{{Node: "b", Candidate: true, Cordoned: true}}, lease: mine, own: holding, want: confirmed,
		},
		"a holder that serves not all hands over to one that does": {
			now: 500, self: self(impaired), peers: []Peer{{Node: "b", Candidate: true, Impaired: true, Priority: 9}, peer("c", 0)}, lease: mine,
			own: outdone(-4500), want: release("c", Impaired),
		},
		"it leaves the others time to say the same": {
			now: 499, self: self(impaired), peers: []Peer{peer("c", 0)}, lease: mine, own: outdone(-4500), want: until(500),
		},
		"it stays among those that serve no more": {
			now: 500, self: self(impaired), peers: []Peer{{Node: "b", Candidate: true, Impaired: true, Priority: 9}}, lease: mine,
			own: holding, want: confirmed,
		},
		"it stays if who serves all is none to take over": {
			now: 500, self: self(impaired), peers: []Peer{{Node: "b"}}, lease: mine, own: holding, want: confirmed,
		},
		"it stays while the group has moved much": {
			now: 500, self: self(impaired), peers: []Peer{peer("b", 0)}, lease: mine,
			own: Own{
				Announcing: true, RenewSent: at(0), OutdoneSince: at(-9000),
				Moves: []time.Time{at(-179_400), at(-80_000), at(-60_000), at(0)},
			},
			want: until(600),
		},
		"a cordoned holder that serves all does not hand over to one that does not": {
			now: 500, self: self(cordoned), peers: []Peer{{Node: "b", Candidate: true, Impaired: true}}, lease: mine, own: holding, want: confirmed,
		},
		"a holder that serves not all hands over to a cordoned one that does": {
			now: 500, self: self(impaired), peers: []Peer{{Node: "b", Candidate: true, Cordoned: true}}, lease: mine,
			own: outdone(-4500), want: release("b", Impaired),
		},
		"who leaves goes to one that does not serve all if there is no other": {
			now: 500, self: self(leaving), peers: []Peer{{Node: "b", Candidate: true, Impaired: true}}, lease: mine, own: holding,
			want: release("b", Leaving),
		},
		"a holder does not give way to a higher priority that serves less": {
			now: 500, self: self(nil), peers: []Peer{{Node: "c", Candidate: true, Impaired: true, Priority: 1}}, lease: asked("c"), own: holding, want: confirmed,
		},
		"of two that serve not all the higher priority has the group": {
			now: 500, self: self(impaired), peers: []Peer{{Node: "c", Candidate: true, Impaired: true, Priority: 1}}, lease: asked("c"), own: holding,
			want: release("c", Preempted),
		},
		"a director that serves not all ranks last": {
			now: 0, self: self(impaired), peers: []Peer{{Node: "b", Candidate: true, Cordoned: true}, peer("c", -1)}, lease: vacant(""),
			want: Decision{Epoch: 7, NextAt: at(200), Reason: Vacant},
		},
		"a higher priority that serves not all does not ask": {
			now: 2000, self: self(func(s *Self) { s.Priority, s.Impaired = 1, true }), peers: []Peer{peer("b", 0)}, lease: others,
			own: Own{CandidateSince: at(-3000)}, want: Decision{Epoch: 8, NextAt: at(3000), Reason: HeldByOther},
		},
		"a holder gives way to a higher priority that asks": {
			now: 500, self: self(nil), peers: []Peer{peer("b", 0), peer("c", 1)}, lease: asked("c"), own: holding, want: release("c", Preempted),
		},
		"a holder does not give way to its like": {
			now: 500, self: self(nil), peers: []Peer{peer("c", 0)}, lease: asked("c"), own: holding, want: confirmed,
		},
		"a holder does not give way where the pool forbids it": {
			now: 500, self: self(nil), peers: []Peer{peer("c", 1)}, lease: asked("c"), own: holding, never: true, want: confirmed,
		},
		"a holder does not give way to the dead": {
			now: 500, self: self(nil), peers: []Peer{peer("b", 0)}, lease: asked("c"), own: holding, want: confirmed,
		},
		"a successor that is heard before the release is answered": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: mine, heard: 400,
			own:  Own{Announcing: true, RenewSent: at(0), Yield: Yield{Asked: at(300)}},
			want: Decision{Epoch: 7, Reason: Unfit},
		},
		"and ends it although its reason is gone meanwhile": {
			now: 500, self: self(nil), peers: []Peer{peer("b", 0)}, lease: mine, heard: 400,
			own:  Own{Announcing: true, RenewSent: at(0), Yield: Yield{Asked: at(300), Why: Cordoned}},
			want: Decision{Epoch: 7, Reason: Cordoned},
		},
		"after the release it announces": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: vacant("b"), own: yielding,
			want: Decision{Announce: true, Epoch: 7, NextAt: at(2000), Reason: Unfit},
		},
		"it is silent as soon as the successor is heard": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: vacant("b"), own: yielding, heard: 499,
			want: Decision{Epoch: 7, Reason: Unfit},
		},
		"what was heard before is no successor": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: vacant("b"), own: yielding, heard: -100,
			want: Decision{Announce: true, Epoch: 7, NextAt: at(2000), Reason: Unfit},
		},
		"it announces for a while if the successor is not heard": {
			now: 599, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: others, own: taken,
			want: Decision{Announce: true, Epoch: 8, NextAt: at(600), Reason: Unfit},
		},
		"and no longer": {
			now: 600, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: others, own: taken,
			want: Decision{Epoch: 8, Reason: Unfit},
		},
		"after two seconds it names the next": {
			now: 2000, self: self(unfit), peers: []Peer{peer("b", 1), peer("c", 0)}, lease: vacant("b"), own: yielding,
			want: Decision{Announce: true, Write: Release, Successor: "c", Why: Unfit, Epoch: 7, Reason: Unfit},
		},
		"with none left it takes the Lease back": {
			now: 2000, self: self(unfit), peers: []Peer{peer("b", 1)}, lease: vacant("b"), own: yielding,
			want: Decision{Announce: true, Write: Acquire, Epoch: 8, Reason: Reclaiming},
		},
		"with none left it ends": {
			now: 2000, self: self(leaving), peers: []Peer{peer("b", 1)}, lease: vacant("b"), own: yielding,
			want: Decision{Epoch: 7, Reason: Leaving},
		},
		"what it took back it keeps for a while": {
			now: 500, self: self(unfit), peers: []Peer{peer("b", 0)}, lease: mine,
			own: Own{Announcing: true, RenewSent: at(0), TookBackAt: at(-29_000)}, want: confirmed,
		},
		"the named successor takes a vacant Lease at once": {
			now: 0, self: self(nil), peers: []Peer{peer("c", 1)}, lease: vacant("a"),
			want: Decision{Write: Acquire, Epoch: 8, Reason: Handover},
		},
		"the others leave it to the successor": {
			now: 299, self: self(nil), lease: vacant("b"), want: Decision{Epoch: 7, NextAt: at(300), Reason: Vacant},
		},
		"and to those of better rank": {
			now: 399, self: self(nil), peers: []Peer{peer("c", 1)}, lease: vacant("b"),
			want: Decision{Epoch: 7, NextAt: at(400), Reason: Vacant},
		},
		"an expired Lease is left to those of better rank": {
			now: 3000, self: self(nil), peers: []Peer{peer("b", 9), peer("c", 1)}, lease: others,
			want: Decision{Epoch: 8, NextAt: at(3100), Reason: HeldByOther},
		},
		"a Lease that is made anew is left to those of better rank": {
			now: 3000, self: self(nil), peers: []Peer{peer("c", 1)}, lease: Lease{Known: true, AbsentSince: at(0)},
			want: Decision{NextAt: at(3100), Reason: Absent},
		},
		"a cordoned director ranks last": {
			now: 0, self: self(cordoned), peers: []Peer{peer("c", -1)}, lease: vacant(""),
			want: Decision{Epoch: 7, NextAt: at(100), Reason: Vacant},
		},
		"a higher priority asks when it has been a candidate for the delay": {
			now: 2000, self: self(func(s *Self) { s.Priority = 1 }), peers: []Peer{peer("b", 0)}, lease: others,
			own: Own{CandidateSince: at(-3000)}, want: Decision{Write: Request, Epoch: 8, NextAt: at(3000), Reason: HeldByOther},
		},
		"and not before": {
			now: 1999, self: self(func(s *Self) { s.Priority = 1 }), peers: []Peer{peer("b", 0)}, lease: others,
			own: Own{CandidateSince: at(-3000)}, want: Decision{Epoch: 8, NextAt: at(2000), Reason: HeldByOther},
		},
		"it does not ask for a group that has moved much": {
			now: 2000, self: self(func(s *Self) { s.Priority = 1 }), peers: []Peer{peer("b", 0)}, lease: others,
			own:  Own{CandidateSince: at(-9000), Moves: []time.Time{at(-100_000), at(-80_000), at(-60_000), at(0)}},
			want: Decision{Epoch: 8, NextAt: at(3000), Reason: HeldByOther},
		},
		"a holder without the API that hears another is silent": {
			now: 10_000, self: self(nil), peers: []Peer{peer("b", 0)}, lease: mine, contact: away, own: holding, heard: 4000,
			want: Decision{Write: Renew, Epoch: 7, Reason: Superseded},
		},
		"a holder without the API goes on whatever it heard before its Lease ended": {
			now: 10_000, self: self(nil), peers: []Peer{peer("b", 0)}, lease: mine, contact: away, own: holding, heard: 2000,
			want: Decision{Announce: true, Write: Renew, Epoch: 7, NextAt: at(12_900), Reason: HoldingUnconfirmed},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := View{
				Now: at(tc.now), LeaseDuration: duration, Group: "pool-0", Preemption: Preemption{Never: tc.never, Delay: 5 * time.Second},
				Self: tc.self, Peers: tc.peers, Lease: tc.lease, Contact: tc.contact, Own: tc.own,
			}
			if tc.contact == (Contact{}) {
				v.Contact.Answered = at(tc.now)
			}
			if tc.heard != 0 {
				v.HeardAt = at(tc.heard)
			}
			tc.want.At, tc.want.Holder = at(tc.now), tc.lease.Holder
			if diff := cmp.Diff(tc.want, Decide(v)); diff != "" {
				t.Errorf("Decide() (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGroupsSpreadOverDirectors: each director is the first for about as many
// groups, and when one goes only its groups move.
func TestGroupsSpreadOverDirectors(t *testing.T) {
	first := func(group int, peers []Peer) string {
		v := View{Group: LeaseName("pool", group), Self: Self{Node: "none"}, Peers: peers}
		return v.candidates()[0].Node
	}
	peers := []Peer{{Node: "lb-1", Candidate: true}, {Node: "lb-2", Candidate: true}, {Node: "lb-3", Candidate: true}}
	count := map[string]int{}
	for group := range 300 {
		before := first(group, peers)
		count[before]++
		if after := first(group, peers[:2]); before != "lb-3" && after != before {
			t.Errorf("group %d moves from %s to %s, although lb-3 goes", group, before, after)
		}
	}
	for _, peer := range peers {
		if n := count[peer.Node]; n < 70 || n > 130 {
			t.Errorf("%s is the first for %d of 300 groups: %s", peer.Node, n, fmt.Sprint(count))
		}
	}
}

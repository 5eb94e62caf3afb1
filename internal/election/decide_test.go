package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const duration = 3 * time.Second

var epochZero = time.Unix(1_700_000_000, 0)

// at returns the moment so many milliseconds into a test.
func at(milliseconds int) time.Time {
	return epochZero.Add(time.Duration(milliseconds) * time.Millisecond)
}

func TestDecide(t *testing.T) {
	self := Self{Node: "a", Instance: "a1", Candidate: true}
	idle := Self{Node: "a", Instance: "a1"}
	leaving := Self{Node: "a", Instance: "a1", Candidate: true, Terminating: true}
	mine := Lease{Known: true, Exists: true, Holder: "a", Instance: "a1", Epoch: 7, ChangedAt: at(0)}
	earlier := Lease{Known: true, Exists: true, Holder: "a", Instance: "a0", Epoch: 7, ChangedAt: at(0)}
	others := Lease{Known: true, Exists: true, Holder: "b", Instance: "b1", Epoch: 7, ChangedAt: at(0)}
	vacant := Lease{Known: true, Exists: true, Epoch: 7, ChangedAt: at(0)}
	absent := Lease{Known: true, AbsentSince: at(0)}
	unsure := func(l Lease) Lease { l.Unsure = true; return l }
	long := func(l Lease) Lease { l.Duration = 10 * time.Second; return l }
	answered := func(ms int) Contact { return Contact{Answered: at(ms)} }
	away := func(ms int) Contact { return Contact{Answered: at(0), Failed: at(ms)} }

	cases := map[string]struct {
		now     int
		self    Self
		lease   Lease
		contact Contact
		own     Own
		want    Decision
	}{
		"a holder announces": {
			now: 500, self: self, lease: mine, own: Own{RenewSent: at(0)},
			want: Decision{Announce: true, Confirmed: true, Epoch: 7, NextAt: at(1000), Reason: Holding},
		},
		"a holder renews after a third": {
			now: 1000, self: self, lease: mine, own: Own{RenewSent: at(0)},
			want: Decision{Announce: true, Confirmed: true, Write: Renew, Epoch: 7, NextAt: at(2850), Reason: Holding},
		},
		"a holder that is no candidate keeps the Lease": {
			now: 1000, self: idle, lease: mine, own: Own{RenewSent: at(0)},
			want: Decision{Announce: true, Confirmed: true, Write: Renew, Epoch: 7, NextAt: at(2850), Reason: Holding},
		},
		"a holder that cannot renew goes on past the expiry": {
			now: 60_000, self: self, lease: mine, contact: away(59_500), own: Own{Announcing: true},
			want: Decision{Announce: true, Write: Renew, Epoch: 7, NextAt: at(62_500), Reason: HoldingUnconfirmed},
		},
		"a holder in doubt writes nothing": {
			now: 2000, self: self, lease: unsure(mine), contact: away(2000), own: Own{RenewSent: at(0)},
			want: Decision{Announce: true, Confirmed: true, Epoch: 7, NextAt: at(2850), Reason: Holding},
		},
		"a holder that stood still is silent until it knows": {
			now: 2850, self: self, lease: mine, contact: answered(1000), own: Own{Announcing: true, RenewSent: at(0)},
			want: Decision{Write: Renew, Epoch: 7, Reason: Stalled},
		},
		"a holder that stood still while the API was away too": {
			now: 60_000, self: self, lease: mine, contact: away(50_000), own: Own{Announcing: true},
			want: Decision{Write: Renew, Epoch: 7, Reason: Stalled},
		},
		"a standby waits": {
			now: 2999, self: self, lease: others, contact: answered(2999),
			want: Decision{Epoch: 7, NextAt: at(3000), Reason: HeldByOther},
		},
		"a standby takes an expired Lease": {
			now: 3000, self: self, lease: others, contact: answered(0),
			want: Decision{Write: Acquire, Epoch: 8, Reason: Expired},
		},
		"a standby waits as long as the holder said": {
			now: 3000, self: self, lease: long(others), contact: answered(0),
			want: Decision{Epoch: 7, NextAt: at(10_000), Reason: HeldByOther},
		},
		"a standby that is no candidate takes nothing": {
			now: 60_000, self: idle, lease: others, contact: answered(0),
			want: Decision{Epoch: 7, Reason: HeldByOther},
		},
		"who announced unconfirmed stops when another holds the Lease, expired or not": {
			now: 3000, self: self, lease: others, contact: answered(2900), own: Own{Announcing: true},
			want: Decision{Write: Acquire, Epoch: 8, Reason: Expired},
		},
		"a standby that cannot see renewals takes nothing": {
			now: 60_000, self: self, lease: others, contact: away(59_000),
			want: Decision{Epoch: 7, Reason: HeldByOther},
		},
		"a standby leaves the holder time to renew when the API server is back": {
			now: 60_000, self: self, lease: others, contact: Contact{Answered: at(60_000), BackAt: at(59_000)},
			want: Decision{Epoch: 7, NextAt: at(60_500), Reason: HeldByOther},
		},
		"a vacant Lease is taken at once and announced when that is answered": {
			now: 0, self: self, lease: vacant, contact: answered(0),
			want: Decision{Write: Acquire, Epoch: 8, Reason: Vacant},
		},
		"a vacant Lease is not taken by who is no candidate": {
			now: 0, self: idle, lease: vacant, contact: answered(0),
			want: Decision{Epoch: 7, Reason: Vacant},
		},
		"an announcer takes back a Lease that was vacated by hand": {
			now: 0, self: idle, lease: vacant, contact: answered(0), own: Own{Announcing: true},
			want: Decision{Announce: true, Write: Acquire, Epoch: 8, Reason: Reclaiming},
		},
		"an announcer takes back a vacated Lease while requests fail": {
			now: 9000, self: idle, lease: unsure(vacant), contact: away(8900), own: Own{Announcing: true},
			want: Decision{Announce: true, Epoch: 7, Reason: Reclaiming},
		},
		"an announcer that stood still has lost a vacated Lease": {
			now: 9000, self: idle, lease: vacant, contact: answered(0), own: Own{Announcing: true},
			want: Decision{Epoch: 7, Reason: Vacant},
		},
		"after a restart the node's Lease is taken over at once": {
			now: 0, self: idle, lease: earlier, contact: answered(0), own: Own{Epoch: 7},
			want: Decision{Write: Acquire, Epoch: 8, Reason: Restarted},
		},
		"after a restart the node's Lease is announced if the API goes away": {
			now: 1000, self: idle, lease: unsure(earlier), contact: away(1000), own: Own{Epoch: 7},
			want: Decision{Announce: true, Epoch: 7, Reason: HoldingUnconfirmed},
		},
		"after a restart the epoch exceeds all that was seen": {
			now: 0, self: self, lease: vacant, contact: answered(0), own: Own{Epoch: 41},
			want: Decision{Write: Acquire, Epoch: 42, Reason: Vacant},
		},
		"after a restart nothing is announced before an answer or the lack of one": {
			now: 0, self: self, own: Own{Restored: true, Epoch: 7},
			want: Decision{Epoch: 7, Reason: NotRead},
		},
		"after a restart without the API the checkpoint's group is announced": {
			now: 1000, self: self, contact: Contact{Failed: at(1000)}, own: Own{Restored: true, Epoch: 7},
			want: Decision{Announce: true, Epoch: 7, NextAt: at(4000), Reason: HoldingUnconfirmed},
		},
		"without a checkpoint and without the API nothing is announced": {
			now: 1000, self: self, contact: Contact{Failed: at(1000)},
			want: Decision{Reason: NotRead},
		},
		"a deleted Lease is made anew by its holder at once": {
			now: 100, self: idle, lease: absent, contact: answered(100), own: Own{Announcing: true, Epoch: 7},
			want: Decision{Announce: true, Write: Create, Epoch: 8, Reason: Reclaiming},
		},
		"a deleted Lease is made anew at once by whom the checkpoint names": {
			now: 100, self: idle, lease: absent, contact: answered(100), own: Own{Restored: true, Epoch: 7},
			want: Decision{Write: Create, Epoch: 8, Reason: Reclaiming},
		},
		"a deleted Lease is left alone by others at first": {
			now: 2999, self: self, lease: absent, contact: answered(100), own: Own{Epoch: 7},
			want: Decision{Epoch: 7, NextAt: at(3000), Reason: Absent},
		},
		"a deleted Lease is made by a candidate after a duration": {
			now: 3000, self: self, lease: absent, contact: answered(100), own: Own{Epoch: 7},
			want: Decision{Write: Create, Epoch: 8, Reason: Absent},
		},
		"a deleted Lease is not made by who is no candidate": {
			now: 60_000, self: idle, lease: absent, contact: answered(100),
			want: Decision{Reason: Absent},
		},
		"a leaving holder falls silent and releases": {
			now: 500, self: leaving, lease: mine, contact: answered(0), own: Own{Announcing: true, RenewSent: at(0)},
			want: Decision{Write: Release, Epoch: 7, Reason: Leaving},
		},
		"a leaving holder in doubt reads before it releases": {
			now: 500, self: leaving, lease: unsure(mine), contact: answered(0), own: Own{Announcing: true},
			want: Decision{Epoch: 7, Reason: Leaving},
		},
		"a leaving standby takes nothing": {
			now: 60_000, self: leaving, lease: vacant, contact: answered(0),
			want: Decision{Epoch: 7, Reason: Leaving},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Decide(View{
				Now: at(tc.now), LeaseDuration: duration,
				Self: tc.self, Lease: tc.lease, Contact: tc.contact, Own: tc.own,
			})
			tc.want.At = at(tc.now)
			if tc.lease.Known {
				tc.want.Holder = tc.lease.Holder
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Decide() (-want +got):\n%s", diff)
			}
		})
	}
}

// moments draws a time before, near or after now, or none.
func moments(now time.Time) *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "none") {
			return time.Time{}
		}
		return now.Add(-time.Duration(rapid.IntRange(0, 10_000).Draw(t, "ms")) * time.Millisecond)
	})
}

func views() *rapid.Generator[View] {
	return rapid.Custom(func(t *rapid.T) View {
		now := at(60_000)
		moment := moments(now)
		nodes := rapid.SampledFrom([]string{"", "a", "b"})
		v := View{
			Now: now, LeaseDuration: duration,
			Self: Self{
				Node: "a", Instance: "1",
				Candidate: rapid.Bool().Draw(t, "candidate"), Terminating: rapid.Bool().Draw(t, "terminating"),
			},
			Contact: Contact{Answered: moment.Draw(t, "answered"), Failed: moment.Draw(t, "failed"), BackAt: moment.Draw(t, "backAt")},
			HeardAt: moment.Draw(t, "heardAt"),
			Peers: rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Peer {
				return Peer{
					Node:      rapid.SampledFrom([]string{"b", "c", "d"}).Draw(t, "peer"),
					Candidate: rapid.Bool().Draw(t, "candidate"), Cordoned: rapid.Bool().Draw(t, "cordoned"),
					Impaired: rapid.Bool().Draw(t, "impaired"),
					Priority: rapid.Int32Range(0, 2).Draw(t, "priority"),
				}
			}), 0, 3, func(p Peer) string { return p.Node }).Draw(t, "peers"),
			Own: Own{
				Announcing: rapid.Bool().Draw(t, "announcing"), Restored: rapid.Bool().Draw(t, "restored"),
				Epoch: rapid.Int64Range(0, 9).Draw(t, "own epoch"), RenewSent: moment.Draw(t, "renewSent"),
				CandidateSince: moment.Draw(t, "candidateSince"), TookBackAt: moment.Draw(t, "tookBackAt"),
				Yield: Yield{Asked: moment.Draw(t, "asked"), Why: Cordoned},
			},
			Lease: Lease{Known: rapid.Bool().Draw(t, "known"), Unsure: rapid.Bool().Draw(t, "unsure")},
		}
		if v.Lease.Known && rapid.Bool().Draw(t, "exists") {
			v.Lease.Exists = true
			v.Lease.Holder = nodes.Draw(t, "holder")
			v.Lease.Instance = rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "instance")
			v.Lease.Epoch = rapid.Int64Range(0, 9).Draw(t, "epoch")
			v.Lease.ChangedAt = moment.Draw(t, "changedAt")
		}
		v.Self.Unfit, v.Self.Cordoned = rapid.Bool().Draw(t, "unfit"), rapid.Bool().Draw(t, "is cordoned")
		v.Self.Impaired, v.Own.OutdoneSince = rapid.Bool().Draw(t, "is impaired"), moment.Draw(t, "outdoneSince")
		v.Self.Priority = rapid.Int32Range(0, 2).Draw(t, "own priority")
		v.Preemption.Never = rapid.Bool().Draw(t, "never")
		if begun := moment.Draw(t, "begun"); !begun.IsZero() && !v.holds() {
			v.Own.Yield = Yield{Begun: begun, LastAt: begun, Tried: []string{"b"}, Why: Unfit}
			if v.Lease.Exists && v.Lease.Holder != "" {
				v.Own.Yield.TakenAt = moment.Draw(t, "takenAt")
			}
		}
		if v.Lease.Exists {
			v.Lease.Successor, v.Lease.RequestedBy = nodes.Draw(t, "successor"), nodes.Draw(t, "requestedBy")
		}
		if v.Lease.Known && !v.Lease.Exists {
			v.Lease.AbsentSince = moment.Draw(t, "absentSince")
		}
		return v
	})
}

// TestDecisionsAreSound states what holds for every view whatsoever.
func TestADecisionIsPendingWhileTheAPIServerHasYetToAnswer(t *testing.T) {
	for reason, want := range map[Reason]bool{
		NotRead: true, Restarted: true, Stalled: true, Reclaiming: true,
		HeldByOther: false, Vacant: false, Absent: false, Expired: false, Superseded: false, Leaving: false, Unfit: false, Preempted: false,
	} {
		if got := (Decision{Reason: reason}).Pending(); got != want {
			t.Errorf("%s: %t", reason, got)
		}
		if (Decision{Reason: reason, Announce: true}).Pending() {
			t.Errorf("%s, and it announces, is pending", reason)
		}
	}
}

func TestDecisionsAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views().Draw(t, "view")
		d := Decide(v)
		heldByOther := v.Lease.Exists && v.Lease.Holder != "" && v.Lease.Holder != v.Self.Node
		highest := max(v.Lease.Epoch, v.Own.Epoch)
		unimpaired := func(node string) bool { p, known := v.peer(node); return known && !p.Impaired }
		switch {
		case !d.NextAt.IsZero() && !d.NextAt.After(v.Now):
			t.Fatalf("NextAt %s is not after now: whoever waits for it would spin", d.NextAt.Sub(v.Now))
		case d.Announce && heldByOther && (v.Own.Yield.Begun.IsZero() || !v.Now.Before(v.Own.Yield.TakenAt.Add(HandoverLimit))):
			t.Fatal("announces what another holds, and not for the end of a handover")
		case d.Announce && v.Self.Terminating && !v.holds() && v.Own.Yield.Begun.IsZero():
			t.Fatal("announces on its way out, and does not hand over")
		case d.Write == Release && !v.Self.Terminating && d.Successor == "":
			t.Fatal("gives up what nobody takes")
		case (d.Successor != "") != (d.Write == Release && d.Why != ""):
			t.Fatalf("would %s for %q because of %q", d.Write, d.Successor, d.Why)
		case d.Write == Request && (v.Preemption.Never || v.Self.Cordoned || !v.Self.Candidate || !heldByOther):
			t.Fatal("asks for what it may not have")
		case d.Write == Request && v.Self.Impaired && unimpaired(v.Lease.Holder):
			t.Fatal("asks for what another serves better")
		case d.Why == Impaired && (!v.Self.Impaired || !unimpaired(d.Successor)):
			t.Fatalf("hands over to %s, which serves no more", d.Successor)
		case d.Why == Cordoned && !v.Self.Impaired && !unimpaired(d.Successor):
			t.Fatalf("hands over to %s, which serves less", d.Successor)
		case d.Confirmed && (!d.Announce || !v.holds()):
			t.Fatal("confirmed without holding the Lease")
		case d.Write != None && (v.Lease.Unsure || !v.Lease.Known):
			t.Fatalf("would %s without having read", d.Write)
		case d.Write == Renew && !v.holds(), d.Write == Release && !v.holds() && v.Own.Yield.Begun.IsZero():
			t.Fatalf("would %s what it does not hold", d.Write)
		case d.Write == Create && v.Lease.Exists, d.Write == Acquire && !v.Lease.Exists:
			t.Fatalf("would %s a Lease with Exists %t", d.Write, v.Lease.Exists)
		case (d.Write == Acquire || d.Write == Create) && d.Epoch != highest+1:
			t.Fatalf("would %s epoch %d after %d", d.Write, d.Epoch, highest)
		case d.Holder != "" && (!v.Lease.Known || !v.Lease.Exists || v.Lease.Holder != d.Holder):
			t.Fatalf("names a holder, %q, that it has not read", d.Holder)
		case d.Reason == "":
			t.Fatal("gives no reason")
		}
	})
}

package election

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// standby is a candidate, a, that saw b renew at 0, heard it claim epoch 7, saw it
// die at 500 and asked for it from 600 to 660 in vain.
func standby() View {
	return View{
		Now: at(700), LeaseDuration: duration,
		Self:      Self{Node: "a", Instance: "a1", Candidate: true},
		Peers:     []Peer{{Node: "b", Candidate: true}},
		Lease:     Lease{Known: true, Exists: true, Holder: "b", Instance: "b1", Epoch: 7, ChangedAt: at(0)},
		Contact:   Contact{Answered: at(0)},
		Own:       Own{Epoch: 7, Started: at(-60_000), SeenAt: at(-60_000), Silence: Silence{Node: "b", Machine: at(660), VIP: at(600)}},
		Witnesses: []Witness{{Peer: Peer{Node: "b", Candidate: true}, Claim: Claim{Epoch: 7, Confirmed: true}, HeardAt: at(50), DeadAt: at(500)}},
		Sounding:  Sounding{Node: "b", Begun: at(600), Ended: at(660), Asked: 1, Answered: 1},
	}
}

// heard is a witness that lives.
func heard(node string, claim Claim) Witness {
	return Witness{Peer: Peer{Node: node, Candidate: true}, Claim: claim, HeardAt: at(650)}
}

func TestALeaseIsTakenEarlyOnlyFromAHolderThatIsDead(t *testing.T) {
	cases := map[string]struct {
		differs func(v *View)
		want    Write
	}{
		"dead and silent":             {func(*View) {}, Acquire},
		"in the turn of a better one": {func(v *View) { v.Peers = append(v.Peers, Peer{Node: "c", Candidate: true, Priority: 1}) }, None},
		"after the turn of a better one": {func(v *View) {
			v.Peers = append(v.Peers, Peer{Node: "c", Candidate: true, Priority: 1})
			v.Now = at(760)
		}, Acquire},
		"never heard":                {func(v *View) { v.Witnesses[0].HeardAt = time.Time{} }, None},
		"alive":                      {func(v *View) { v.Witnesses[0].DeadAt = time.Time{} }, None},
		"unknown to gossip":          {func(v *View) { v.Witnesses = nil }, None},
		"heard in an earlier epoch":  {func(v *View) { v.Witnesses[0].Claim.Epoch = 6 }, None},
		"it renewed after its death": {func(v *View) { v.Lease.ChangedAt = at(501) }, None},
		"its machine answers":        {func(v *View) { v.Sounding.Machine = true }, None},
		"the VIP is answered for":    {func(v *View) { v.Sounding.VIP = true }, None},
		"nobody answers":             {func(v *View) { v.Sounding.Answered = 0 }, None},
		"nobody to ask":              {func(v *View) { v.Sounding.Asked, v.Sounding.Answered = 0, 0 }, None},
		"nobody to ask, and no renewal": {func(v *View) {
			v.Sounding.Asked, v.Sounding.Answered = 0, 0
			v.Now, v.Sounding.Ended = at(1500), at(1400)
		}, Acquire},
		"asked before it died":              {func(v *View) { v.Sounding.Begun = at(500) }, None},
		"another was asked for":             {func(v *View) { v.Sounding.Node = "c" }, None},
		"the answer is old":                 {func(v *View) { v.Now = at(1160) }, None},
		"this director is no candidate":     {func(v *View) { v.Self.Candidate = false }, None},
		"this director terminates":          {func(v *View) { v.Self.Terminating = true }, None},
		"the API server does not answer":    {func(v *View) { v.Contact.Failed = at(690) }, None},
		"a peer claims it already":          {func(v *View) { v.Witnesses = append(v.Witnesses, heard("c", Claim{Epoch: 8})) }, None},
		"the Lease is to be read first":     {func(v *View) { v.Lease.Unsure = true }, None},
		"this director is isolated by then": {func(v *View) { v.Own.Silence.Isolated, v.Sounding.Answered = at(100), 0 }, None},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := standby()
			tc.differs(&v)
			d := Decide(v)
			if d.Write != tc.want || d.Announce != (name == "the API server does not answer") {
				t.Errorf("Decide() = %+v, want %s", d, tc.want)
			}
			if d.Write == Acquire && (d.Reason != HolderDead || d.Epoch != 8) {
				t.Errorf("acquires epoch %d for %s", d.Epoch, d.Reason)
			}
		})
	}
}

func TestAnEpochExceedsWhatWasHeard(t *testing.T) {
	v := standby()
	v.Own.Heard = 11
	if d := Decide(v); d.Write != Acquire || d.Epoch != 12 {
		t.Errorf("Decide() = %+v, want to acquire epoch 12", d)
	}
}

func TestTheHolderThatDiedIsAskedFor(t *testing.T) {
	cases := map[string]struct {
		differs func(v *View)
		want    string
	}{
		"at once":                     {func(v *View) { v.Sounding = Sounding{} }, "b"},
		"not while the answer is new": {func(*View) {}, ""},
		"again":                       {func(v *View) { v.Now = at(860) }, "b"},
		"less often after a while":    {func(v *View) { v.Now, v.Sounding.Begun, v.Sounding.Ended = at(2900), at(2500), at(2560) }, ""},
		"not without gossip":          {func(v *View) { v.Sounding, v.Witnesses, v.Contact.Failed = Sounding{}, nil, at(1) }, ""},
		"not if it lives":             {func(v *View) { v.Sounding, v.Witnesses[0].DeadAt = Sounding{}, time.Time{} }, ""},
		"without the API server too":  {func(v *View) { v.Sounding, v.Contact.Failed = Sounding{}, at(1) }, "b"},
		"without the API server, if it was never heard": {
			func(v *View) {
				v.Sounding, v.Contact.Failed, v.Witnesses[0] = Sounding{}, at(1), Witness{Peer: Peer{Node: "b"}}
			}, "b",
		},
		"without the API server, not while a peer claims": {
			func(v *View) {
				v.Sounding, v.Contact.Failed = Sounding{}, at(1)
				v.Witnesses = append(v.Witnesses, heard("c", Claim{Epoch: 7}))
			}, "",
		},
		"without the API server and anybody": {
			func(v *View) {
				v.Sounding, v.Contact, v.Lease, v.Witnesses[0] = Sounding{}, Contact{Failed: at(1)}, Lease{}, Witness{}
			}, "a",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := standby()
			tc.differs(&v)
			if got := Decide(v).Probe; got != tc.want {
				t.Errorf("asks for %q, want %q", got, tc.want)
			}
		})
	}
}

// holder is a, which holds epoch 7 and has lost b out of sight.
func holder() View {
	v := standby()
	v.Lease.Holder, v.Lease.Instance = "a", "a1"
	v.Own.Announcing, v.Own.Claimed, v.Own.RenewSent = true, 7, at(0)
	v.Witnesses[0].Claim = Claim{}
	return v
}

func TestAHolderThatIsIsolatedHandsOver(t *testing.T) {
	isolated := func(v *View) {
		v.Now, v.Sounding = at(1250), Sounding{Node: "b", Begun: at(1140), Ended: at(1200), Asked: 1}
		v.Own.Silence = Silence{Node: "b", Isolated: at(600)}
	}
	cases := map[string]struct {
		differs func(v *View)
		want    Reason
	}{
		"nobody answers":         {func(*View) {}, Isolated},
		"not long enough":        {func(v *View) { v.Own.Silence.Isolated = at(701) }, ""},
		"somebody answers":       {func(v *View) { v.Own.Silence.Isolated = time.Time{} }, ""},
		"without the API server": {func(v *View) { v.Contact.Failed = at(1240) }, ""},
		"it was in vain before":  {func(v *View) { v.Own.TookBackAt = at(-20_000) }, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := holder()
			isolated(&v)
			tc.differs(&v)
			d := Decide(v)
			if d.Why != tc.want || !d.Announce || (d.Write == Release) != (tc.want != "") {
				t.Errorf("Decide() = %+v, want %q", d, tc.want)
			}
		})
	}
}

func TestClaimsOfPeers(t *testing.T) {
	lost := func(v *View) { v.Now, v.Contact.Failed, v.Own.RenewSent = at(10_000), at(9_900), at(0) }
	cases := map[string]struct {
		differs func(v *View)
		peer    Claim
		goesOn  bool
	}{
		"a holder ignores a provisional claim":                    {func(*View) {}, Claim{Epoch: 9}, true},
		"a holder stops for the next holder":                      {func(*View) {}, Claim{Epoch: 8, Confirmed: true}, false},
		"a holder ignores an earlier one":                         {func(*View) {}, Claim{Epoch: 6, Confirmed: true}, true},
		"without the API a later claim is better":                 {lost, Claim{Epoch: 8}, false},
		"without the API an earlier claim is worse":               {lost, Claim{Epoch: 6}, true},
		"without the API no claim is none":                        {lost, Claim{}, true},
		"who wants to be relieved does not relieve":               {lost, Claim{Epoch: 8, Yielding: true}, true},
		"a provisional claim is worse than a Lease":               {func(v *View) { lost(v); v.Own.Provisional = 9 }, Claim{Epoch: 7, Confirmed: true}, false},
		"a provisional claim is better than one of before":        {func(v *View) { lost(v); v.Own.Provisional = 9 }, Claim{Epoch: 8}, true},
		"a Lease that is known to be over counts for nothing":     {func(v *View) { lost(v); v.Own.Provisional = 9 }, Claim{Epoch: 6, Confirmed: true}, true},
		"a restarted process leaves a later claim alone":          {func(v *View) { lost(v); v.Lease.Instance = "a0" }, Claim{Epoch: 8}, false},
		"a restarted process with the API leaves it alone too":    {func(v *View) { v.Lease.Instance = "a0" }, Claim{Epoch: 8}, false},
		"a process that starts from the checkpoint leaves it too": {func(v *View) { lost(v); v.Lease, v.Own.Restored = Lease{}, true }, Claim{Epoch: 8}, false},
		"a vacated Lease is left to the later claim":              {func(v *View) { v.Lease.Holder, v.Lease.Instance = "", "" }, Claim{Epoch: 8}, false},
		"a deleted Lease is left to the later claim":              {func(v *View) { v.Lease = Lease{Known: true, AbsentSince: at(0)} }, Claim{Epoch: 8}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := holder()
			tc.differs(&v)
			v.Witnesses[0] = heard("b", tc.peer)
			d := Decide(v)
			if d.Announce != tc.goesOn || !tc.goesOn && d.Write != None {
				t.Errorf("Decide() = %+v, want it to go on: %t", d, tc.goesOn)
			}
			v.Witnesses[0].DeadAt = at(9000)
			if d := Decide(v); !d.Announce && v.Lease.Instance != "a0" {
				t.Errorf("Decide() = %+v beside one that is dead", d)
			}
		})
	}
}

func TestASuccessorIsHeardByGossip(t *testing.T) {
	v := holder()
	v.Lease.Holder, v.Lease.Instance = "", ""
	v.Own.Yield = Yield{Begun: at(600), LastAt: at(600), Tried: []string{"b"}, Why: Cordoned}
	for name, tc := range map[string]struct {
		witness Witness
		goesOn  bool
	}{
		"when it announces":         {heard("b", Claim{Epoch: 8, Confirmed: true}), false},
		"not before":                {heard("b", Claim{}), true},
		"not by what it had before": {heard("b", Claim{Epoch: 6}), true},
	} {
		t.Run(name, func(t *testing.T) {
			v.Witnesses = []Witness{tc.witness}
			if d := Decide(v); d.Announce != tc.goesOn {
				t.Errorf("Decide() = %+v, want it to go on: %t", d, tc.goesOn)
			}
		})
	}
}

func TestAColdDirectorRanksAfterCordonedAndBeforeImpairedOnes(t *testing.T) {
	v := View{}
	order := []Peer{
		{Node: "a"},
		{Node: "b", Priority: -1},
		{Node: "c", Cordoned: true, Priority: 9},
		{Node: "d", Cold: true, Priority: 9},
		{Node: "e", Cold: true, Cordoned: true, Priority: 9},
		{Node: "f", Impaired: true, Priority: 9},
	}
	for i := range order[1:] {
		if v.ranks(order[i], order[i+1]) >= 0 {
			t.Errorf("%+v should rank before %+v", order[i], order[i+1])
		}
	}
}

func TestAColdDirectorAsksForNoGroup(t *testing.T) {
	v := standby()
	v.Self.Priority, v.Own.CandidateSince, v.Witnesses = 1, at(-60_000), nil
	if d := Decide(v); d.Write != Request {
		t.Fatalf("Decide() = %+v, want a request", d)
	}
	v.Self.Cold = true
	if d := Decide(v); d.Write != None {
		t.Errorf("Decide() = %+v, want nothing", d)
	}
	v.Lease, v.Peers = Lease{Known: true, Exists: true, Epoch: 7, ChangedAt: at(0)}, nil
	if d := Decide(v); d.Write != Acquire {
		t.Errorf("Decide() = %+v: the only one has to take a free Lease", d)
	}
}

// TestSoundingsCount says which soundings a belief takes in, and what they say.
func TestSoundingsCount(t *testing.T) {
	none := Sounding{Node: "b", Asked: 1}
	silent := func(s Sounding, ms int) Sounding {
		s.Begun, s.Ended, s.Answered = at(ms), at(ms+60), 1
		return s
	}
	cases := map[string]struct {
		happens func(b *belief)
		want    Silence
	}{
		"a silence lasts": {
			func(b *belief) {
				b.sounded(at(160), silent(none, 100))
				b.decide(at(180))
				b.sounded(at(260), silent(none, 200))
			},
			Silence{Node: "b", Machine: at(160), VIP: at(100)},
		},
		"a machine that answers ends it": {
			func(b *belief) {
				b.sounded(at(160), silent(none, 100))
				b.decide(at(180))
				b.sounded(at(260), silent(Sounding{Node: "b", Machine: true, Asked: 1}, 200))
			},
			Silence{Node: "b", VIP: at(100)},
		},
		"a VIP that is answered for ends it": {
			func(b *belief) {
				b.sounded(at(160), silent(none, 100))
				b.decide(at(180))
				b.sounded(at(260), silent(Sounding{Node: "b", VIP: true, Asked: 1}, 200))
			},
			Silence{Node: "b"},
		},
		"another machine begins its own": {
			func(b *belief) {
				b.sounded(at(160), silent(none, 100))
				b.decide(at(180))
				b.sounded(at(260), silent(Sounding{Node: "c", Asked: 1}, 200))
			},
			Silence{Node: "c", Machine: at(260), VIP: at(100)},
		},
		"what was asked before the process stood still says nothing": {
			func(b *belief) { b.decide(at(0)); b.decide(at(151)); b.sounded(at(160), silent(none, 100)) },
			Silence{},
		},
		"an interruption begins anew": {
			func(b *belief) {
				b.sounded(at(160), silent(none, 100))
				for ms := 200; ms < 3000; ms += 50 {
					b.decide(at(ms))
				}
				b.sounded(at(3000), silent(none, 2900))
			},
			Silence{Node: "b", Machine: at(2960), VIP: at(2900)},
		},
		"nobody at all is isolation": {
			func(b *belief) { b.sounded(at(160), Sounding{Node: "b", Begun: at(100), Ended: at(160), Asked: 1}) },
			Silence{Node: "b", VIP: at(100), Isolated: at(100)},
		},
		"a peer that is heard ends isolation": {
			func(b *belief) {
				b.sounded(at(160), Sounding{Node: "b", Begun: at(100), Ended: at(160), Asked: 1})
				b.gossip(at(170), []Witness{{Peer: Peer{Node: "c"}, HeardAt: at(165)}})
			},
			Silence{Node: "b", VIP: at(100)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			b := fresh()
			b.decide(at(90))
			if name == "what was asked before the process stood still says nothing" {
				b = fresh()
			}
			tc.happens(b)
			if diff := cmp.Diff(tc.want, b.own.Silence); diff != "" {
				t.Errorf("silence (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecisionsWithGossipAreSound states what holds for every view whatsoever that
// has gossip in it.
func TestDecisionsWithGossipAreSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := views().Draw(t, "view")
		moment := moments(v.Now)
		for _, node := range []string{"b", "c"} {
			w := Witness{Peer: Peer{Node: node, Candidate: rapid.Bool().Draw(t, "candidate")}, APIReachable: rapid.Bool().Draw(t, "reachable")}
			if w.HeardAt = moment.Draw(t, "heard"); !w.HeardAt.IsZero() {
				w.DeadAt = moment.Draw(t, "dead")
				w.Claim = Claim{rapid.Int64Range(0, 9).Draw(t, "claim"), rapid.Bool().Draw(t, "confirmed"), rapid.Bool().Draw(t, "yielding")}
			}
			v.Witnesses = append(v.Witnesses, w)
		}
		if begun := moment.Draw(t, "sounding"); !begun.IsZero() {
			v.Sounding = Sounding{
				Node: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "sounded"), Begun: begun, Ended: begun.Add(60 * time.Millisecond),
				Machine: rapid.Bool().Draw(t, "machine"), VIP: rapid.Bool().Draw(t, "vip"), Asked: 1, Answered: rapid.IntRange(0, 1).Draw(t, "answered"),
			}
			v.Own.Silence = Silence{Node: v.Sounding.Node, Machine: moment.Draw(t, "since"), VIP: moment.Draw(t, "vip since"), Isolated: moment.Draw(t, "isolated")}
		}
		v.Own.Started, v.Own.SeenAt, v.Own.ContestedSince = moment.Draw(t, "started"), moment.Draw(t, "seen"), moment.Draw(t, "contested")
		if v.Own.Announcing && !v.holds() && v.Own.Yield.Begun.IsZero() && rapid.Bool().Draw(t, "provisional") {
			v.Own.Provisional = rapid.Int64Range(1, 12).Draw(t, "provisional epoch")
			v.Own.Epoch = max(v.Own.Epoch, v.Own.Provisional)
		}
		d := Decide(v)
		c := v.claim(d)
		better := v.anyWitness(func(w Witness) bool {
			return w.claims() && w.Claim.Confirmed && w.Claim.Epoch > max(v.Lease.Epoch, v.Own.Epoch)
		})
		switch {
		case !d.NextAt.IsZero() && !d.NextAt.After(v.Now):
			t.Fatalf("NextAt %s is not after now: whoever waits for it would spin", d.NextAt.Sub(v.Now))
		case d.Announce != (c.Epoch > 0) && c.Epoch+v.Own.Epoch+v.Own.Claimed+v.Lease.Epoch > 0 && v.Own.Claimed > 0:
			t.Fatalf("announces: %t, and claims %+v", d.Announce, c)
		case c.Confirmed != d.Confirmed:
			t.Fatalf("confirmed: %t, and claims %+v", d.Confirmed, c)
		case d.Reason == Provisional && v.Own.Provisional == 0 && (!v.away() || !v.Self.Candidate || v.anyWitness(Witness.claims)):
			t.Fatal("begins a provisional claim without need")
		case d.Reason == Provisional && v.Own.Provisional == 0 && c.Epoch <= max(v.Lease.Epoch, v.Own.Epoch):
			t.Fatalf("begins a provisional claim of epoch %d", c.Epoch)
		case d.Confirmed && better:
			t.Fatal("announces as confirmed beside the next holder")
		case d.Write == Acquire && d.Reason == HolderDead && (v.Sounding.Machine || v.Sounding.VIP || v.Sounding.Answered == 0):
			t.Fatal("takes a Lease early from a segment that is not silent")
		case d.Write != None && (v.Lease.Unsure || !v.Lease.Known):
			t.Fatalf("would %s without having read", d.Write)
		case d.Write == Renew && !v.holds():
			t.Fatal("would renew what it does not hold")
		case d.Probe != "" && v.Self.Terminating:
			t.Fatal("asks the segment on its way out")
		case d.Reason == "":
			t.Fatal("gives no reason")
		}
	})
}

func TestAProcessThatComesBackGivesGossipAMoment(t *testing.T) {
	unheard := Witness{Peer: Peer{Node: "b"}}
	cases := map[string]struct {
		witness Witness
		now     int
		want    bool
	}{
		"while a peer was not heard":    {unheard, 499, false},
		"half a second at most":         {unheard, 500, true},
		"not when all were heard":       {heard("b", Claim{}), 10, true},
		"and heeds what it hears":       {heard("b", Claim{Epoch: 8}), 10, false},
		"and goes on beside an old one": {heard("b", Claim{Epoch: 6}), 10, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v := View{
				Now: at(tc.now), LeaseDuration: duration, Self: Self{Node: "a", Instance: "a2", Candidate: true},
				Contact: Contact{Failed: at(5)}, Own: Own{Started: at(0), Restored: true, Epoch: 7}, Witnesses: []Witness{tc.witness},
			}
			if d := Decide(v); d.Announce != tc.want {
				t.Errorf("Decide() = %+v, want it to announce: %t", d, tc.want)
			}
			v.Contact = Contact{Answered: at(5)}
			v.Lease = Lease{Known: true, Exists: true, Holder: "a", Instance: "a1", Epoch: 7, ChangedAt: at(5)}
			if d := Decide(v); (d.Write == Acquire) != tc.want {
				t.Errorf("Decide() = %+v, want it to take its Lease: %t", d, tc.want)
			}
		})
	}
}

func TestWhoIsIsolatedLeavesAFreeLeaseToOthersFirst(t *testing.T) {
	for name, lease := range map[string]Lease{
		"vacant":      {Known: true, Exists: true, Epoch: 7, ChangedAt: at(0)},
		"released":    {Known: true, Exists: true, Epoch: 7, ChangedAt: at(0), Successor: "a"},
		"has expired": {Known: true, Exists: true, Holder: "b", Epoch: 7, ChangedAt: at(-3000)},
	} {
		t.Run(name, func(t *testing.T) {
			v := standby()
			v.Lease, v.Sounding.Answered, v.Own.Silence.Isolated = lease, 0, at(0)
			if d := Decide(v); d.Write != None || !d.Isolated || d.NextAt.Before(at(3000)) {
				t.Errorf("Decide() = %+v, want to wait for 3 s", d)
			}
			// And for the turn of b, and for who is named as successor.
			v.Now, v.Sounding.Ended = at(3400), at(3300)
			if d := Decide(v); d.Write != Acquire {
				t.Errorf("Decide() = %+v, want to acquire", d)
			}
		})
	}
}

// TestAProvisionalClaimOutlivesItsProcess: the next one goes on by the checkpoint,
// and does not stop for the Lease of the holder that died before.
func TestAProvisionalClaimOutlivesItsProcess(t *testing.T) {
	b := fresh()
	b.own.Restored, b.own.Epoch = true, 9
	for ms := 0; ms <= 1000; ms += 50 {
		b.decide(at(ms))
	}
	b.failed(at(1000), at(10))
	if d := b.decide(at(1010)); !d.Announce || b.claim != (Claim{Epoch: 9}) {
		t.Fatalf("decision %+v, and claims %+v", d, b.claim)
	}
	b.read(at(1050), at(1020), version("5", "b", "b1", "7", 0))
	if d := b.decide(at(1060)); d.Reason != Provisional || b.claim != (Claim{Epoch: 9}) {
		t.Fatalf("decision %+v, and claims %+v", d, b.claim)
	}
	for ms := 1100; ms <= 2500; ms += 50 {
		b.decide(at(ms))
	}
	if d := b.decide(at(2550)); !d.Announce || d.Write != Acquire || d.Epoch != 10 {
		t.Errorf("decision %+v, want to acquire epoch 10", d)
	}
	b.event(at(2560), version("6", "b", "b1", "7", 2500), false)
	if d := b.decide(at(2570)); d.Announce {
		t.Errorf("decision %+v although the holder lives", d)
	}
}

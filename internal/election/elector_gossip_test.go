package election

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestElectorTakesOverEarly: it is told of a death by gossip, asks for the machine,
// and does not wait for the expiry. What it claims it tells with each decision.
func TestElectorTakesOverEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		claim := active.decision().Claim
		if claim != (Claim{Epoch: 1, Confirmed: true}) || standby.decision().Claim != (Claim{}) {
			t.Fatalf("claims %+v and %+v", claim, standby.decision().Claim)
		}
		witness := Witness{Peer: Peer{Node: "a", Candidate: true}, Claim: claim, HeardAt: time.Now()}
		standby.SetGossip([]Witness{witness})
		active.stop()
		time.Sleep(500 * time.Millisecond)
		if probe := standby.decision().Probe; probe != "" {
			t.Fatalf("it asks for %q, which lives", probe)
		}
		witness.DeadAt = time.Now()
		standby.SetGossip([]Witness{witness})
		time.Sleep(10 * time.Millisecond)
		if probe := standby.decision().Probe; probe != "a" {
			t.Fatalf("it asks for %q", probe)
		}
		begun := time.Now()
		time.Sleep(60 * time.Millisecond)
		standby.SetSounding(Sounding{Node: "a", Begun: begun, Ended: time.Now(), Asked: 1, Answered: 1})
		time.Sleep(20 * time.Millisecond)
		if got := standby.decision(); !got.Confirmed || s.holder() != "b/b1/2" || got.Claim != (Claim{Epoch: 2, Confirmed: true}) {
			t.Fatalf("b should be active: %s, %+v", s.holder(), got)
		}
		if changes := standby.changes(); len(changes) != 1 || changes[0].Reason != HolderDead || changes[0].Gap > 2*time.Second {
			t.Errorf("role changes %+v", changes)
		}
	})
}

// TestElectorClaimsProvisionally without the API server, and writes the Lease when
// it is back.
func TestElectorClaimsProvisionally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		witness := Witness{Peer: Peer{Node: "a", Candidate: true}, Claim: active.decision().Claim, HeardAt: time.Now()}
		standby.client.set(true, false)
		active.stop()
		witness.DeadAt = time.Now().Add(time.Second)
		time.Sleep(3 * time.Second)
		standby.SetGossip([]Witness{witness})
		begun := time.Now()
		time.Sleep(60 * time.Millisecond)
		standby.SetSounding(Sounding{Node: "a", Begun: begun, Ended: time.Now(), Asked: 1, Answered: 1})
		time.Sleep(10 * time.Millisecond)
		if got := standby.decision(); !got.Announce || got.Reason != Provisional || got.Claim != (Claim{Epoch: 2}) {
			t.Fatalf("b should claim epoch 2: %+v", got)
		}
		time.Sleep(20 * time.Second)
		standby.client.set(false, false)
		time.Sleep(4 * time.Second)
		if got := standby.decision(); !got.Confirmed || s.holder() != "b/b1/3" || len(standby.changes()) != 1 {
			t.Errorf("b should hold the Lease, and not have wavered: %s, %+v, %+v", s.holder(), got, standby.changes())
		}
	})
}

package election

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
)

// director is an Elector that runs, and what it said.
type director struct {
	*Elector
	client *client
	stop   func()

	mu    sync.Mutex
	last  Decision
	roles []RoleChange
	calls int
}

func run(t *testing.T, s *server, name, instance string, restored Restored) *director {
	t.Helper()
	d := &director{client: &client{server: s, delay: 5 * time.Millisecond}}
	d.Elector = New(Options{
		Leases: d.client, Namespace: "system", Name: LeaseName("pool", 0), Node: name, Instance: instance,
		Settings: Settings{LeaseDuration: duration}, Restored: restored, Jitter: func() float64 { return 0.5 },
		OnDecision: func(decision Decision) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.last = decision
			d.calls++
		},
		OnRole: func(change RoleChange) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.roles = append(d.roles, change)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		d.Run(ctx)
		close(ended)
	}()
	d.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(d.stop)
	return d
}

func (d *director) decision() Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

func (d *director) decisions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

func (d *director) changes() []RoleChange {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.roles
}

// candidates runs a director that acquires a new Lease, and another one.
func candidates(t *testing.T, s *server) (active, standby *director) {
	t.Helper()
	active = run(t, s, "a", "a1", Restored{})
	active.SetStanding(Standing{Candidate: true})
	time.Sleep(4 * time.Second)
	standby = run(t, s, "b", "b1", Restored{})
	standby.SetStanding(Standing{Candidate: true})
	time.Sleep(time.Second)
	if s.holder() != "a/a1/1" || !active.decision().Confirmed || standby.decision().Announce {
		t.Fatalf("a should be active: %s, %+v, %+v", s.holder(), active.decision(), standby.decision())
	}
	return active, standby
}

func TestElectorDecidesEveryTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := run(t, newServer(), "a", "a1", Restored{})
		time.Sleep(2 * time.Second)
		if got := d.decisions(); got < 40 || got > 60 {
			t.Errorf("%d decisions in 2 s, want about 40", got)
		}
		if got := d.decision(); got.Announce || got.Reason != Absent {
			t.Errorf("decision %+v", got)
		}
	})
}

func TestElectorTakesOverFromACrashedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		active.stop()
		// A nudge, so that no tick falls on the expiry by chance.
		time.Sleep(30 * time.Millisecond)
		standby.SetStanding(Standing{Candidate: true})
		time.Sleep(duration + 70*time.Millisecond)
		if got := standby.decision(); !got.Confirmed || s.holder() != "b/b1/2" {
			t.Fatalf("b should be active: %s, %+v", s.holder(), got)
		}
		changes := standby.changes()
		if len(changes) != 1 || !changes[0].Active || changes[0].Reason != Expired || changes[0].Epoch != 2 {
			t.Errorf("role changes %+v", changes)
		}
		if gap := changes[0].Gap; gap < duration || gap > duration+15*time.Millisecond {
			t.Errorf("gap %s, want about %s", gap, duration)
		}
	})
}

func TestElectorHandsOverAtOnceWhenItYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := active.Yield(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if got := standby.decision(); !got.Confirmed || active.decision().Announce {
			t.Errorf("b should be active: %+v, %+v", got, active.decision())
		}
		if changes := standby.changes(); len(changes) != 1 || changes[0].Reason != Vacant || changes[0].Gap > 50*time.Millisecond {
			t.Errorf("role changes %+v", changes)
		}
	})
}

func TestElectorCannotReleaseWithoutTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, _ := candidates(t, s)
		active.client.set(true, false)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := active.Yield(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Yield() = %v, want the context's error", err)
		}
		if active.decision().Announce {
			t.Error("it goes on announcing")
		}
	})
}

func TestElectorGoesOnWithoutTheAPIUntilAnotherHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active := run(t, s, "a", "a1", Restored{})
		active.SetStanding(Standing{Candidate: true})
		time.Sleep(5 * time.Second)
		active.client.set(true, false)
		time.Sleep(time.Minute)
		if got := active.decision(); !got.Announce || got.Reason != HoldingUnconfirmed || active.APIReachable() {
			t.Fatalf("a should go on unconfirmed: %+v, reachable %t", got, active.APIReachable())
		}
		if changes := active.changes(); len(changes) != 1 {
			t.Fatalf("it wavered: %+v", changes)
		}

		other := run(t, s, "b", "b1", Restored{})
		other.SetStanding(Standing{Candidate: true})
		time.Sleep(duration + 100*time.Millisecond)
		if !other.decision().Confirmed {
			t.Fatalf("b should have taken the expired Lease: %+v", other.decision())
		}
		active.client.set(false, false)
		// A request that hangs is given up after a second, the pause after it is
		// half a second at most.
		time.Sleep(2 * time.Second)
		if got := active.decision(); got.Announce || got.Reason != HeldByOther || !active.APIReachable() {
			t.Errorf("a should have stopped: %+v", got)
		}
	})
}

func TestElectorStartsFromTheCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		before := run(t, s, "a", "a1", Restored{})
		before.SetStanding(Standing{Candidate: true})
		time.Sleep(5 * time.Second)
		before.stop()

		again := run(t, s, "a", "a2", Restored{Epoch: 1, Active: true})
		again.client.set(true, false)
		time.Sleep(duration/3 + 10*time.Millisecond)
		if got := again.decision(); !got.Announce || got.Confirmed || got.Epoch != 1 {
			t.Fatalf("a should announce unconfirmed: %+v", got)
		}
		time.Sleep(time.Minute)
		again.client.set(false, false)
		time.Sleep(2 * time.Second)
		if got := again.decision(); !got.Confirmed || s.holder() != "a/a2/2" {
			t.Errorf("a should have the Lease again: %s, %+v", s.holder(), got)
		}
		if changes := again.changes(); len(changes) != 1 {
			t.Errorf("it wavered: %+v", changes)
		}
	})
}

func TestElectorTakesItsLeaseBackAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		active.stop()
		time.Sleep(time.Second)
		again := run(t, s, "a", "a2", Restored{Epoch: 1, Active: true}) // No candidate.
		time.Sleep(50 * time.Millisecond)
		if got := again.decision(); !got.Confirmed || s.holder() != "a/a2/2" {
			t.Errorf("a should be active again: %s, %+v", s.holder(), got)
		}
		if changes := again.changes(); len(changes) != 1 || changes[0].Reason != Restarted {
			t.Errorf("role changes %+v", changes)
		}
		time.Sleep(10 * time.Second)
		if standby.decision().Announce {
			t.Error("b took the Lease")
		}
	})
}

func TestElectorSurvivesALostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		active.client.set(false, true)
		time.Sleep(20 * time.Second)
		active.client.set(false, false)
		time.Sleep(5 * time.Second)
		if s.holder() != "a/a1/1" || !active.decision().Confirmed {
			t.Errorf("a should still be active: %s, %+v", s.holder(), active.decision())
		}
		if len(active.changes()) != 1 || len(standby.changes()) != 0 {
			t.Errorf("roles changed: %+v, %+v", active.changes(), standby.changes())
		}
	})
}

func TestElectorReadsAfterAConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, _ := candidates(t, s)
		// An edit that the holder hears of only by the conflict.
		active.client.set(true, false)
		s.edit(func(l *coordinationv1.Lease) { l.Labels = map[string]string{"team": "net"} })
		active.client.set(false, false)
		time.Sleep(duration)
		if got := active.decision(); !got.Confirmed || len(active.changes()) != 1 {
			t.Errorf("a should have renewed: %+v", got)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lease.Labels["team"] != "net" {
			t.Error("the edit is lost")
		}
	})
}

func TestElectorMakesADeletedLeaseAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		s.remove()
		time.Sleep(100 * time.Millisecond)
		if s.holder() != "a/a1/2" || !active.decision().Confirmed {
			t.Errorf("a should have made it anew: %s, %+v", s.holder(), active.decision())
		}
		time.Sleep(10 * time.Second)
		if standby.decision().Announce || len(active.changes()) != 1 {
			t.Errorf("roles changed: %+v, %+v", active.changes(), standby.changes())
		}
	})
}

func TestElectorReopensASilentWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		active, standby := candidates(t, s)
		// The standby's stream goes silent without ending, as over a dead
		// connection. It is no candidate, so that no write tells it.
		standby.SetStanding(Standing{Candidate: false})
		s.mu.Lock()
		for open := range s.streams {
			if open.client == standby.client {
				delete(s.streams, open)
			}
		}
		s.mu.Unlock()
		time.Sleep(30 * time.Second)
		if !active.decision().Confirmed || standby.decision().Announce {
			t.Errorf("a should be active: %+v, %+v", active.decision(), standby.decision())
		}
		if changed := standby.Status().Lease.ChangedAt; time.Since(changed) > 2*duration {
			t.Errorf("b has seen no renewal since %s", time.Since(changed))
		}
	})
}

func TestElectorIsGentleToTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, _ = candidates(t, s)
		s.mu.Lock()
		gets, writes := s.gets, len(s.writes)
		s.mu.Unlock()
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := len(s.writes) - writes; got < 58 || got > 62 {
			t.Errorf("%d writes in a minute, want 60", got)
		}
		if got := s.gets - gets; got != 0 {
			t.Errorf("%d reads in a minute of peace, want none", got)
		}
	})
}

func TestPauses(t *testing.T) {
	w := &watcher{duration: func() time.Duration { return duration }, jitter: func() float64 { return 1 }}
	var got []time.Duration
	for short := range 6 {
		got = append(got, w.pause(short, false))
	}
	const ms = time.Millisecond
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, time.Second, time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pauses (-want +got):\n%s", diff)
	}
	if got := w.pause(0, true); got != 0 {
		t.Errorf("pause of the first session that was asked to end: %s", got)
	}
}

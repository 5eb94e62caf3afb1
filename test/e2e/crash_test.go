//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

const (
	// mhVIP is served by mh, beside the other one.
	mhVIP = "192.168.11.218"
	// crashLimit is what a crash of the machine may cost, well under the duration of
	// the Lease.
	crashLimit = 2 * time.Second
	// provisionalLimit is the same without the API server.
	provisionalLimit = 5 * time.Second
)

// cutsPower cuts the power of the holder. Gossip and the segment tell that it is
// gone before its Lease has expired, and the other director knows its connections:
// the kernel shared them or, with mh, they go where they went anyway.
func (s *suite) cutsPower(t *testing.T, node string) {
	t.Helper()
	peer := peerOf(node)
	s.serve(t, web("pair-mh", mhVIP, func(spec *v1alpha1.VirtualServerSpec) { spec.Scheduler = v1alpha1.SchedulerMaglevHashing }))
	s.awaitServers(t, peer, mhVIP)
	s.awaitServers(t, peer, pairVIP)
	s.awaitGossip(t, 1)
	wantAllLive := s.hold(t, pairVIP, mhVIP)
	sum := s.under(t, func() {
		if err := s.lab.Kill(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		s.awaitHolder(t, peer)
	})
	if sum.Failed == 0 || sum.Outage > crashLimit {
		t.Errorf("outage %s with %d failed, want some, and at most %s", sum.Outage, sum.Failed, crashLimit)
	}
	wantAllLive()
	await(t, time.Minute, func() string {
		if said := s.lastTransition(t, peer); said.Reason != "Active: HolderDead" {
			return fmt.Sprintf("%s says of its last change of role %+v, want that its reason is HolderDead", peer, said)
		}
		return ""
	})
	t.Logf("%s says %+v", peer, s.lastTransition(t, peer))
}

// withoutAPI stops the API server until the returned function is called, which
// waits until it answers again, or the test ends.
func (s *suite) withoutAPI(t *testing.T) (bringBack func()) {
	t.Helper()
	if err := s.lab.StopAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := sync.OnceFunc(func() {
		if err := s.lab.StartAPI(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(start)
	return func() {
		t.Helper()
		start()
		await(t, 2*time.Minute, func() string { return s.listError(t) })
	}
}

// awaitAgreement waits until all that kubectl shows says that a node serves a
// VirtualServer, and that no other does.
func (s *suite) awaitAgreement(t *testing.T, name, node string) {
	t.Helper()
	await(t, 2*time.Minute, func() string {
		var directors v1alpha1.DirectorList
		var vs v1alpha1.VirtualServer
		if err := s.api.List(t.Context(), &directors); err != nil {
			return err.Error()
		}
		if err := s.api.Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &vs); err != nil {
			return err.Error()
		}
		var active []string
		for _, director := range directors.Items {
			if shown := director.Status.Display; shown != nil && strings.HasPrefix(shown.Active, "1/") &&
				meta.IsStatusConditionTrue(director.Status.Conditions, v1alpha1.ConditionAlive) {
				active = append(active, director.Name)
			}
		}
		shown := ""
		if vs.Status.Display != nil {
			shown = vs.Status.Display.Directors
		}
		if holder := s.holder(t); holder != node || shown != node || !slices.Equal(active, []string{node}) {
			return fmt.Sprintf("the Lease is %q's, DIRECTOR is %q and ACTIVE %q, want them to be %s", holder, shown, active, node)
		}
		return ""
	})
}

// returnAPI brings the API server back while a node alone announces, and wants
// that the Lease becomes that node's and all that is shown says so. The function
// that it returns wants that no role has changed for that, or since.
func (s *suite) returnAPI(t *testing.T, node string, bringBack func()) (wantSame func()) {
	t.Helper()
	roles := s.transitions(node)
	if roles == "" {
		t.Fatalf("%s announces and counts no changes of role", node)
	}
	returned := time.Now()
	bringBack()
	s.awaitAgreement(t, "pair", node)
	t.Logf("all that is shown agrees %s after the API server was started", time.Since(returned).Round(time.Second))
	s.wantAgreement(t, "pair")
	claim := s.claim(t)
	return func() {
		t.Helper()
		if now := s.claim(t); now != claim {
			t.Errorf("the Lease is %s, and was %s since the API server came back", now, claim)
		}
		if now := s.transitions(node); now != roles {
			t.Errorf("changes of role of %s are %s\nand were %s\nbefore the API server came back", node, now, roles)
		}
	}
}

// killsWithoutAPI kills the process of whoever is active, once just before the API
// server goes away and once while it is away. Its machine goes on to forward, and
// either its next process or the other director goes on to announce.
func killsWithoutAPI(t *testing.T, s *suite) {
	active := s.holder(t)
	wantAllLive := s.hold(t, pairVIP)
	sum := s.under(t, func() {
		awaitNext := s.kill(t, active)
		bringBack := s.withoutAPI(t)
		awaitNext()
		one := s.awaitOne(t)
		t.Logf("%s was killed before the API server went away, and %s announces", active, one)
		s.kill(t, one)()
		next := s.awaitOne(t)
		t.Logf("%s was killed while the API server is away, and %s announces", one, next)
		wantSame := s.returnAPI(t, next, bringBack)
		s.awaitPair(t)
		pause(t, leaseDuration)
		wantSame()
	})
	wantFew(t, sum)
	wantAllLive()
}

// crashesWithoutAPI cuts the power of the holder when nobody's Lease is valid any
// more. The other director announces by a provisional claim.
func crashesWithoutAPI(t *testing.T, s *suite) {
	active := s.holder(t)
	peer := peerOf(active)
	s.awaitServers(t, peer, pairVIP)
	s.awaitGossip(t, 1)
	wantAllLive := s.hold(t, pairVIP)
	before := s.roleChanges(t, peer, "Provisional")
	bringBack := s.withoutAPI(t)
	pause(t, leaseDuration)
	sum := s.under(t, func() {
		if err := s.lab.Kill(t.Context(), active); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.lab.Start(context.Background(), active); err != nil {
				t.Error(err)
			}
		})
		await(t, 30*time.Second, func() string {
			if s.announces(peer) {
				return ""
			}
			return peer + " does not announce"
		})
	})
	if sum.Failed == 0 || sum.Outage > provisionalLimit {
		t.Errorf("outage %s with %d failed, want some, and at most %s", sum.Outage, sum.Failed, provisionalLimit)
	}
	if claims := s.roleChanges(t, peer, "Provisional") - before; claims != 1 {
		t.Errorf("%s claimed provisionally %d times, want once", peer, claims)
	}
	wantAllLive()
	s.wantNoLoss(t, func() {
		wantSame := s.returnAPI(t, peer, bringBack)
		if err := s.lab.Start(t.Context(), active); err != nil {
			t.Fatal(err)
		}
		s.awaitPair(t)
		s.awaitServers(t, active, pairVIP)
		s.awaitGossip(t, 1)
		wantSame()
	})
}

package director

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
)

// segment answers probes for one VIP.
type segment struct {
	mu     sync.Mutex
	holder []announce.MAC
	err    error
	asked  []netip.Addr
}

func (s *segment) Probe(_ context.Context, targets []netip.Addr) (announce.Probed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return announce.Probed{Answers: map[netip.Addr][]announce.MAC{targets[0]: s.holder}}, s.err
}

func (s *segment) LookForOthers(vips ...netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, vips...)
}

// A director that serves alone, and cannot renew, must not fall silent on a
// frame that nobody stands for.
func TestAPeersClaimCountsOnlyIfItAnswers(t *testing.T) {
	mac := announce.MAC{2, 0, 0, 0, 0, 0x12}
	for name, tc := range map[string]struct {
		segment *segment
		silent  bool
	}{
		"it answers":            {&segment{holder: []announce.MAC{{9}, mac}}, true},
		"nobody answers":        {&segment{}, false},
		"somebody else answers": {&segment{holder: []announce.MAC{{9}}}, false},
		"the probe is void":     {&segment{holder: []announce.MAC{mac}, err: announce.ErrStalled}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &leases{}
				p := active(t, l, t.TempDir())
				s := p.present()
				p.SetPeers(Rank{}, []Peer{{Node: "lb-2", MAC: mac.String(), Live: true}})
				l.setAway(true)
				pass(10 * time.Second)
				claim := announce.Claim{VIP: vip1.Addr, MAC: mac, When: time.Now()}
				if s.hear(claim, &spoken{}); !p.Active(0) {
					t.Fatal("silent on a frame alone")
				}
				pass(time.Second)
				s.verify(t.Context(), claim, tc.segment)
				if pass(time.Second); p.Active(0) == tc.silent {
					t.Errorf("active: %t", p.Active(0))
				}
			})
		})
	}
}

func TestInAHandoverASuccessorIsBelieved(t *testing.T) {
	for name, tc := range map[string]struct {
		decision election.Decision
		want     bool
	}{
		"cannot renew":    {election.Decision{Announce: true, Reason: election.HoldingUnconfirmed}, true},
		"handing over":    {election.Decision{Announce: true, Reason: election.Leaving, Claim: election.Claim{Epoch: 3, Yielding: true}}, false},
		"a standby":       {election.Decision{Reason: election.HeldByOther}, false},
		"holds the Lease": {election.Decision{Announce: true, Confirmed: true, Reason: election.Holding}, false},
	} {
		if got := unsure(tc.decision); got != tc.want {
			t.Errorf("%s: unsure %t, want %t", name, got, tc.want)
		}
	}
}

// A station that only answers is heard when it is asked. As long as it is there
// the conflict must not come and go.
func TestAConflictThatLastsIsAskedAfterUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := active(t, &leases{}, t.TempDir())
		s := p.present()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wire, said := &segment{}, &spoken{}
		go s.attendClaims(ctx, wire)
		rogue := announce.MAC{2, 9}
		p.SetPeers(Rank{}, nil)
		hear := func() {
			s.hear(announce.Claim{VIP: vip1.Addr, MAC: rogue, When: time.Now(), Kind: announce.Answer}, said)
		}
		hear()
		for range 10 {
			pass(pursueEvery)
			wire.mu.Lock()
			asked := slices.Contains(wire.asked, vip1.Addr)
			wire.asked = nil
			wire.mu.Unlock()
			if !asked {
				t.Fatal("a conflict that is there was not asked after")
			}
			hear()
			if got := p.Status().Conflicts; len(got) != 1 || got[0].MAC != rogue {
				t.Fatalf("conflicts = %+v", got)
			}
		}
		pass(conflictFade + pursueEvery)
		wire.mu.Lock()
		wire.asked = nil
		wire.mu.Unlock()
		if pass(time.Minute); len(wire.asked) != 0 || p.Status().Conflicts != nil {
			t.Errorf("asked after %v, conflicts = %+v when it is over", wire.asked, p.Status().Conflicts)
		}
		if !p.Active(0) || said.announced != 0 {
			t.Errorf("active %t, announced %d times for a stranger", p.Active(0), said.announced)
		}
	})
}

// However a stranger speaks, and whatever the Lease, it changes no role.
func TestAStrangerChangesNoRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &leases{}
		p := active(t, l, t.TempDir())
		l.setAway(true)
		said := &spoken{}
		for range 600 {
			pass(100 * time.Millisecond)
			for _, kind := range []announce.Kind{announce.Gratuitous, announce.Answer, announce.Source} {
				p.present().hear(announce.Claim{VIP: vip1.Addr, MAC: announce.MAC{2, 9}, When: time.Now(), Kind: kind}, said)
			}
			if !p.Announces(vip1.Addr) {
				t.Fatal("a stranger silenced the active director")
			}
		}
		if said.defended == 0 || said.announced != 0 {
			t.Errorf("defended %d times, announced anew %d times", said.defended, said.announced)
		}
	})
}

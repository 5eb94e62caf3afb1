package director

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

func (n *node) SetDirectors(_ context.Context, macs []net.HardwareAddr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refusesDirectors {
		return errBroken
	}
	n.directors = []string{}
	for _, mac := range macs {
		n.directors = append(n.directors, mac.String())
	}
	return nil
}

// marks makes every service of a plan a marked one.
func marks(d plan.Desired) plan.Desired {
	marked := plan.Desired{Key: d.Key, State: netstate.New()}
	marked.State.Addresses = d.State.Addresses
	for k, v := range d.State.Guard {
		marked.State.Guard[k] = v
		if k.Port != 0 {
			k.Marked = true
			marked.State.Guard[k] = v
		}
	}
	for k, v := range d.State.Services {
		k.Marked = true
		marked.State.Services[k] = v
	}
	for k, v := range d.State.Destinations {
		k.Service.Marked = true
		marked.State.Destinations[k] = v
	}
	return marked
}

// wantMarked checks what the kernel has of vip1, as long as it has not the rest.
func wantMarked(t *testing.T, when string, n *node, want bool) {
	t.Helper()
	service := webOf(vip1)
	service.Marked = true
	if _, got := n.fake.State().Services[service]; got != want {
		t.Errorf("%s it has a marked service: %t, want %t", when, got, want)
	}
}

func TestNoServiceIsMarkedBeforeTheGuardKnowsTheDirectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		d := start(t, "lb-1", n, &leases{}, t.TempDir())
		d.Join(pool())
		d.plan(vip2)
		d.Program(marks(desired(vip1, rs1)))
		pass(5 * time.Second)
		wantMarked(t, "before it knows which directors there are", n, false)
		if n.fake.State().Services[webOf(vip2)].Scheduler == "" {
			t.Error("a VIP without marks waits too")
		}
		if refused := d.worker.Refused(); len(refused) > 0 {
			t.Errorf("what it waits for counts as a refusal of its kernel: %v", refused)
		}

		silent := lb2()
		silent.Live, silent.MAC = true, ""
		d.SetPeers(Rank{}, []Peer{silent})
		pass(5 * time.Second)
		wantMarked(t, "before a live one has told its MAC address", n, false)

		n.mu.Lock()
		n.refusesDirectors = true
		n.mu.Unlock()
		knownTo(d, lb2())
		pass(5 * time.Second)
		wantMarked(t, "while its kernel does not take them", n, false)
		n.mu.Lock()
		n.refusesDirectors = false
		n.mu.Unlock()
		pass(directorsRetry + time.Second)
		wantMarked(t, "when the guard knows them", n, true)
		if !slices.Equal(n.directors, []string{"02:00:00:00:00:0c"}) {
			t.Errorf("the guard knows %v", n.directors)
		}

		// What is there stays, and follows its plan.
		d.SetPeers(Rank{}, []Peer{silent})
		d.Program(marks(desired(vip1, rs1, rs2)))
		pass(5 * time.Second)
		wantMarked(t, "when another joins", n, true)
		if got := len(n.fake.State().Destinations); got != 4 {
			t.Errorf("there are %d destinations, want 4", got)
		}
	})
}

func TestADirectorThatIsAloneMarksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		d := start(t, "lb-1", n, &leases{}, t.TempDir())
		d.Join(pool())
		d.Program(marks(desired(vip1, rs1)))
		d.SetPeers(Rank{}, nil)
		pass(time.Second)
		wantMarked(t, "alone", n, true)
	})
}

func TestTheGuardIsToldOfDirectorsThatJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		d := start(t, "lb-1", n, &leases{}, t.TempDir())
		d.Join(pool())
		third := lb2()
		third.Node, third.MAC, third.Live = "lb-3", "02:00:00:00:00:0a", false
		for _, tc := range []struct {
			when  string
			peers []Peer
			want  []string
		}{
			{"alone", nil, []string{}},
			{"with one, live or not", []Peer{third}, []string{"02:00:00:00:00:0a"}},
			{"with two", []Peer{lb2(), third}, []string{"02:00:00:00:00:0a", "02:00:00:00:00:0c"}},
			{"when one left", []Peer{lb2()}, []string{"02:00:00:00:00:0c"}},
		} {
			d.SetPeers(Rank{}, tc.peers)
			pass(time.Second)
			if !slices.Equal(n.directors, tc.want) {
				t.Errorf("%s the guard knows %v, want %v", tc.when, n.directors, tc.want)
			}
		}
	})
}

// ownMAC is that of node 11.
var ownMAC = gossip.MAC{2, 0, 0, 0, 0, 11}

func TestADirectorIsNoCandidateBeforeThePeersGuardsKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := startGossiping(t, newNode(11), w, &leases{}, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.Join(pool())
		p.plan(vip2)
		knownTo(p, lb2())
		other := gossip.MAC{2, 0, 0, 0, 0, 77}
		member := func(directors []gossip.MAC) gossip.Member {
			return gossip.Member{Node: "lb-2", Alive: true, HeardAt: time.Now(), State: gossip.State{MAC: lb2().MAC, Directors: directors}}
		}
		relayed, dead := member([]gossip.MAC{other}), member([]gossip.MAC{other})
		relayed.Relayed = true
		dead.Alive, dead.Dead = false, true
		want := func(when string, m gossip.Member, want Wait) {
			t.Helper()
			w.set(func(w *wire) { w.view = gossip.View{Members: []gossip.Member{m}} })
			pass(2 * judgeEvery)
			got := p.Status().Waiting
			if got.For != want || (want == WaitingForPeerGuard) != strings.Contains(got.Message, "lb-2") {
				t.Errorf("%s it waits for %d (%s), want %d", when, got.For, got.Message, want)
			}
			if err := p.Ready(); err != nil {
				t.Errorf("%s it is not ready: %v", when, err)
			}
		}
		pass(5 * time.Second)
		want("without marked services", member([]gossip.MAC{other}), WaitingForNothing)
		p.mu.Lock()
		p.wanted[vip1] = struct{}{}
		p.mu.Unlock()
		p.Program(marks(desired(vip1, rs1)))
		pass(time.Second)
		want("unknown to a peer", member([]gossip.MAC{other}), WaitingForPeerGuard)
		want("unknown to a peer that knows nobody", member([]gossip.MAC{}), WaitingForPeerGuard)
		want("with a peer that does not say", member(nil), WaitingForNothing)
		want("with a peer for which another speaks", relayed, WaitingForNothing)
		want("with a peer that is dead", dead, WaitingForNothing)
		want("known to the peer", member([]gossip.MAC{ownMAC, other}), WaitingForNothing)
		w.mu.Lock()
		defer w.mu.Unlock()
		if want := []gossip.MAC{{2, 0, 0, 0, 0, 12}}; !slices.Equal(w.state.Directors, want) {
			t.Errorf("it says that its guard knows %v, want %v", w.state.Directors, want)
		}
	})
}

// TestAGuardKnowsWhoeverGossips has a peer of whose MAC address the API server knows
// nothing, because it is away, say.
func TestAGuardKnowsWhoeverGossips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		n := newNode(11)
		p := startGossiping(t, n, w, &leases{}, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.Join(pool())
		silent := lb2()
		silent.MAC = ""
		knownTo(p, silent)
		p.Program(marks(desired(vip1, rs1)))
		pass(5 * time.Second)
		wantMarked(t, "before anybody told the MAC address", n, false)
		w.set(func(w *wire) {
			w.view = gossip.View{Members: []gossip.Member{
				{Node: "lb-2", Alive: true, HeardAt: time.Now(), State: gossip.State{MAC: lb2().MAC}},
				{Node: "lb-3", Alive: true, HeardAt: time.Now(), State: gossip.State{MAC: "no MAC"}},
			}}
		})
		pass(5 * time.Second)
		wantMarked(t, "when the peer has told it", n, true)
		if !slices.Equal(n.directors, []string{lb2().MAC}) {
			t.Errorf("the guard knows %v", n.directors)
		}
	})
}

func TestMoreDirectorsThanCanBeToldAreNot(t *testing.T) {
	var macs []net.HardwareAddr
	for i := range gossip.MaxDirectors {
		macs = append(macs, net.HardwareAddr{2, 0, 0, 0, 0, byte(i)})
	}
	if got := toldOf(macs); len(got) != len(macs) {
		t.Errorf("%d are told", len(got))
	}
	if got := toldOf(append(macs, net.HardwareAddr{2, 0, 0, 0, 1, 0})); got != nil {
		t.Errorf("%v are told", got)
	}
	if got := toldOf(nil); got == nil {
		t.Error("that there is none is not told")
	}
}

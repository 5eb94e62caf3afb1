package director

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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

package director

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// sharingPool is a pool whose directors share connections.
func sharingPool() Pool {
	p := pool()
	p.ConnectionSync = ConnectionSync{Enabled: true, ID: 7, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848}
	p.Election.Preemption = election.Preemption{Delay: 30 * time.Second}
	return p
}

// sends is a peer that shares connections from an address.
func sends(p Peer, from string) Peer {
	p.SyncAddress = netip.MustParseAddr(from)
	return p
}

func wantShared(t *testing.T, when string, n *node, want kernel.Sync) {
	t.Helper()
	if diff := cmp.Diff(want, n.shares(), addr); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func (n *node) setSynced(state kernel.SyncState, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.synced, n.syncErr = state, err
}

func (n *node) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.syncs
}

func TestConnectionsAreSharedWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		n.setSynced(kernel.SyncState{Running: true, Source: first4}, nil)
		p := start(t, "lb-1", n, &leases{}, t.TempDir())
		p.Join(sharingPool())
		pass(5 * time.Second)
		if n.asked() != 0 {
			t.Error("the kernel was told before it was known who the others are")
		}
		p.SetPeers(Rank{}, []Peer{sends(lb2(), "192.168.11.12"), {Node: "lb-3"}})
		pass(time.Second)
		want := kernel.Sync{
			SyncDaemon: kernel.SyncDaemon{Interface: "eth0", ID: 7, Group: netip.MustParseAddr("224.0.0.81"), Port: 8848},
			Members:    []netip.Addr{second4},
		}
		wantShared(t, "with one peer that shares", n, want)
		if got := p.Status().Sync; !got.Enabled || !got.Running || got.Source != first4 || got.Err != nil {
			t.Errorf("status %+v", got)
		}

		p.SetPeers(Rank{}, []Peer{sends(lb2(), "192.168.11.12"), sends(Peer{Node: "lb-3"}, "192.168.11.13")})
		pass(time.Second)
		want.Members = append(want.Members, netip.MustParseAddr("192.168.11.13"))
		wantShared(t, "with another one", n, want)

		elsewhere := sharingPool()
		elsewhere.ConnectionSync.Interface, elsewhere.ConnectionSync.Port = "eth1", 9000
		p.Join(elsewhere)
		pass(time.Second)
		want.Interface, want.Port = "eth1", 9000
		wantShared(t, "with other settings", n, want)

		p.Join(pool())
		pass(time.Second)
		wantShared(t, "when it is turned off", n, kernel.Sync{})
		if got := p.Status().Sync; got.Enabled || got.Running || got.Cold {
			t.Errorf("status %+v", got)
		}
	})
}

func TestSharingIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		n.setSynced(kernel.SyncState{Running: true}, nil)
		p := start(t, "lb-1", n, &leases{}, t.TempDir())
		p.Join(sharingPool())
		p.SetPeers(Rank{}, nil)
		pass(10 * time.Second)
		if got := n.asked(); got != 1 {
			t.Errorf("told %d times at first, want once", got)
		}
		pass(prepareAudit)
		if got := n.asked(); got != 2 {
			t.Errorf("told %d times after an audit, want twice", got)
		}
		link := n.link
		link.Addresses = []netip.Prefix{netip.MustParsePrefix("192.168.11.99/24")}
		n.news <- link
		pass(time.Second)
		if got := n.asked(); got != 3 {
			t.Errorf("told %d times after the address changed, want three times", got)
		}
		n.setSynced(kernel.SyncState{}, kernel.ErrSyncDaemonTaken)
		pass(prepareAudit)
		before := n.asked()
		if got := p.Status().Sync; got.Running || !errors.Is(got.Err, kernel.ErrSyncDaemonTaken) {
			t.Errorf("status %+v", got)
		}
		pass(prepareRetry)
		if n.asked() <= before {
			t.Error("what failed is not tried again")
		}
		n.setSynced(kernel.SyncState{Running: true}, nil)
		pass(prepareRetry)
		if got := p.Status().Sync; !got.Running || got.Err != nil {
			t.Errorf("status %+v", got)
		}
	})
}

func TestADirectorIsColdUntilItHasListened(t *testing.T) {
	for name, tc := range map[string]struct {
		state kernel.SyncState
		err   error
		until time.Duration
	}{
		"one that has just begun to listen":       {state: kernel.SyncState{Running: true, Since: 4 * time.Second}, until: 34 * time.Second},
		"one that an earlier process left":        {state: kernel.SyncState{Running: true, Since: -time.Hour}, until: time.Second},
		"one that cannot has nothing to wait for": {err: kernel.ErrSyncRefused, until: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(11)
				n.setSynced(tc.state, tc.err)
				began := time.Now()
				p := start(t, "lb-1", n, &leases{}, t.TempDir())
				p.Join(sharingPool())
				p.SetPeers(Rank{}, nil)
				for ; time.Since(began) < time.Minute; pass(time.Second) {
					at := time.Since(began)
					if at <= time.Second {
						continue // it has yet to find out
					}
					if want := at < tc.until; p.Cold() != want || p.Status().Sync.Cold != want {
						t.Fatalf("cold = %v, %v at %s, want %v", p.Cold(), p.Status().Sync.Cold, at, want)
					}
				}
			})
		})
	}
}

func TestThatADirectorIsNoLongerColdIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(11)
		n.setSynced(kernel.SyncState{Running: true, Since: 4*time.Second + 300*time.Millisecond}, nil)
		p := start(t, "lb-1", n, &leases{}, t.TempDir())
		p.Join(sharingPool())
		p.SetPeers(Rank{}, nil)
		pass(34 * time.Second)
		before := p.changes()
		pass(500 * time.Millisecond)
		if p.Cold() || p.changes() == before {
			t.Errorf("cold = %v, told %d times", p.Cold(), p.changes()-before)
		}
		if p.Status().Sync.ColdUntil != (time.Time{}) {
			t.Error("it says until when it is cold, and is not")
		}
	})
}

func TestADirectorThatSharesNothingIsNotCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, "lb-1", newNode(11), &leases{}, t.TempDir())
		if p.Cold() {
			t.Error("it is cold without a pool")
		}
		p.Join(pool())
		pass(100 * time.Millisecond)
		if p.Cold() {
			t.Error("it is cold although nothing is shared")
		}
	})
}

func TestSharingGoesOnWithoutTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, dir := &leases{}, t.TempDir()
		p := start(t, "lb-1", newNode(11), l, dir)
		p.Join(sharingPool())
		p.SetPeers(Rank{}, []Peer{sends(lb2(), "192.168.11.12")})
		p.plan(vip1)
		pass(5 * time.Second)
		want := p.node.shares()
		p.stop()

		n := newNode(11)
		start(t, "lb-1", n, l, dir)
		pass(5 * time.Second)
		wantShared(t, "by the checkpoint", n, want)
	})
}

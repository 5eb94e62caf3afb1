package director

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

func TestOnlyLivePeersAreExpectedToBeHeard(t *testing.T) {
	keys := [][]byte{keylist.NewKey()}
	peers := []Peer{{Node: "lb-2", Live: true, Candidate: true}, {Node: "lb-3"}}
	restored := &checkpoint.Checkpoint{Pool: "default", Peers: []checkpoint.Peer{{Node: "lb-4", Live: true}, {Node: "lb-5"}}}
	for name, tc := range map[string]struct {
		director *Director
		want     []election.Peer
	}{
		"those that the API server knows":    {&Director{gossipKeys: keys, peers: peers, peersKnown: true, restored: restored}, []election.Peer{{Node: "lb-2", Candidate: true}}},
		"before that, those that were known": {&Director{gossipKeys: keys, restored: restored}, []election.Peer{{Node: "lb-4"}}},
		"of another pool none":               {&Director{gossipKeys: keys, restored: &checkpoint.Checkpoint{Pool: "other", Peers: restored.Peers}}, nil},
		"without keys none":                  {&Director{peers: peers, peersKnown: true}, nil},
		"nobody is known":                    {&Director{gossipKeys: keys}, nil},
	} {
		if diff := cmp.Diff(tc.want, tc.director.expected("default")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestARestartWaitsOnlyForWhomItMayHear: with a live peer that is never heard it takes
// gossip's half a second to announce what is its own, else it is at once.
func TestARestartWaitsOnlyForWhomItMayHear(t *testing.T) {
	for name, tc := range map[string]struct {
		peer  Peer
		keys  [][]byte
		waits bool
	}{
		"a live peer":          {Peer{Node: "lb-2", Live: true}, [][]byte{keylist.NewKey()}, true},
		"a peer that is gone":  {Peer{Node: "lb-2"}, [][]byte{keylist.NewKey()}, false},
		"no keys to hear with": {Peer{Node: "lb-2", Live: true}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, dir := &leases{}, t.TempDir()
				p := gossips(t, &wire{}, l, dir)
				if tc.keys != nil {
					p.SetGossipKeys(tc.keys)
				}
				p.plan(vip1)
				p.SetPeers(Rank{}, []Peer{tc.peer})
				pass(15 * time.Second)
				if !p.Active(0) {
					t.Fatal("it is not active")
				}
				// A process that is killed gives nothing up.
				l.setAway(true)
				p.stop()
				l.setAway(false)
				again := startGossiping(t, p.node, &wire{}, l, dir)
				pass(200 * time.Millisecond)
				if again.Active(0) == tc.waits {
					t.Errorf("after 200 ms it is active: %t", again.Active(0))
				}
				if pass(500 * time.Millisecond); !again.Active(0) {
					t.Error("it does not announce what is its own")
				}
			})
		})
	}
}

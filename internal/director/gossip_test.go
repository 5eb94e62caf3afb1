package director

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

// wire is what a director's gossip is made of in these tests: what runs last, and
// what it was told.
type wire struct {
	mu      sync.Mutex
	cfg     gossip.Config
	made    int
	running bool
	fails   error
	state   gossip.State
	told    []gossip.Verdicts
	peers   []gossip.Peer
	keys    [][]byte
	view    gossip.View
	heard   map[string]map[gossip.Service]gossip.Heard
}

func (w *wire) make(cfg gossip.Config) (Gossiper, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cfg, w.keys, w.peers, w.made = cfg, cfg.Keys, nil, w.made+1
	return w, nil
}

func (w *wire) Run(ctx context.Context) error {
	w.mu.Lock()
	fails := w.fails
	w.running = fails == nil
	w.mu.Unlock()
	if fails != nil {
		return fails
	}
	<-ctx.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
	return nil
}

func (w *wire) Tell(state gossip.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
}

func (w *wire) TellVerdicts(told []gossip.Verdicts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = told
}

func (w *wire) Verdicts(node string) map[gossip.Service]gossip.Heard {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard[node]
}

func (w *wire) SetPeers(peers []gossip.Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers = peers
}

func (w *wire) SetKeys(keys [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys = keys
	return nil
}

func (w *wire) View() gossip.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view
}

func (w *wire) set(change func(*wire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

// seen is what a wire is looked at for.
type seen struct {
	Bind    netip.Addr
	Port    uint16
	Probe   time.Duration
	Running bool
	Peers   []gossip.Peer
	Keys    [][]byte
	State   gossip.State
}

func (w *wire) expect(t *testing.T, what string, want seen) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := seen{w.cfg.Bind, w.cfg.Port, w.cfg.ProbeInterval, w.running, w.peers, w.keys, w.state}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// gossips is a director that is alone, active, serves vip1, and gossips.
func gossips(t *testing.T, w *wire, l *leases, dir string) *process {
	t.Helper()
	p := startGossiping(t, newNode(11), w, l, dir)
	p.Join(pool())
	pass(time.Second)
	return p
}

func startGossiping(t *testing.T, n *node, w *wire, l *leases, dir string) *process {
	t.Helper()
	return startAs(t, "lb-1", n, l, dir, func(c *Config) { c.Gossip = w.make })
}

var (
	ownAddr  = netip.MustParseAddr("192.168.11.11")
	peerAddr = netip.MustParseAddr("192.168.11.12")
	own6     = netip.MustParseAddr("fd00:11::11")
	peer6    = netip.MustParseAddr("fd00:11::12")
)

func TestADirectorGossipsOnItsAnnouncementInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := gossips(t, w, &leases{}, t.TempDir())
		if w.made != 0 {
			t.Errorf("it gossips without keys: %+v", w.cfg)
		}
		keys := [][]byte{keylist.NewKey()}
		p.SetGossipKeys(keys)
		pass(time.Second)
		want := seen{Bind: ownAddr, Port: gossip.DefaultPort, Running: true, Keys: keys, State: gossip.State{MAC: "02:00:00:00:00:0b", APIReachable: true}}
		w.expect(t, "before it knows what to serve", want)

		p.SetPeers(Rank{Priority: 7, Cordoned: true}, []Peer{
			{Node: "lb-2", Address: peerAddr, IPv6Address: peer6},
			{Node: "lb-3", IPv6Address: netip.MustParseAddr("fe80::3")},
			{Node: "lb-4", Address: peer6},
		})
		p.plan(vip1)
		pass(5 * time.Second)
		want.Peers = []gossip.Peer{{Node: "lb-2", Addr: peerAddr}, {Node: "lb-3"}, {Node: "lb-4"}}
		want.State.Candidate, want.State.Cordoned, want.State.Priority = true, true, 7
		want.State.Directors = []gossip.MAC{}
		want.State.Claims = []gossip.Claim{{Group: 0, Epoch: 1, Confirmed: true}}
		w.expect(t, "active", want)
		if w.made != 1 {
			t.Errorf("it was begun %d times, want once", w.made)
		}

		want.Keys = [][]byte{keylist.NewKey(), keys[0]}
		p.SetGossipKeys(want.Keys)
		moved := pool()
		moved.Gossip = Gossip{Port: 7999, ProbeInterval: time.Second}
		pass(time.Second)
		w.expect(t, "with other keys", want)
		if w.made != 1 {
			t.Errorf("it was begun %d times for the sake of keys", w.made)
		}
		p.Join(moved)
		pass(time.Second)
		want.Port, want.Probe = 7999, time.Second
		w.expect(t, "on another port", want)

		link := p.node.link
		link.Addresses = []netip.Prefix{netip.PrefixFrom(own6, 64)}
		p.node.news <- link
		pass(time.Second)
		want.Bind = own6
		want.Peers = []gossip.Peer{{Node: "lb-2", Addr: peer6}, {Node: "lb-3"}, {Node: "lb-4", Addr: peer6}}
		w.expect(t, "with IPv6 alone", want)

		p.stop()
		if w.running {
			t.Error("gossip goes on without the director")
		}
	})
}

func TestGossipThatCannotBeginIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{fails: errors.New("address already in use")}
		p := gossips(t, w, &leases{}, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		pass(10 * time.Second)
		if w.running || w.made < 5 || w.made > 20 {
			t.Errorf("running: %t, after %d tries in 10 s", w.running, w.made)
		}
		if s := p.present(); len(s.gossip.view().Members) != 0 {
			t.Error("there is something to be seen without gossip")
		}
		w.set(func(w *wire) { w.fails = nil })
		pass(2 * gossipRetry)
		if !w.running {
			t.Error("it does not run although it could")
		}
	})
}

func TestKeysAreRememberedWhereTheCheckpointIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, l := t.TempDir(), &leases{}
		keys := [][]byte{keylist.NewKey(), keylist.NewKey()}
		p := gossips(t, &wire{}, l, dir)
		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Address: peerAddr}})
		settings := pool()
		settings.Gossip = Gossip{Port: 7999, ProbeInterval: time.Second}
		p.Join(settings)
		p.SetGossipKeys(keys)
		p.plan(vip1)
		pass(5 * time.Second)
		p.stop()
		text, err := os.ReadFile(filepath.Join(dir, "pools", "default.json"))
		if err != nil || len(text) == 0 {
			t.Fatal(err)
		}

		// The next process, without the API server.
		l.setAway(true)
		w := &wire{}
		again := startGossiping(t, p.node, w, l, dir)
		pass(syncPatience + time.Second)
		w.mu.Lock()
		got := seen{Bind: w.cfg.Bind, Port: w.cfg.Port, Probe: w.cfg.ProbeInterval, Running: w.running, Keys: w.keys, Peers: w.peers}
		w.mu.Unlock()
		want := seen{Bind: ownAddr, Port: 7999, Probe: time.Second, Running: true, Keys: keys, Peers: []gossip.Peer{{Node: "lb-2", Addr: peerAddr}}}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("without the API server (-want +got):\n%s", diff)
		}
		// What the API server says later counts more.
		newer := [][]byte{keylist.NewKey()}
		again.SetGossipKeys(newer)
		pass(time.Second)
		w.mu.Lock()
		if !cmp.Equal(w.keys, newer) {
			t.Error("the keys of the API server are not used")
		}
		w.mu.Unlock()
		// Who leaves the pool leaves no keys.
		if err := again.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "pools")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of checkpoints and keys: %v", err)
		}
	})
}

func TestKeysThatComeBeforeThePoolAreRememberedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := startGossiping(t, newNode(11), &wire{}, &leases{}, dir)
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.Join(pool())
		pass(time.Second)
		if _, err := os.Stat(filepath.Join(dir, "pools", "default.keys")); err != nil {
			t.Error(err)
		}
	})
}

// TestAPeerThatVouchesForItselfIsCompany has a peer of which the API server says
// that it is not there.
func TestAPeerThatVouchesForItselfIsCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := gossips(t, w, &leases{}, t.TempDir())
		p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Address: peerAddr}})
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.plan(vip1)
		pass(5 * time.Second)
		for _, tc := range []struct {
			name   string
			member gossip.Member
			alone  bool
		}{
			{"it was never met", gossip.Member{}, true},
			{"it could take over", gossip.Member{Node: "lb-2", Alive: true, State: gossip.State{Candidate: true}}, false},
			{"it could not", gossip.Member{Node: "lb-2", Alive: true}, true},
			{"another says that it could", gossip.Member{Node: "lb-2", Alive: true, Relayed: true, State: gossip.State{Candidate: true}}, true},
			{"it could, and is dead", gossip.Member{Node: "lb-2", Dead: true, State: gossip.State{Candidate: true}}, true},
		} {
			w.set(func(w *wire) { w.view = gossip.View{Members: []gossip.Member{tc.member}} })
			pass(2 * judgeEvery)
			if answers := p.Status().KernelAnswers; answers != tc.alone {
				t.Errorf("%s: the kernel answers: %t, want %t", tc.name, answers, tc.alone)
			}
			if n := len(p.electorate()); (n == 0) != tc.alone {
				t.Errorf("%s: %d peers take part in the election", tc.name, n)
			}
		}
	})
}

func TestAClaimIsToldForEachGroupThatIsAnnounced(t *testing.T) {
	s := &session{groups: []*group{
		{number: 0, decision: election.Decision{Claim: election.Claim{Epoch: 3, Confirmed: true}}},
		{number: 1, decision: election.Decision{Epoch: 9}},
		{number: 2, decision: election.Decision{Claim: election.Claim{Epoch: 4, Yielding: true}}},
	}}
	want := []gossip.Claim{{Group: 0, Epoch: 3, Confirmed: true}, {Group: 2, Epoch: 4, Yielding: true}}
	if diff := cmp.Diff(want, s.claims()); diff != "" {
		t.Errorf("claims() (-want +got):\n%s", diff)
	}
}

func TestAWitnessSaysOnlyWhatItSaidItself(t *testing.T) {
	at := time.Unix(1000, 0)
	claims := []gossip.Claim{{Group: 0, Epoch: 3}, {Group: 1, Epoch: 5, Confirmed: true}}
	heard := gossip.Member{
		Node: "lb-2", HeardAt: at, Alive: true, Said: claims,
		State: gossip.State{Candidate: true, APIReachable: true, Claims: claims},
	}
	relayed, dead, left, stranger := heard, heard, heard, heard
	// It said more before it fell silent than this director heard.
	relayed.Relayed = true
	relayed.State.Claims = []gossip.Claim{{Group: 1, Epoch: 6}}
	dead.Dead, dead.DeadAt = true, at.Add(time.Second)
	left.Left = true
	stranger.Node = "lb-9"
	peer := election.Peer{Node: "lb-2", Held: 2}
	spoken := election.Witness{
		Peer: election.Peer{Node: "lb-2", Held: 2, Candidate: true}, HeardAt: at, APIReachable: true, Claim: election.Claim{Epoch: 5, Confirmed: true},
	}
	died, other := spoken, spoken
	died.DeadAt = at.Add(time.Second)
	other.Peer = election.Peer{Node: "lb-9", Candidate: true}
	for name, tc := range map[string]struct {
		members []gossip.Member
		want    []election.Witness
	}{
		"never heard":             {nil, []election.Witness{{Peer: peer}}},
		"heard":                   {[]gossip.Member{heard}, []election.Witness{spoken}},
		"told of by others":       {[]gossip.Member{relayed}, []election.Witness{{Peer: peer, HeardAt: at, Claim: election.Claim{Epoch: 5, Confirmed: true}}}},
		"dead":                    {[]gossip.Member{dead}, []election.Witness{died}},
		"gone of its own will":    {[]gossip.Member{left}, []election.Witness{}},
		"one that nobody expects": {[]gossip.Member{stranger}, []election.Witness{{Peer: peer}, other}},
	} {
		got := witnesses(gossip.View{Members: tc.members}, []election.Peer{peer}, 1)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestWhoDiedIsToldAtOnceAndTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		p := gossips(t, w, &leases{}, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.SetPeers(Rank{}, []Peer{lb2()})
		p.plan(vip1)
		pass(5 * time.Second)
		at := time.Now()
		for _, tc := range []struct {
			name   string
			member gossip.Member
			want   time.Time
		}{
			{"dead", gossip.Member{Node: "lb-2", Dead: true, DeadAt: p.present().now()}, at},
			{"back", gossip.Member{Node: "lb-2", Alive: true}, time.Time{}},
		} {
			before := p.changes()
			w.set(func(w *wire) { w.view = gossip.View{Members: []gossip.Member{tc.member}} })
			w.cfg.Changed()
			pass(100 * time.Millisecond)
			if p.changes() == before {
				t.Errorf("%s: nobody is told", tc.name)
			}
			if got := p.Died("lb-2"); !got.Equal(tc.want) {
				t.Errorf("%s: it died at %s, want %s", tc.name, got, tc.want)
			}
			if got := p.Died("lb-3"); !got.IsZero() {
				t.Errorf("another died at %s", got)
			}
		}
	})
}

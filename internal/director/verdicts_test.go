package director

import (
	"encoding/binary"
	"log/slog"
	"maps"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// table is what a kernel holds of a plan, and what one director found.
type table struct {
	have     netstate.Observation
	verdicts map[netip.Addr]health.Verdict
}

// pass has the director bring the kernel to the plan, as a Worker does.
func (k *table) pass(desired plan.Desired, heard func(plan.Desired) hearsay) {
	w := &Worker{verdicts: func(p health.Probe) health.Verdict { return k.verdicts[p.Target.Addr] }, heard: heard}
	want, _, _ := plan.Want(w.agreed(desired), k.have, w.verdicts, plan.Memory{}, time.Unix(1000, 0))
	k.have = netstate.Observation{State: want}
}

// TestTablesAgreeWhateverEachDirectorFinds has an active director tell a standby of
// its servers again and again, while each finds what it finds.
func TestTablesAgreeWhateverEachDirectorFinds(t *testing.T) {
	verdict := rapid.SampledFrom([]health.Verdict{health.Unknown, health.Up, health.Down})
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "servers")
		var servers []netip.Addr
		for i := range n {
			servers = append(servers, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
		}
		policy := plan.Policy{
			DrainTimeout: usualDrain, Scale: 1, Quorum: uint64(rapid.IntRange(1, 100*n).Draw(t, "quorum")),
			Sorry: rapid.SampledFrom([]netip.Addr{{}, rs1}).Draw(t, "sorry"),
		}
		d := checked(policy, servers...)
		d.State.Services[webOf(vip1)] = netstate.Service{Scheduler: "mh"}
		fast := rapid.Permutation(servers).Draw(t, "order")[0]
		d.State.Destinations[destinationOf(vip1, fast)] = netstate.Destination{Method: netstate.DR, Weight: rapid.Uint32Range(0, 3).Draw(t, "weight")}
		var active, standby table
		for range rapid.IntRange(1, 5).Draw(t, "turns") {
			for _, k := range []*table{&active, &standby} {
				k.verdicts = map[netip.Addr]health.Verdict{}
				for _, server := range servers {
					k.verdicts[server] = verdict.Draw(t, "verdict")
				}
			}
			active.pass(d, nil)
			said := map[gossip.Service]gossip.Verdicts{}
			for _, v := range verdictsIn(d, active.have.State) {
				said[v.Service] = v
			}
			standby.pass(d, func(d plan.Desired) hearsay {
				return hearsay{verdicts: understood(d, func(s gossip.Service) (gossip.Verdicts, bool) { v, ok := said[s]; return v, ok })}
			})
			if diff := cmp.Diff(active.have.Destinations, standby.have.Destinations, addr); diff != "" {
				t.Fatalf("the tables (-active +standby):\n%s", diff)
			}
		}
	})
}

func TestWhatIsSaidOfOtherServersIsNotUnderstood(t *testing.T) {
	said := verdictsIn(scheduledBy("mh", vip1, rs1, rs2), scheduledBy("mh", vip1, rs1).State)
	if len(said) != 1 || said[0].Down != "\x02" {
		t.Fatalf("it says %+v, want that the second is down", said)
	}
	hear := func(gossip.Service) (gossip.Verdicts, bool) { return said[0], true }
	want := map[netstate.DestinationKey]health.Verdict{destinationOf(vip1, rs1): health.Up, destinationOf(vip1, rs2): health.Down}
	if got := understood(scheduledBy("mh", vip1, rs2, rs1), hear); !maps.Equal(want, got) {
		t.Errorf("%v is understood, want %v", got, want)
	}
	for name, d := range map[string]plan.Desired{
		"a server less":      scheduledBy("mh", vip1, rs1),
		"another server":     scheduledBy("mh", vip1, rs1, netip.MustParseAddr("192.168.11.139")),
		"another scheduler":  scheduledBy("wrr", vip1, rs1, rs2),
		"no server and plan": {},
	} {
		if got := understood(d, hear); len(got) != 0 {
			t.Errorf("%s: %v is understood", name, got)
		}
	}
	if got := verdictsIn(scheduledBy("wrr", vip1, rs1), scheduledBy("wrr", vip1, rs1).State); got != nil {
		t.Errorf("%+v is said of a table that nobody has to share", got)
	}
	if got := verdictsIn(scheduledBy("mh", vip1, rs1), netstate.New()); got != nil {
		t.Errorf("%+v is said of a service that is not there", got)
	}
}

// TestTheHashOfServersIsTheSameInEveryVersion holds because directors are updated one
// after the other.
func TestTheHashOfServersIsTheSameInEveryVersion(t *testing.T) {
	if got := rosters(scheduledBy("mh", vip1, rs2, rs1))[webOf(vip1)].hash(); got != 0xf0be7b5b6aeed486 {
		t.Errorf("hash() = %#x", got)
	}
}

func TestASpeakerClaimsTheGroupByItsOwnWord(t *testing.T) {
	at := time.Unix(1000, 0)
	member := func(node string, claims ...gossip.Claim) gossip.Member {
		return gossip.Member{Node: node, HeardAt: at, State: gossip.State{Claims: claims}}
	}
	left, relayed, unheard, dead := member("lb-5", gossip.Claim{Group: 1, Epoch: 9}), member("lb-5", gossip.Claim{Group: 1, Epoch: 9}),
		member("lb-5", gossip.Claim{Group: 1, Epoch: 9}), member("lb-5", gossip.Claim{Group: 1, Epoch: 9})
	left.Left, relayed.Relayed, unheard.HeardAt, dead.Dead = true, true, time.Time{}, true
	one := member("lb-1", gossip.Claim{Group: 0, Epoch: 9}, gossip.Claim{Group: 1, Epoch: 3})
	for name, tc := range map[string]struct {
		members []gossip.Member
		want    string
	}{
		"nobody":                  {nil, ""},
		"one":                     {[]gossip.Member{one}, "lb-1"},
		"one of another group":    {[]gossip.Member{member("lb-1", gossip.Claim{Group: 0, Epoch: 9})}, ""},
		"of two the later epoch":  {[]gossip.Member{one, member("lb-2", gossip.Claim{Group: 1, Epoch: 4})}, "lb-2"},
		"of two the confirmed":    {[]gossip.Member{one, member("lb-2", gossip.Claim{Group: 1, Epoch: 3, Confirmed: true})}, "lb-2"},
		"one that died":           {[]gossip.Member{one, dead}, "lb-5"},
		"not one that left":       {[]gossip.Member{one, left}, "lb-1"},
		"not one that others say": {[]gossip.Member{one, relayed}, "lb-1"},
		"not one never heard":     {[]gossip.Member{one, unheard}, "lb-1"},
	} {
		if got := speaker(gossip.View{Members: tc.members}, 1); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// riddle makes the plan's servers ones that nobody has a verdict of.
func riddle(d plan.Desired) plan.Desired {
	for key := range d.State.Destinations {
		d.Checks[key] = []plan.Check{{Probe: health.Probe{
			Target:   health.Target{Type: "riddle", Addr: key.Addr, Port: 80},
			Schedule: health.Schedule{Interval: time.Second, Timeout: time.Second, RetryInterval: time.Second, FailureThreshold: 1000, SuccessThreshold: 1},
		}}}
	}
	return d
}

// claims has the wire say that lb-2 claims group 0, and that of vip1 it
// gives new connections to all but those that are down.
func (w *wire) claims(p *process, d plan.Desired, down string) {
	said := verdictsIn(d, d.State)[0]
	said.Down = down
	now := p.present().now()
	w.set(func(w *wire) {
		w.view = gossip.View{Members: []gossip.Member{{
			Node: "lb-2", Alive: true, HeardAt: now, State: gossip.State{Candidate: true, Claims: []gossip.Claim{{Epoch: 1, Confirmed: true}}},
		}}}
		w.heard = map[string]map[gossip.Service]gossip.Heard{"lb-2": {said.Service: {Verdicts: said, At: now}}}
	})
	w.cfg.Changed()
}

// wantTable checks which servers of vip1 get new connections.
func wantTable(t *testing.T, when string, n *node, want ...netip.Addr) {
	t.Helper()
	var got []netip.Addr
	for _, server := range []netip.Addr{rs1, rs2} {
		if n.fake.State().Destinations[destinationOf(vip1, server)].Weight > 0 {
			got = append(got, server)
		}
	}
	if diff := cmp.Diff(want, got, addr); diff != "" {
		t.Errorf("%s, who gets connections (-want +got):\n%s", when, diff)
	}
}

func TestAStandbyGoesByTheActiveDirectorUntilItTakesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := &leases{}, &wire{}
		other := start(t, "lb-2", newNode(12), l, t.TempDir())
		other.Join(pool())
		other.SetPeers(Rank{}, nil)
		other.planBy("mh", vip1)
		pass(5 * time.Second)

		p := gossips(t, w, l, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.SetPeers(Rank{}, []Peer{lb2()})
		d := scheduledBy("mh", vip1, rs1, rs2)
		// The second one is down in its own view, and up for the active one.
		d.Unready = map[netstate.DestinationKey]string{destinationOf(vip1, rs2): "its pod is not ready"}
		p.Program(d)
		p.Synced("default")
		pass(5 * time.Second)
		if p.Active(0) {
			t.Fatal("it is active")
		}
		wantTable(t, "by itself", p.node, rs1)
		if len(w.told) != 0 {
			t.Errorf("a standby speaks: %v", w.told)
		}
		w.claims(p, d, "\x01")
		pass(time.Second)
		wantTable(t, "by the active one's word", p.node, rs2)
		pass(gossip.VerdictsLast - 2*time.Second)
		wantTable(t, "by its last word", p.node, rs2)
		pass(3 * time.Second)
		wantTable(t, "when the active one says nothing more", p.node, rs1)
		w.claims(p, d, "\x03")
		pass(time.Second)
		wantTable(t, "when all are down for the active one", p.node)

		w.claims(p, d, "\x01")
		other.stop()
		pass(time.Second)
		if !p.Active(0) {
			t.Fatalf("it has not taken over: %+v", p.Status())
		}
		wantTable(t, "in its place", p.node, rs1)
		if len(w.told) != 1 || w.told[0].Down != "\x02" {
			t.Errorf("active it says %+v, want that the second is down", w.told)
		}
	})
}

func TestASuccessorWithoutVerdictsGoesByItsPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, w := &leases{}, &wire{}
		other := start(t, "lb-2", newNode(12), l, t.TempDir())
		other.Join(pool())
		other.SetPeers(Rank{}, nil)
		other.planBy("mh", vip1)
		pass(5 * time.Second)
		p := gossips(t, w, l, t.TempDir())
		p.SetGossipKeys([][]byte{keylist.NewKey()})
		p.SetPeers(Rank{}, []Peer{lb2()})
		d := riddle(scheduledBy("mh", vip1, rs1, rs2))
		p.Program(d)
		p.Synced("default")
		pass(verdictPatience + time.Second)
		wantTable(t, "by itself", p.node)
		w.claims(p, d, "\x01")
		pass(time.Second)
		wantTable(t, "by the active one's word", p.node, rs2)
		other.stop()
		pass(time.Second)
		if !p.Active(0) {
			t.Fatalf("it has not taken over: %+v", p.Status())
		}
		wantTable(t, "in its place", p.node, rs2)
		// The server stays where it was without a verdict, as after a restart.
		pass(gossip.VerdictsLast)
		wantTable(t, "when the word is too old", p.node, rs2)
	})
}

func TestADirectorSpeaksForItsGroupsAndHearsOfTheOthers(t *testing.T) {
	w := &wire{}
	var keys [2]netstate.Key // by group
	for i := range uint32(100) {
		var vip [4]byte
		binary.BigEndian.PutUint32(vip[:], 0xc0a80c00+i)
		key := netstate.Key{Addr: netip.AddrFrom4(vip)}
		keys[election.GroupOf(key.Addr, 2)] = key
	}
	n := newNode(11)
	d := New(Config{
		Kernel: n, Gossip: w.make, Changed: func(netstate.Key) {}, SiteChanged: func() {}, Log: slog.New(slog.DiscardHandler), Clock: func() time.Duration { return 0 },
	})
	if err := n.fake.Prepare(t.Context(), kerneltest.ContractNode); err != nil {
		t.Fatal(err)
	}
	settings := pool()
	settings.Groups = 2
	s := newSession(d, settings, nil)
	d.session, s.gossip.running = s, w
	heard := map[gossip.Service]gossip.Heard{}
	for i, key := range keys {
		plan := scheduledBy("mh", key, rs1, rs2)
		d.worker.Program(plan)
		d.worker.pass(t.Context(), key)
		said := verdictsIn(plan, plan.State)[0]
		said.Down = string(rune(i + 1))
		heard[said.Service] = gossip.Heard{Verdicts: said, At: s.now()}
	}
	s.groups[0].decision.Announce = true
	w.heard = map[string]map[gossip.Service]gossip.Heard{"lb-2": heard}
	w.view = gossip.View{Members: []gossip.Member{{
		Node: "lb-2", Alive: true, HeardAt: s.now(), State: gossip.State{Claims: []gossip.Claim{{Group: 0, Epoch: 1}, {Group: 1, Epoch: 1}}},
	}}}
	s.converse()
	if len(w.told) != 1 || w.told[0].Service.VIP != keys[0].Addr {
		t.Errorf("it speaks of %+v, want of %s alone", w.told, keys[0])
	}
	if got := d.hears(scheduledBy("mh", keys[0], rs1, rs2)); len(got.verdicts) != 0 {
		t.Errorf("of its own group it hears %+v", got)
	}
	want := map[netstate.DestinationKey]health.Verdict{destinationOf(keys[1], rs1): health.Up, destinationOf(keys[1], rs2): health.Down}
	if got := d.hears(scheduledBy("mh", keys[1], rs1, rs2)); !maps.Equal(want, got.verdicts) || got.doubted {
		t.Errorf("of the other's it hears %+v, want %v", got, want)
	}
}

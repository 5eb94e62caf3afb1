package director

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// street is a segment on which some answer.
type street struct {
	mu      sync.Mutex
	answers map[netip.Addr][]announce.MAC
	err     error
	// takes is how long a probe is under way, clock the fence's.
	takes time.Duration
	clock func() time.Duration
	// asked are the targets of the last probe, probes how many there were.
	asked  []netip.Addr
	probes int
}

func (s *street) Probe(_ context.Context, targets []netip.Addr) (announce.Probed, error) {
	found := announce.Probed{Answers: map[netip.Addr][]announce.MAC{}, Begun: s.clock()}
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.probes = slices.Clone(targets), s.probes+1
	for _, target := range targets {
		if macs, any := s.answers[target]; any {
			found.Answers[target] = macs
		}
	}
	found.Ended = s.clock()
	return found, s.err
}

func (s *street) LookForOthers(...netip.Addr) {}

func (s *street) set(change func(*street)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

var (
	gateway  = netip.MustParseAddr("192.168.11.1")
	stranger = announce.MAC{9}
	macOf2   = announce.MAC{2, 0, 0, 0, 0, 0x12}
	macOf3   = announce.MAC{2, 0, 0, 0, 0, 0x13}
	addrOf3  = netip.MustParseAddr("192.168.11.13")
)

// looker is a session of two groups, of which lb-2 holds the first, that has read
// from gossip that lb-2 is dead and lb-3 lives, and knows a gateway.
func looker(t *testing.T, start time.Time) *session {
	d := &Director{cfg: Config{Node: "lb-1", Log: slog.New(slog.DiscardHandler)}, peers: []Peer{
		{Node: "lb-2", Address: peerAddr, IPv6Address: peer6, MAC: macOf2.String(), Live: true},
		{Node: "lb-3", Address: addrOf3, MAC: macOf3.String(), Live: true},
		{Node: "lb-9", Address: netip.MustParseAddr("10.0.0.9")},
	}}
	d.worker = NewWorker(nil, nil, nil, nil, d.cfg.Log)
	t.Cleanup(d.worker.queue.ShutDown)
	plan1 := desired(inGroup(0, 2), rs1, rs2)
	plan1.Servers = map[netstate.DestinationKey]plan.Server{}
	for key := range plan1.State.Destinations {
		server := plan.Server{}
		if key.Addr == rs2 {
			server.Pod = "web-1"
		}
		plan1.Servers[key] = server
	}
	d.worker.entries[plan1.Key] = &entry{phase: served, ready: true, desired: plan1}
	other := inGroup(1, 2)
	d.worker.entries[other] = &entry{phase: served, ready: true, desired: desired(other)}
	s := &session{d: d, started: start, startedBoot: time.Hour, node: nodeState{
		link: kernel.Link{Name: "eth0", Addresses: []netip.Prefix{
			netip.PrefixFrom(ownAddr, 24), netip.PrefixFrom(plan1.Key.Addr, 32), netip.MustParsePrefix("fe80::1/64"),
		}},
		facts: kernel.Facts{Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1"), gateway}},
	}}
	s.gossip = &gossiping{running: &wire{view: gossip.View{Members: []gossip.Member{
		{Node: "lb-2", Dead: true}, {Node: "lb-3", Alive: true},
	}}}}
	s.groups = []*group{
		{s: s, number: 0, decision: election.Decision{Probe: "lb-2", Holder: "lb-2", At: start}},
		{s: s, number: 1, decision: election.Decision{Holder: "lb-3"}},
	}
	return s
}

func TestASoundingSaysWhoAnswered(t *testing.T) {
	vip := inGroup(0, 2).Addr
	for name, tc := range map[string]struct {
		answers map[netip.Addr][]announce.MAC
		want    election.Sounding
	}{
		"nobody":                      {nil, election.Sounding{Asked: 3}},
		"third machines":              {map[netip.Addr][]announce.MAC{gateway: {stranger}, rs1: {stranger}}, election.Sounding{Asked: 3, Answered: 2}},
		"the machine":                 {map[netip.Addr][]announce.MAC{peerAddr: {macOf2}}, election.Sounding{Asked: 3, Machine: true}},
		"the machine by IPv6":         {map[netip.Addr][]announce.MAC{peer6: {macOf2}}, election.Sounding{Asked: 3, Machine: true}},
		"a live peer for the VIP":     {map[netip.Addr][]announce.MAC{vip: {stranger, macOf3}}, election.Sounding{Asked: 3, VIP: true}},
		"a dead peer's kernel for it": {map[netip.Addr][]announce.MAC{vip: {macOf2}}, election.Sounding{Asked: 3}},
		"a stranger for it":           {map[netip.Addr][]announce.MAC{vip: {stranger}}, election.Sounding{Asked: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				s := looker(t, start)
				seg := &street{takes: 100 * time.Millisecond, clock: func() time.Duration { return time.Hour + time.Since(start) }}
				seg.answers = map[netip.Addr][]announce.MAC{gateway: {stranger}, addrOf3: {macOf3}, rs1: {stranger}, rs2: {stranger}}
				if !s.acquaintOnce(t.Context(), seg) {
					t.Fatal("there are third machines")
				}
				seg.answers = tc.answers
				soundings, err := s.look(t.Context(), seg, "lb-2")
				if err != nil {
					t.Fatal(err)
				}
				want := tc.want
				want.Node, want.Begun, want.Ended = "lb-2", start.Add(100*time.Millisecond), start.Add(200*time.Millisecond)
				if diff := cmp.Diff(map[*group]election.Sounding{s.groups[0]: want}, soundings); diff != "" {
					t.Errorf("soundings (-want +got):\n%s", diff)
				}
				if !slices.Contains(seg.asked, vip) || len(seg.asked) != 6 {
					t.Errorf("asked for %v", seg.asked)
				}
			})
		})
	}
}

func TestThirdMachinesAreAskedOnlyIfTheyAnsweredOfLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := looker(t, start)
		seg := &street{clock: func() time.Duration { return time.Hour + time.Since(start) }}
		seg.answers = map[netip.Addr][]announce.MAC{gateway: {stranger}, rs2: {stranger}}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go s.acquaint(ctx, seg)
		pass(10 * time.Millisecond)
		// Neither what is on another segment nor a pod, which may be of this very node.
		if diff := cmp.Diff([]netip.Addr{gateway, peerAddr, addrOf3, rs1}, seg.asked, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("third machines (-want +got):\n%s", diff)
		}
		if got := s.sounder.present(time.Now(), nil); !slices.Equal(got, []netip.Addr{gateway}) {
			t.Errorf("%v answered, want the gateway", got)
		}
		seg.set(func(s *street) { s.answers = map[netip.Addr][]announce.MAC{peerAddr: {macOf2}} })
		pass(acquaintFade - time.Second)
		if got := s.sounder.present(time.Now(), nil); !slices.Equal(got, []netip.Addr{gateway, peerAddr}) {
			t.Errorf("%v answered, want the gateway too, which did of late", got)
		}
		if got := s.sounder.present(time.Now(), []netip.Addr{peerAddr, peer6}); !slices.Equal(got, []netip.Addr{gateway}) {
			t.Errorf("%v are third machines to lb-2", got)
		}
		pass(acquaintEvery)
		if got := s.sounder.present(time.Now(), nil); !slices.Equal(got, []netip.Addr{peerAddr}) {
			t.Errorf("%v answered, want the peer alone", got)
		}
		if seg.probes < 8 || seg.probes > 10 {
			t.Errorf("%d probes in %s", seg.probes, time.Since(start))
		}
		end()
		synctest.Wait()
	})
}

// TestAProbeThatIsVoidIsNoSounding, nor does it say that third machines are silent.
func TestAProbeThatIsVoidIsNoSounding(t *testing.T) {
	for _, void := range []error{announce.ErrStalled, announce.ErrSilent, errors.New("no buffer space available")} {
		s := looker(t, time.Now())
		seg := &street{clock: func() time.Duration { return time.Hour }, err: void}
		if soundings, err := s.look(t.Context(), seg, "lb-2"); len(soundings) > 0 || !errors.Is(err, void) {
			t.Errorf("%v: %v, %v", void, soundings, err)
		}
		if s.acquaintOnce(t.Context(), seg) {
			t.Errorf("%v: that was a look at third machines", void)
		}
		s.ask(t.Context(), seg, "lb-2")
		if got := s.suspects(); !slices.Equal(got, []string{"lb-2"}) {
			t.Errorf("%v: %v are asked for again, want lb-2", void, got)
		}
	}
}

func TestWhatWasDecidedBeforeAnAnswerAsksForNobody(t *testing.T) {
	s := looker(t, time.Now())
	s.groups[0].sounded = s.groups[0].decision.At
	if got := s.suspects(); len(got) > 0 {
		t.Errorf("%v are asked for", got)
	}
	s.groups[0].decision.At = s.groups[0].sounded.Add(time.Millisecond)
	s.groups[1].decision = election.Decision{Probe: "lb-2", At: s.groups[0].decision.At}
	if got := s.suspects(); !slices.Equal(got, []string{"lb-2"}) {
		t.Errorf("%v are asked for", got)
	}
	if s.sounder.begin("lb-2"); s.sounder.begin("lb-2") || !s.sounder.begin("lb-3") {
		t.Error("lb-2 is asked for twice at a time, or lb-3 waits for it")
	}
	if s.sounder.end("lb-2"); !s.sounder.begin("lb-2") {
		t.Error("lb-2 cannot be asked for again")
	}
}

// TestAMachineThatDiesIsReplacedBeforeItsLeaseExpires by gossip, the segment and
// the Lease, unless the machine answers.
func TestAMachineThatDiesIsReplacedBeforeItsLeaseExpires(t *testing.T) {
	for name, answers := range map[string]bool{"it is silent": false, "its kernel answers": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, w := &leases{}, &wire{}
				p := startGossiping(t, newNode(11), w, l, t.TempDir())
				p.Join(pool())
				p.SetGossipKeys([][]byte{keylist.NewKey()})
				renew(l)
				p.SetPeers(Rank{}, []Peer{{Node: "lb-2", Address: peerAddr, MAC: macOf2.String(), Live: true, Candidate: true}})
				p.plan(vip1)
				pass(time.Second)
				s := p.present()
				claims := []gossip.Claim{{Epoch: 4, Confirmed: true}}
				member := gossip.Member{Node: "lb-2", Alive: true, Said: claims, State: gossip.State{
					Candidate: true, APIReachable: true, Claims: claims,
				}}
				tell := func() {
					w.set(func(w *wire) { w.view = gossip.View{Members: []gossip.Member{member}} })
					w.cfg.Changed()
				}
				for range 12 {
					renew(l)
					member.HeardAt = s.now()
					tell()
					pass(time.Second)
				}
				seg := &street{takes: 100 * time.Millisecond, clock: s.fence.Now}
				seg.answers = map[netip.Addr][]announce.MAC{gateway: {stranger}}
				if answers {
					seg.answers[peerAddr] = []announce.MAC{macOf2}
				}
				s.acquaintOnce(t.Context(), seg)

				member.Alive, member.Dead, member.DeadAt = false, true, s.now()
				tell()
				pass(10 * time.Millisecond)
				if got := s.suspects(); !slices.Equal(got, []string{"lb-2"}) {
					t.Fatalf("%v are asked for, want lb-2", got)
				}
				s.ask(t.Context(), seg, "lb-2")
				pass(50 * time.Millisecond)
				if p.Active(0) == answers {
					t.Errorf("active: %t, the Lease is %s's", p.Active(0), l.holder())
				}
				if last := s.groups[0].last; !answers && (last == nil || last.Reason != string(election.HolderDead)) {
					t.Errorf("the last transition is %+v", last)
				}
			})
		})
	}
}

// renew renews the Lease as lb-2 does.
func renew(l *leases) {
	l.mu.Lock()
	defer l.mu.Unlock()
	node, seconds, now := "lb-2", int32(3), metav1.NowMicro()
	event := watch.Modified
	if l.lease == nil {
		event = watch.Added
	}
	l.put(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: election.LeaseName("default", 0), Annotations: map[string]string{
			election.InstanceAnnotation: "lb-2-1", election.EpochAnnotation: "4",
		}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}, event)
}

// TestEachGroupOfANodeIsAskedForAtOnce: the electors find out one after the other
// that it died.
func TestEachGroupOfANodeIsAskedForAtOnce(t *testing.T) {
	s := looker(t, time.Now())
	s.groups[1].decision.Holder = "lb-2"
	seg := &street{clock: func() time.Duration { return time.Hour }}
	seg.answers = map[netip.Addr][]announce.MAC{inGroup(1, 2).Addr: {macOf3}}
	soundings, err := s.look(t.Context(), seg, "lb-2")
	if err != nil {
		t.Fatal(err)
	}
	if len(soundings) != 2 || soundings[s.groups[0]].VIP || !soundings[s.groups[1]].VIP {
		t.Errorf("soundings %+v", soundings)
	}
}

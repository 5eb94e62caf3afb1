package plan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestQuorum(t *testing.T) {
	of := func(quorum, hysteresis uint64) Policy { return Policy{Quorum: quorum, Hysteresis: hysteresis} }
	for name, tc := range map[string]struct {
		tally  tally
		policy Policy
		was    bool
		fresh  bool
		want   bool
	}{
		"enough":                                {tally: tally{3, 5}, policy: of(3, 0)},
		"too few":                               {tally: tally{2, 5}, policy: of(3, 0), want: true},
		"nobody":                                {tally: tally{0, 5}, policy: of(1, 0), want: true},
		"nobody at all":                         {policy: of(1, 0), want: true},
		"a quorum of nothing is one of 1":       {policy: of(0, 0), want: true},
		"less, and not less enough":             {tally: tally{2, 5}, policy: of(3, 1)},
		"less enough":                           {tally: tally{1, 5}, policy: of(3, 1), want: true},
		"nobody, whatever the hysteresis":       {tally: tally{0, 5}, policy: of(3, 3), want: true},
		"back, and not back enough":             {tally: tally{3, 5}, policy: of(3, 1), was: true, want: true},
		"back":                                  {tally: tally{4, 5}, policy: of(3, 1), was: true},
		"not known before: the quorum itself":   {tally: tally{3, 5}, policy: of(3, 1), fresh: true},
		"not known before: below it":            {tally: tally{2, 5}, policy: of(3, 1), fresh: true, want: true},
		"back with all, which is all there are": {tally: tally{3, 3}, policy: of(3, 2), was: true},
		"all but one are not all":               {tally: tally{2, 3}, policy: of(3, 2), was: true, want: true},
		"more than there are":                   {tally: tally{3, 3}, policy: of(5, 0), fresh: true, want: true},
		"more than there are, but kept":         {tally: tally{4, 4}, policy: of(5, 1), fresh: true},
		"without a limit":                       {tally: tally{1, 1}, policy: of(1, 1<<63)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isLost(tc.tally, tc.policy, tc.was, !tc.fresh); got != tc.want {
				t.Errorf("lost: %t, want %t", got, tc.want)
			}
		})
	}
}

// TestAQuorumDoesNotComeAndGo: what was decided stays while nothing changes, more
// servers never lose it, and it can always be regained by all of them if they
// would keep it.
func TestAQuorumDoesNotComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := Policy{Quorum: rapid.Uint64Range(0, 12).Draw(t, "quorum"), Hysteresis: rapid.Uint64Range(0, 12).Draw(t, "hysteresis")}
		sums := tally{all: rapid.Uint64Range(0, 10).Draw(t, "all")}
		sums.up = rapid.Uint64Range(0, sums.all).Draw(t, "up")
		for _, known := range []bool{false, true} {
			for _, was := range []bool{false, true} {
				lost := isLost(sums, policy, was, known)
				if isLost(sums, policy, lost, true) != lost {
					t.Errorf("known %t, was lost %t: it is lost: %t, and then not", known, was, lost)
				}
				if more := (tally{sums.up + 1, sums.all + 1}); !lost && isLost(more, policy, false, true) {
					t.Error("one more server loses it")
				}
			}
		}
		whole := tally{sums.all, sums.all}
		if !isLost(whole, policy, false, true) && isLost(whole, policy, true, true) {
			t.Error("all servers keep it and do not bring it back")
		}
		if sums.up == 0 && !isLost(sums, policy, false, true) {
			t.Error("it is kept by nobody")
		}
	})
}

var (
	testDNS   = serviceKey("192.168.11.200", 53, netstate.UDP)
	testDNS1  = destinationKey(testDNS, "192.168.11.135")
	testDNS2  = destinationKey(testDNS, "192.168.11.138")
	webSorry  = destinationKey(testWeb, "192.168.11.250")
	dnsSorry  = destinationKey(testDNS, "192.168.11.250")
	sorryAddr = netip.MustParseAddr("192.168.11.250")
)

func TestSorryServer(t *testing.T) {
	both := weights{testWeb1: 2, testWeb2: 2}
	remembered := func(lost bool) Memory {
		return Memory{Lost: map[netstate.ServiceKey]bool{testWeb: lost, testDNS: lost}}
	}
	for name, tc := range map[string]struct {
		desired     weights
		policy      Policy
		down        []netstate.DestinationKey
		unknown     bool
		have        weights
		connections uint32
		memory      Memory
		want        weights
		wantLost    bool
	}{
		"stays out while there are enough": {desired: both, policy: Policy{Quorum: 2}, have: both, want: both},
		"comes in, and who is up keeps connections": {
			desired: both, policy: Policy{Quorum: 3, Scale: 100}, have: both, down: []netstate.DestinationKey{testWeb2},
			want: weights{testWeb1: 0, webSorry: 100}, wantLost: true,
		},
		"comes in, and who is down does if it is to be kept": {
			desired: both, policy: Policy{Quorum: 3, Quiesce: true}, have: both, down: []netstate.DestinationKey{testWeb2},
			want: weights{testWeb1: 0, testWeb2: 0, webSorry: 1}, wantLost: true,
		},
		"clients of UDP move": {
			desired: weights{testDNS1: 2, testDNS2: 2}, policy: Policy{Quorum: 3}, have: weights{testDNS1: 2, testDNS2: 2},
			down: []netstate.DestinationKey{testDNS2}, want: weights{dnsSorry: 1}, wantLost: true,
		},
		"is there when nobody is": {
			desired: weights{testWeb1: 0}, policy: Policy{Quorum: 1}, want: weights{testWeb1: 0, webSorry: 1}, wantLost: true,
		},
		"answers until there are verdicts": {
			desired: both, policy: Policy{Quorum: 1}, unknown: true, want: weights{webSorry: 1}, wantLost: true,
		},
		"does not step in for servers that an earlier process used": {
			desired: both, policy: Policy{Quorum: 4}, unknown: true, have: both, want: both,
		},
		"goes on after a restart": {
			desired: both, policy: Policy{Quorum: 3}, unknown: true, have: weights{testWeb1: 0, testWeb2: 0, webSorry: 1},
			want: weights{testWeb1: 0, testWeb2: 0, webSorry: 1}, wantLost: true,
		},
		"the kernel says that the quorum was lost": {
			desired: both, policy: Policy{Quorum: 3, Hysteresis: 1}, down: []netstate.DestinationKey{testWeb2}, have: weights{testWeb1: 0, webSorry: 1},
			want: weights{testWeb1: 0, webSorry: 1}, wantLost: true,
		},
		"the kernel says that it was not": {
			desired: both, policy: Policy{Quorum: 3, Hysteresis: 1}, down: []netstate.DestinationKey{testWeb2}, have: weights{testWeb1: 2},
			want: weights{testWeb1: 2},
		},
		"memory is asked first": {
			desired: both, policy: Policy{Quorum: 3, Hysteresis: 1}, down: []netstate.DestinationKey{testWeb2}, have: weights{testWeb1: 2},
			memory: remembered(true), want: weights{testWeb1: 0, webSorry: 1}, wantLost: true,
		},
		"leaves at once when nobody is connected": {
			desired: both, policy: Policy{Quorum: 3}, have: weights{testWeb1: 0, webSorry: 1}, memory: remembered(true), want: both,
		},
		"leaves, and keeps its connections for a while": {
			desired: both, policy: Policy{Quorum: 3, DrainTimeout: time.Minute}, have: weights{testWeb1: 0, webSorry: 1}, connections: 3,
			memory: remembered(true), want: weights{testWeb1: 2, testWeb2: 2, webSorry: 0},
		},
		"leaves a UDP service at once": {
			desired: weights{testDNS1: 2}, policy: Policy{Quorum: 1, DrainTimeout: time.Minute}, have: weights{dnsSorry: 1}, connections: 3,
			memory: remembered(true), want: weights{testDNS1: 2},
		},
		"is none if it is a real server": {
			desired: weights{webSorry: 2, testWeb1: 2}, policy: Policy{Quorum: 3}, down: []netstate.DestinationKey{testWeb1},
			want: weights{webSorry: 2}, wantLost: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(tc.desired, checkOf(80, false))
			tc.policy.Sorry = sorryAddr
			for service := range desired.State.Services {
				desired.Policies[service] = tc.policy
			}
			if len(tc.desired) > 0 && tc.desired[testDNS1] > 0 {
				delete(desired.State.Services, testWeb)
				delete(desired.Policies, testWeb)
			}
			verdict := func(probe health.Probe) health.Verdict {
				for _, key := range tc.down {
					if key.Addr == probe.Target.Addr {
						return health.Down
					}
				}
				return map[bool]health.Verdict{false: health.Up, true: health.Unknown}[tc.unknown]
			}
			got, later, _ := Want(desired, observed(tc.have, tc.connections), verdict, tc.memory, noon)
			if diff := cmp.Diff(tc.want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			for service, lost := range later.Lost {
				if lost != tc.wantLost {
					t.Errorf("quorum of %s lost: %t", service, lost)
				}
			}
		})
	}
}

func TestWithoutASorryServerWhatIsUpGoesOn(t *testing.T) {
	desired := desiredOf(weights{testWeb1: 2})
	desired.Policies[testWeb] = Policy{Quorum: 3}
	got, later, _ := Want(desired, observed(nil, 0), byPort(nil), Memory{}, noon)
	if !later.Lost[testWeb] || got.Destinations[testWeb1].Weight != 2 {
		t.Errorf("lost: %v, destinations %v", later.Lost, got.Destinations)
	}
}

func TestUnreadyIsDown(t *testing.T) {
	for name, tc := range map[string]struct {
		wanted  uint32
		quiesce bool
		verdict health.Verdict
		want    weights
	}{
		"taken out although checks pass":    {wanted: 2, verdict: health.Up, want: weights{}},
		"taken out before the first check":  {wanted: 2, verdict: health.Unknown, want: weights{}},
		"kept without connections":          {wanted: 2, quiesce: true, verdict: health.Up, want: weights{testWeb1: 0}},
		"a drained one keeps connections":   {wanted: 0, verdict: health.Up, want: weights{testWeb1: 0}},
		"a drained one that is down has no": {wanted: 0, verdict: health.Down, want: weights{}},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(weights{testWeb1: tc.wanted}, checkOf(80, true))
			desired.Policies[testWeb] = Policy{Quiesce: tc.quiesce, Quorum: 1}
			desired.Unready[testWeb1] = "its pod is not Ready"
			got, later, _ := Want(desired, observed(weights{testWeb1: 2}, 1), byPort(map[uint16]health.Verdict{80: tc.verdict}), Memory{}, noon)
			if diff := cmp.Diff(tc.want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			if !later.Lost[testWeb] {
				t.Error("the quorum is there by a server that is not ready")
			}
		})
	}
}

func TestADrainEndsWhenItsPolicySays(t *testing.T) {
	for timeout, want := range map[time.Duration]weights{
		0:           {testWeb2: 2},
		time.Minute: {testWeb1: 0, testWeb2: 2},
	} {
		t.Run(timeout.String(), func(t *testing.T) {
			desired := desiredOf(weights{testWeb2: 2})
			desired.Policies[testWeb] = Policy{DrainTimeout: timeout, Quorum: 1}
			memory := Memory{Draining: map[netstate.DestinationKey]time.Time{}}
			if timeout > 0 {
				memory.Draining[testWeb1] = noon.Add(-timeout + time.Second)
			}
			got, _, _ := Want(desired, observed(weights{testWeb1: 1, testWeb2: 2}, 7), byPort(nil), memory, noon)
			if diff := cmp.Diff(want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhoWasAdoptedIsBackAtOnce has a sorry server step in before the first
// verdict of a server that a director found with its full weight: that one has
// been in service for long.
func TestWhoWasAdoptedIsBackAtOnce(t *testing.T) {
	desired := slowly(weights{testWeb1: 100, testWeb2: 100})
	policy := desired.Policies[testWeb]
	policy.Sorry, policy.Quorum = sorryAddr, 200
	desired.Policies[testWeb] = policy
	first := health.Down
	verdict := func(probe health.Probe) health.Verdict {
		return map[bool]health.Verdict{true: first, false: health.Unknown}[probe.Target.Addr == testWeb1.Addr]
	}
	state, memory, _ := Want(desired, observed(weights{testWeb1: 100, testWeb2: 100}, 0), verdict, Memory{}, noon)
	if diff := cmp.Diff(weights{testWeb2: 0, webSorry: 100}, weightsOf(state), byValue...); diff != "" {
		t.Errorf("weights while one is down (-want +got):\n%s", diff)
	}
	state, _, _ = Want(desired, observed(weightsOf(state), 0), allUp, memory, noon.Add(time.Second))
	if diff := cmp.Diff(weights{testWeb1: 10, testWeb2: 100}, weightsOf(state), byValue...); diff != "" {
		t.Errorf("weights when both are up (-want +got):\n%s", diff)
	}
}

// TestNobodyAtWeight0RefusesClientsBesideASorryServer has schedulers that hash:
// without the flag Fallback they send a client to the server of its hash or
// nowhere.
func TestNobodyAtWeight0RefusesClientsBesideASorryServer(t *testing.T) {
	for name, tc := range map[string]struct {
		service          netstate.Service
		beside, wentAway weights
	}{
		"sh":               {netstate.Service{Scheduler: "sh"}, weights{webSorry: 1}, weights{testWeb1: 1, testWeb2: 1}},
		"mh":               {netstate.Service{Scheduler: "mh", Flags: netstate.Port}, weights{webSorry: 1}, weights{testWeb1: 1, testWeb2: 1}},
		"dh":               {netstate.Service{Scheduler: "dh"}, weights{webSorry: 1}, weights{testWeb1: 1, testWeb2: 1}},
		"mh with Fallback": {netstate.Service{Scheduler: "mh", Flags: netstate.Fallback}, weights{webSorry: 1, testWeb1: 0, testWeb2: 0}, weights{testWeb1: 1, testWeb2: 1, webSorry: 0}},
		"wlc":              {netstate.Service{Scheduler: "wlc"}, weights{webSorry: 1, testWeb1: 0}, weights{testWeb1: 1, testWeb2: 1, webSorry: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(weights{testWeb1: 1, testWeb2: 1})
			desired.State.Services[testWeb] = tc.service
			desired.Policies[testWeb] = Policy{Quorum: 2, Sorry: sorryAddr, DrainTimeout: time.Minute}
			desired.Unready[testWeb2] = "its pod is not Ready"
			state, memory, _ := Want(desired, observed(weights{testWeb1: 1, testWeb2: 1}, 1), byPort(nil), Memory{}, noon)
			if diff := cmp.Diff(tc.beside, weightsOf(state), byValue...); diff != "" {
				t.Errorf("weights without a quorum (-want +got):\n%s", diff)
			}
			clear(desired.Unready)
			state, _, _ = Want(desired, observed(weightsOf(state), 1), byPort(nil), memory, noon)
			if diff := cmp.Diff(tc.wentAway, weightsOf(state), byValue...); diff != "" {
				t.Errorf("weights with one again (-want +got):\n%s", diff)
			}
		})
	}
}

package plan

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// testTimeout is that of the services of these tests, which have no policy.
const testTimeout = 30 * time.Second

var (
	noon     = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	testWeb  = serviceKey("192.168.11.200", 80, netstate.TCP)
	testWeb1 = destinationKey(testWeb, "192.168.11.135")
	testWeb2 = destinationKey(testWeb, "192.168.11.138")
)

// desiredOf returns a plan of the services of the destinations, each of which
// has the checks.
func desiredOf(weights map[netstate.DestinationKey]uint32, checks ...Check) Desired {
	desired := newDesired(testWeb.Key)
	desired.State.Services[testWeb] = netstate.Service{Scheduler: "wrr", PersistencePrefix: 32}
	for key, weight := range weights {
		desired.State.Services[key.Service] = netstate.Service{Scheduler: "wrr", PersistencePrefix: 32}
		desired.State.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: weight}
		for _, check := range checks {
			check.Probe.Target.Addr = key.Addr
			desired.Checks[key] = append(desired.Checks[key], check)
		}
	}
	return desired
}

// observed returns an observation with destinations of these weights, each of
// which has so many connections.
func observed(weights map[netstate.DestinationKey]uint32, connections uint32) netstate.Observation {
	have := netstate.Observation{State: netstate.New(), Connections: map[netstate.DestinationKey]netstate.Connections{}}
	for key, weight := range weights {
		have.Services[key.Service] = netstate.Service{Scheduler: "wrr", PersistencePrefix: 32}
		have.Destinations[key] = netstate.Destination{Method: netstate.DR, Weight: weight}
		have.Connections[key] = netstate.Connections{Inactive: connections}
	}
	return have
}

func weightsOf(state netstate.State) map[netstate.DestinationKey]uint32 {
	weights := map[netstate.DestinationKey]uint32{}
	for key, destination := range state.Destinations {
		weights[key] = destination.Weight
	}
	return weights
}

func checkOf(port uint16, initiallyUp bool) Check {
	return Check{Probe: health.Probe{Target: health.Target{Type: health.TCP, Port: port}}, InitiallyUp: initiallyUp}
}

// byPort returns verdicts that depend on the target's port alone.
func byPort(verdicts map[uint16]health.Verdict) func(health.Probe) health.Verdict {
	return func(probe health.Probe) health.Verdict { return verdicts[probe.Target.Port] }
}

type weights = map[netstate.DestinationKey]uint32

func TestWantGoesByVerdicts(t *testing.T) {
	lax, strict, other := checkOf(80, true), checkOf(80, false), checkOf(81, false)
	for name, tc := range map[string]struct {
		wanted   uint32
		checks   []Check
		have     weights
		verdicts map[uint16]health.Verdict
		want     weights
	}{
		"without checks a server is up": {wanted: 2, want: weights{testWeb1: 2}},
		"up":                            {wanted: 2, checks: []Check{strict}, verdicts: map[uint16]health.Verdict{80: health.Up}, want: weights{testWeb1: 2}},
		"up, from another weight":       {wanted: 2, checks: []Check{strict}, have: weights{testWeb1: 0}, verdicts: map[uint16]health.Verdict{80: health.Up}, want: weights{testWeb1: 2}},
		"down":                          {wanted: 2, checks: []Check{lax}, have: weights{testWeb1: 2}, verdicts: map[uint16]health.Verdict{80: health.Down}, want: weights{}},
		"down by one check of two":      {wanted: 2, checks: []Check{lax, other}, verdicts: map[uint16]health.Verdict{80: health.Up, 81: health.Down}, want: weights{}},
		"down beats unknown":            {wanted: 2, checks: []Check{lax, other}, have: weights{testWeb1: 2}, verdicts: map[uint16]health.Verdict{81: health.Down}, want: weights{}},
		"unknown and new":               {wanted: 2, checks: []Check{strict}, want: weights{}},
		"unknown and new, initially up": {wanted: 2, checks: []Check{lax}, want: weights{testWeb1: 2}},
		"one unknown check of two is not initially": {wanted: 2, checks: []Check{lax, other}, want: weights{}},
		"a check that passed does not keep one out": {wanted: 2, checks: []Check{other, lax}, verdicts: map[uint16]health.Verdict{81: health.Up}, want: weights{testWeb1: 2}},
		"adopted keeps its weight":                  {wanted: 2, checks: []Check{strict}, have: weights{testWeb1: 1}, want: weights{testWeb1: 1}},
		"adopted while it drained keeps 0":          {wanted: 2, checks: []Check{strict}, have: weights{testWeb1: 0}, want: weights{testWeb1: 0}},
		"adopted and drained by its spec":           {wanted: 0, checks: []Check{strict}, have: weights{testWeb1: 2}, want: weights{testWeb1: 0}},
		"adopted without checks":                    {wanted: 2, have: weights{testWeb1: 1}, want: weights{testWeb1: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(weights{testWeb1: tc.wanted}, tc.checks...)
			got, _, next := Want(desired, observed(tc.have, 1), byPort(tc.verdicts), Memory{}, noon)
			if next != 0 {
				t.Errorf("looks again after %s", next)
			}
			if diff := cmp.Diff(tc.want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(desired.State.Services, got.Services, byValue...); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	udp := serviceKey("192.168.11.200", 53, netstate.UDP)
	udp1, udp2 := destinationKey(udp, "192.168.11.135"), destinationKey(udp, "192.168.11.138")
	sctp := serviceKey("192.168.11.200", 36412, netstate.SCTP)
	sctp1, sctp2 := destinationKey(sctp, "192.168.11.135"), destinationKey(sctp, "192.168.11.138")
	started := func(seconds int) map[netstate.DestinationKey]time.Time {
		return map[netstate.DestinationKey]time.Time{testWeb1: noon.Add(-time.Duration(seconds) * time.Second)}
	}
	for name, tc := range map[string]struct {
		desired      weights
		have         netstate.Observation
		draining     map[netstate.DestinationKey]time.Time
		want         weights
		wantDraining map[netstate.DestinationKey]time.Time
	}{
		"begins with connections": {
			desired: weights{testWeb2: 2}, have: observed(weights{testWeb1: 1, testWeb2: 2}, 7),
			want: weights{testWeb1: 0, testWeb2: 2}, wantDraining: started(0),
		},
		"goes at once without connections": {
			desired: weights{testWeb2: 2}, have: observed(weights{testWeb1: 1, testWeb2: 2}, 0),
			want: weights{testWeb2: 2},
		},
		"goes on until the deadline": {
			desired: weights{testWeb2: 2}, have: observed(weights{testWeb1: 0, testWeb2: 2}, 7), draining: started(29),
			want: weights{testWeb1: 0, testWeb2: 2}, wantDraining: started(29),
		},
		"ends at the deadline, and does not begin anew if the removal fails": {
			desired: weights{testWeb2: 2}, have: observed(weights{testWeb1: 0, testWeb2: 2}, 7), draining: started(30),
			want: weights{testWeb2: 2}, wantDraining: started(30),
		},
		"ends when it is out of the kernel": {
			desired: weights{testWeb2: 2}, have: observed(weights{testWeb2: 2}, 7), draining: started(10),
			want: weights{testWeb2: 2},
		},
		"ends when the server comes back": {
			desired: weights{testWeb1: 1, testWeb2: 2}, have: observed(weights{testWeb1: 0, testWeb2: 2}, 7), draining: started(10),
			want: weights{testWeb1: 1, testWeb2: 2},
		},
		"does not wait for the connections of a service that goes": {
			desired: weights{testWeb2: 2}, have: observed(weights{sctp1: 1, testWeb2: 2}, 7),
			want: weights{testWeb2: 2},
		},
		"does not wait for UDP": {
			desired: weights{udp2: 2}, have: observed(weights{udp1: 1, udp2: 2}, 7),
			want: weights{udp2: 2},
		},
		"waits for SCTP": {
			desired: weights{sctp2: 2}, have: observed(weights{sctp1: 1, sctp2: 2}, 7),
			want: weights{sctp1: 0, sctp2: 2}, wantDraining: map[netstate.DestinationKey]time.Time{sctp1: noon},
		},
		"takes connections that were not counted for some": {
			desired: weights{testWeb2: 2},
			have: func() netstate.Observation {
				have := observed(weights{testWeb1: 1, testWeb2: 2}, 0)
				delete(have.Connections, testWeb1)
				return have
			}(),
			want: weights{testWeb1: 0, testWeb2: 2}, wantDraining: started(0),
		},
	} {
		t.Run(name, func(t *testing.T) {
			desired := desiredOf(tc.desired)
			before := maps.Clone(tc.draining)
			got, later, _ := Want(desired, tc.have, byPort(nil), Memory{Draining: tc.draining}, noon)
			if diff := cmp.Diff(tc.want, weightsOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantDraining, later.Draining, byValue...); diff != "" {
				t.Errorf("draining (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, tc.draining, byValue...); diff != "" {
				t.Errorf("the caller's draining was changed:\n%s", diff)
			}
		})
	}
}

func TestWantRemovesAServerThatIsDownAtOnce(t *testing.T) {
	desired := desiredOf(weights{testWeb1: 1, testWeb2: 2}, checkOf(80, false))
	down := func(probe health.Probe) health.Verdict {
		if probe.Target.Addr == testWeb1.Addr {
			return health.Down
		}
		return health.Up
	}
	got, later, _ := Want(desired, observed(weights{testWeb1: 1, testWeb2: 2}, 9), down, Memory{}, noon)
	if diff := cmp.Diff(weights{testWeb2: 2}, weightsOf(got), byValue...); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	if len(later.Draining) > 0 {
		t.Errorf("draining = %v, want none", later.Draining)
	}
}

func TestWantOfTheZeroPlanIsUsable(t *testing.T) {
	got, _, _ := Want(Desired{}, netstate.Observation{}, byPort(nil), Memory{}, noon)
	got.Addresses[netstate.AddressKey{}] = netstate.Address{}
	got.Destinations[testWeb1] = netstate.Destination{}
}

// TestDrainEnds plays a director: whatever comes and goes, a destination that
// is out of the spec is out of the kernel within the timeout of having left,
// takes no new connections meanwhile, and no destination lacks its service.
func TestDrainEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have := observed(nil, 0)
		var memory Memory
		now := noon
		left := map[netstate.DestinationKey]time.Time{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 12).Draw(t, "seconds")) * time.Second)
			desired := desiredOf(drawWeights(t))
			var got netstate.State
			got, memory, _ = Want(desired, have, byPort(nil), memory, now)
			maps.DeleteFunc(left, func(key netstate.DestinationKey, _ time.Time) bool {
				_, present := have.Destinations[key]
				return !present
			})
			for key := range have.Destinations {
				if _, wanted := desired.State.Destinations[key]; wanted {
					delete(left, key)
				} else if _, known := left[key]; !known {
					left[key] = now
				}
			}
			for key, destination := range got.Destinations {
				if _, ok := got.Services[key.Service]; !ok {
					t.Fatalf("%v has no service", key)
				}
				since, leaving := left[key]
				if leaving && (destination.Weight != 0 || now.Sub(since) >= testTimeout) {
					t.Fatalf("%v left %s ago and has weight %d", key, now.Sub(since), destination.Weight)
				}
			}
			have = observed(weightsOf(got), rapid.Uint32Range(0, 1).Draw(t, "connections"))
		}
	})
}

func drawWeights(t *rapid.T) weights {
	drawn := weights{}
	for _, addr := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"192.168.11.135", "192.168.11.138", "192.168.11.140"}), rapid.ID[string]).Draw(t, "servers") {
		drawn[netstate.DestinationKey{Service: testWeb, Addr: netip.MustParseAddr(addr), Port: 80}] = rapid.Uint32Range(0, 3).Draw(t, "weight")
	}
	return drawn
}

package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// hashed is a plan of one mh service.
func hashed(weights weights, checks ...Check) Desired {
	desired := desiredOf(weights, checks...)
	desired.State.Services[testWeb] = netstate.Service{Scheduler: "mh", Flags: netstate.Fallback, PersistencePrefix: 32}
	return desired
}

// counted is a weight and the one by which it goes on counting.
type counted struct{ Weight, Last uint32 }

func countedOf(s netstate.State) map[netstate.DestinationKey]counted {
	all := map[netstate.DestinationKey]counted{}
	for key, d := range s.Destinations {
		all[key] = counted{d.Weight, d.LastWeight}
	}
	return all
}

func TestServersOfMHStayInTheTable(t *testing.T) {
	check := checkOf(80, false)
	type table = map[netstate.DestinationKey]counted
	for name, tc := range map[string]struct {
		desired Desired
		have    weights
		verdict health.Verdict
		want    table
	}{
		"up":                  {hashed(weights{testWeb1: 5}, check), nil, health.Up, table{testWeb1: {5, 0}}},
		"down, and never in":  {hashed(weights{testWeb1: 5}, check), nil, health.Down, table{testWeb1: {0, 5}}},
		"down, and was in":    {hashed(weights{testWeb1: 5}, check), weights{testWeb1: 3}, health.Down, table{testWeb1: {0, 5}}},
		"no verdict yet":      {hashed(weights{testWeb1: 5}, check), nil, health.Unknown, table{testWeb1: {0, 5}}},
		"adopted":             {hashed(weights{testWeb1: 5}, check), weights{testWeb1: 3}, health.Unknown, table{testWeb1: {3, 0}}},
		"adopted at 0":        {hashed(weights{testWeb1: 5}, check), weights{testWeb1: 0}, health.Unknown, table{testWeb1: {0, 5}}},
		"of weight 0":         {hashed(weights{testWeb1: 0}), weights{testWeb1: 5}, health.Up, table{testWeb1: {0, 1}}},
		"removed, was at 5":   {hashed(weights{testWeb2: 1}), weights{testWeb1: 5, testWeb2: 1}, health.Up, table{testWeb1: {0, 5}, testWeb2: {1, 0}}},
		"down, for wrr":       {desiredOf(weights{testWeb1: 5}, check), nil, health.Down, table{}},
		"of weight 0 for wrr": {desiredOf(weights{testWeb1: 0}), weights{testWeb1: 5}, health.Up, table{testWeb1: {0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, _ := Want(tc.desired, observed(tc.have, 1), byPort(map[uint16]health.Verdict{80: tc.verdict}), Memory{}, noon)
			if diff := cmp.Diff(tc.want, countedOf(got), byValue...); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAServerThatLeavesMHStaysAsLongWhetherItHasConnectionsOrNot(t *testing.T) {
	desired := hashed(weights{testWeb2: 1})
	have := observed(weights{testWeb1: 1, testWeb2: 1}, 0)
	got, memory, _ := Want(desired, have, byPort(nil), Memory{}, noon)
	if _, stays := got.Destinations[testWeb1]; !stays {
		t.Fatal("a server without connections went at once: a director that has some keeps it")
	}
	got, _, _ = Want(desired, have, byPort(nil), memory, noon.Add(testTimeout))
	if _, stays := got.Destinations[testWeb1]; stays {
		t.Error("it is still there when its time is up")
	}
}

func TestMHFallsBackAndStartsAtOnce(t *testing.T) {
	vs := makeServer("shop", "web", 0).spec(func(s *v1alpha1.VirtualServerSpec) {
		s.Scheduler = v1alpha1.SchedulerMaglevHashing
		s.SlowStart = &v1alpha1.SlowStart{Duration: metav1.Duration{Duration: time.Minute}}
		s.RealServers[1].State = v1alpha1.RealServerDrained
	})
	got, rejected := For(testSnapshot("192.168.11.200", vs.obj()))
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	if flags := got.State.Services[testWeb].Flags; flags != netstate.Fallback {
		t.Errorf("flags %#x, want Fallback: clients of a server at weight 0 would be refused", uint32(flags))
	}
	if policy := got.Policies[testWeb]; policy.SlowStart != 0 || policy.Scale != 1 {
		t.Errorf("a slow start of %s, scaled by %d", policy.SlowStart, policy.Scale)
	}
	want := map[netstate.DestinationKey]counted{testWeb1: {1, 0}, testWeb2: {0, 2}}
	if diff := cmp.Diff(want, countedOf(got.State), byValue...); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
}

// TestTablesAreTheSameWhateverWasSeen has two directors that saw different things
// and then the same verdicts.
func TestTablesAreTheSameWhateverWasSeen(t *testing.T) {
	verdicts := rapid.SampledFrom([]health.Verdict{health.Unknown, health.Up, health.Down})
	rapid.Check(t, func(t *rapid.T) {
		desired := hashed(weights{
			testWeb1: rapid.Uint32Range(0, 3).Draw(t, "weight"), testWeb2: rapid.Uint32Range(0, 3).Draw(t, "weight"),
		})
		desired.Checks[testWeb1], desired.Checks[testWeb2] = []Check{checkOf(81, false)}, []Check{checkOf(82, false)}
		in := func(which string) (netstate.Observation, Memory) {
			have, memory := observed(nil, 0), Memory{}
			for range rapid.IntRange(0, 4).Draw(t, which+" passes") {
				seen := map[uint16]health.Verdict{81: verdicts.Draw(t, "first"), 82: verdicts.Draw(t, "second")}
				have.State, memory, _ = Want(desired, have, byPort(seen), memory, noon)
			}
			return have, memory
		}
		final := map[uint16]health.Verdict{
			81: rapid.SampledFrom([]health.Verdict{health.Up, health.Down}).Draw(t, "first"),
			82: rapid.SampledFrom([]health.Verdict{health.Up, health.Down}).Draw(t, "second"),
		}
		var tables []netstate.State
		for _, which := range []string{"one", "other"} {
			have, memory := in(which)
			state, _, _ := Want(desired, have, byPort(final), memory, noon)
			tables = append(tables, state)
		}
		if diff := cmp.Diff(tables[0].Destinations, tables[1].Destinations, byValue...); diff != "" {
			t.Fatalf("two directors differ (-one +other):\n%s", diff)
		}
	})
}

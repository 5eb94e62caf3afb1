package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// slowly returns a plan of the web service with a slow start of 18 s: a step a
// second.
func slowly(weights map[netstate.DestinationKey]uint32) Desired {
	desired := desiredOf(weights, checkOf(80, false))
	desired.Policies[testWeb] = Policy{SlowStart: 18 * time.Second, Scale: 100, Quorum: 1}
	return desired
}

var (
	allUp   = byPort(map[uint16]health.Verdict{80: health.Up})
	allDown = byPort(map[uint16]health.Verdict{80: health.Down})
)

func TestSlowStart(t *testing.T) {
	rising := func(seconds int) Memory {
		return Memory{Rising: map[netstate.DestinationKey]time.Time{testWeb1: noon.Add(-time.Duration(seconds) * time.Second)}}
	}
	risen := Memory{Risen: map[netstate.DestinationKey]struct{}{testWeb1: {}}}
	for name, tc := range map[string]struct {
		full     uint32
		have     weights
		memory   Memory
		verdict  func(health.Probe) health.Verdict
		want     uint32
		wantNext time.Duration
	}{
		"a new server begins with a tenth":             {full: 100, want: 10, wantNext: time.Second},
		"one that was kept while it was down does too": {full: 100, have: weights{testWeb1: 0}, want: 10, wantNext: time.Second},
		"after a step":         {full: 100, have: weights{testWeb1: 10}, memory: rising(1), want: 15, wantNext: time.Second},
		"before the last step": {full: 100, have: weights{testWeb1: 90}, memory: rising(17), want: 95, wantNext: time.Second},
		"at the end":           {full: 100, have: weights{testWeb1: 95}, memory: rising(18), want: 100},
		"long after the end":   {full: 100, have: weights{testWeb1: 95}, memory: rising(900), want: 100},
		"a weight that is changed on the way is as far":    {full: 1000, have: weights{testWeb1: 50}, memory: rising(8), want: 500, wantNext: time.Second},
		"a weight that is changed later is there at once":  {full: 300, have: weights{testWeb1: 100}, memory: risen, want: 300},
		"adopted with its full weight":                     {full: 100, have: weights{testWeb1: 100}, want: 100},
		"adopted with more":                                {full: 100, have: weights{testWeb1: 300}, want: 100},
		"adopted on the way":                               {full: 100, have: weights{testWeb1: 50}, want: 50, wantNext: time.Second},
		"adopted between two steps":                        {full: 100, have: weights{testWeb1: 51}, want: 55, wantNext: time.Second},
		"the least weight is 1":                            {full: 2, want: 1, wantNext: time.Second},
		"a weight of 1 has no way to go":                   {full: 1, have: weights{testWeb1: 1}, want: 1},
		"a drained server does not rise":                   {full: 0, have: weights{testWeb1: 0}, memory: rising(3), want: 0},
		"one that nobody knows of yet stays where it is":   {full: 100, have: weights{testWeb1: 50}, memory: rising(17), verdict: byPort(nil), want: 50},
		"a repair of what others deleted is no slow start": {full: 100, memory: risen, want: 100},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.verdict == nil {
				tc.verdict = allUp
			}
			got, _, next := Want(slowly(weights{testWeb1: tc.full}), observed(tc.have, 1), tc.verdict, tc.memory, noon)
			if weight := got.Destinations[testWeb1].Weight; weight != tc.want || next != tc.wantNext {
				t.Errorf("weight %d, next look after %s; want %d, %s", weight, next, tc.want, tc.wantNext)
			}
		})
	}
}

// TestSlowStartBeginsAnewAfterEachFailure plays what a health check says.
func TestSlowStartBeginsAnewAfterEachFailure(t *testing.T) {
	for name, quiesce := range map[string]bool{"removed": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			desired := slowly(weights{testWeb1: 100})
			policy := desired.Policies[testWeb]
			policy.Quiesce = quiesce
			desired.Policies[testWeb] = policy
			have, memory := observed(weights{testWeb1: 100}, 1), Memory{}
			var got []uint32
			for second, verdict := range []func(health.Probe) health.Verdict{allUp, allDown, allUp, allUp, allDown, allUp} {
				state, later, _ := Want(desired, have, verdict, memory, noon.Add(time.Duration(second)*time.Second))
				got = append(got, state.Destinations[testWeb1].Weight)
				have, memory = observed(weightsOf(state), 1), later
			}
			if diff := cmp.Diff([]uint32{100, 0, 10, 15, 0, 10}, got); diff != "" {
				t.Errorf("weights (-want +got):\n%s", diff)
			}
		})
	}
}

func TestManyThatRiseDoNotMakeMorePasses(t *testing.T) {
	_, memory, next := Want(slowly(weights{testWeb1: 100}), observed(nil, 0), allUp, Memory{}, noon)
	_, _, next2 := Want(slowly(weights{testWeb1: 100, testWeb2: 100}), observed(weights{testWeb1: 10}, 0), allUp, memory, noon.Add(999*time.Millisecond))
	if next != time.Second || next2 != rampStep {
		t.Errorf("next looks after %s and %s, want 1s and %s", next, next2, rampStep)
	}
}

// TestARampIsAWayUp: it never goes down, ends with the full weight, has a next
// step until then, and a place on it is found again by its weight.
func TestARampIsAWayUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := ramp{
			full: rapid.Uint32Range(1, 65535).Draw(t, "full"),
			over: time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "over")),
		}
		var last uint32
		steps := 0
		for elapsed := time.Duration(0); elapsed < r.over; steps++ {
			weight := r.weight(elapsed)
			if weight < max(last, 1) || weight > r.full {
				t.Fatalf("weight %d after %d at %s", weight, last, elapsed)
			}
			if at := r.at(weight); weight < r.full && (at > elapsed || r.weight(at) != weight) {
				t.Fatalf("weight %d, due at %s, is looked for at %s, where it is %d", weight, elapsed, at, r.weight(at))
			}
			if before := elapsed + r.until(elapsed) - 1; before < elapsed || r.weight(before) != weight {
				t.Fatalf("weight %d at %s is %d at %s, before the next step", weight, elapsed, r.weight(before), before)
			}
			last = weight
			elapsed += r.until(elapsed)
		}
		if got := r.weight(r.over); got != r.full || steps > rampSteps {
			t.Fatalf("weight %d of %d after %d steps", got, r.full, steps)
		}
		some := rapid.Uint32Range(0, r.full).Draw(t, "weight in the kernel")
		if at := r.at(some); r.weight(at) < some || some < r.full && at > 0 && r.weight(at-1) >= some {
			t.Fatalf("weight %d is looked for at %s, where it is %d", some, at, r.weight(at))
		}
	})
}

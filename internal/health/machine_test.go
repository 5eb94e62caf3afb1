package health

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var schedule = Schedule{
	Interval: 2 * time.Second, Timeout: time.Second, RetryInterval: 500 * time.Millisecond,
	FailureThreshold: 3, SuccessThreshold: 2,
}

func TestStep(t *testing.T) {
	type step struct {
		Verdict Verdict
		Delay   time.Duration
	}
	const interval, retry = 2 * time.Second, 500 * time.Millisecond
	cases := map[string]struct {
		from    Verdict
		results []Result
		want    []step
	}{
		"an unknown server comes up after successThreshold successes": {
			results: []Result{Success, Success, Success},
			want:    []step{{Unknown, interval}, {Up, interval}, {Up, interval}},
		},
		"an unknown server goes down after failureThreshold failures": {
			results: []Result{Failure, Failure, Failure, Failure},
			want:    []step{{Unknown, retry}, {Unknown, retry}, {Down, interval}, {Down, interval}},
		},
		"a server that is up is tried again soon after a failure": {
			from:    Up,
			results: []Result{Failure, Success, Failure, Failure, Failure},
			want:    []step{{Up, retry}, {Up, interval}, {Up, retry}, {Up, retry}, {Down, interval}},
		},
		"a server that is down is tried at the interval and a failure starts its count again": {
			from:    Down,
			results: []Result{Success, Failure, Success, Success},
			want:    []step{{Down, interval}, {Down, interval}, {Down, interval}, {Up, interval}},
		},
		"a success between failures keeps an unknown server unknown": {
			results: []Result{Failure, Failure, Success, Failure, Failure},
			want:    []step{{Unknown, retry}, {Unknown, retry}, {Unknown, interval}, {Unknown, retry}, {Unknown, retry}},
		},
		"an inconclusive try counts for nothing": {
			from:    Up,
			results: []Result{Failure, Inconclusive, Failure, Inconclusive, Failure},
			want:    []step{{Up, retry}, {Up, retry}, {Up, retry}, {Up, retry}, {Down, interval}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			state := State{Verdict: tc.from}
			var got []step
			for _, result := range tc.results {
				var delay time.Duration
				state, delay = Step(state, result, schedule)
				got = append(got, step{state.Verdict, delay})
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("verdicts and delays (-want +got):\n%s", diff)
			}
		})
	}
}

func schedules() *rapid.Generator[Schedule] {
	return rapid.Custom(func(t *rapid.T) Schedule {
		return Schedule{
			Interval:         time.Duration(rapid.Int64Range(1, 60_000).Draw(t, "interval")) * time.Millisecond,
			Timeout:          time.Duration(rapid.Int64Range(1, 60_000).Draw(t, "timeout")) * time.Millisecond,
			RetryInterval:    time.Duration(rapid.Int64Range(1, 60_000).Draw(t, "retryInterval")) * time.Millisecond,
			FailureThreshold: rapid.IntRange(1, 6).Draw(t, "failureThreshold"),
			SuccessThreshold: rapid.IntRange(1, 6).Draw(t, "successThreshold"),
		}
	})
}

// TestVerdictsFollowTheResultsInARow holds each step against the whole history
// of results, under schedules that change on the way.
func TestVerdictsFollowTheResultsInARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		current := schedules().Draw(t, "schedule")
		var state State
		failures, successes := 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "tries") {
			if rapid.IntRange(0, 9).Draw(t, "reschedule") == 0 {
				current = schedules().Draw(t, "schedule")
			}
			result := rapid.SampledFrom([]Result{Success, Failure, Inconclusive}).Draw(t, "result")
			before := state
			state, _ = Step(state, result, current)

			want := before.Verdict
			switch result {
			case Success:
				successes, failures = successes+1, 0
				if successes >= current.SuccessThreshold {
					want = Up
				}
			case Failure:
				successes, failures = 0, failures+1
				if failures >= current.FailureThreshold {
					want = Down
				}
			case Inconclusive:
				if state != before {
					t.Fatalf("an inconclusive try made %+v of %+v", state, before)
				}
			}
			if state.Verdict != want {
				t.Fatalf("after %d successes and %d failures in a row with %+v: %s, want %s",
					successes, failures, current, state.Verdict, want)
			}
		}
	})
}

// TestRemovalTakesAsLongAsKeepalivesTCPCheck runs delay_loop 6, retry 1,
// delay_before_retry 3 against a port that begins to refuse at a random moment.
// keepalived 2.2.7 takes 3 to 9 s with it.
func TestRemovalTakesAsLongAsKeepalivesTCPCheck(t *testing.T) {
	classic := Schedule{
		Interval: 6 * time.Second, Timeout: 10 * time.Second, RetryInterval: 3 * time.Second,
		FailureThreshold: 2, SuccessThreshold: 1,
	}
	shortest, longest := time.Hour, time.Duration(0)
	for millisecond := range 6000 {
		died := time.Minute + time.Duration(millisecond)*time.Millisecond
		took := timeToNotice(classic, died)
		shortest, longest = min(shortest, took), max(longest, took)
	}
	if shortest < 3*time.Second || longest > 9*time.Second {
		t.Errorf("removal took %s to %s, want 3s to 9s", shortest, longest)
	}
	if spread := longest - shortest; spread < 5*time.Second {
		t.Errorf("removal took %s to %s, want nearly all of 3s to 9s", shortest, longest)
	}
}

// timeToNotice returns how long after its death a server is down.
func timeToNotice(s Schedule, died time.Duration) time.Duration {
	var state State
	var now time.Duration
	for {
		result := Success
		if now >= died {
			result = Failure
		}
		var delay time.Duration
		state, delay = Step(state, result, s)
		if state.Verdict == Down {
			return now - died
		}
		now += delay
	}
}

func TestCountingDoesNotOverflow(t *testing.T) {
	state := State{Verdict: Up, Successes: enough}
	state, _ = Step(state, Success, schedule)
	if state.Successes != enough || state.Verdict != Up {
		t.Errorf("state is %+v", state)
	}
}

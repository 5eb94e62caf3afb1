package health

import "time"

// Result is the outcome of one try.
type Result int

// Inconclusive is a try that says nothing of the target, for it failed on the
// director itself (no file descriptor left, no local port left). It is the
// zero value, so that a forgotten result changes nothing.
const (
	Inconclusive Result = iota
	Success
	Failure
)

// State is what the state machine remembers of one probe. The zero State is a
// target that nobody has looked at.
type State struct {
	Verdict Verdict
	// Successes and Failures count the results in a row; one of them is
	// always zero.
	Successes, Failures int
}

// Step returns the state after one more result, and how long after the start
// of this try the next one is to start.
//
//   - Failures in a row take a server down once there are FailureThreshold of
//     them, whether it was Up or Unknown. Until then it keeps its verdict and is
//     tried again after RetryInterval.
//   - Successes in a row bring a server up once there are SuccessThreshold of
//     them, whether it was Down or Unknown. They are Interval apart: a server
//     that has been away is to prove that it stays.
//   - A single contrary result starts the count again.
//   - A server that is Down is tried every Interval, as keepalived does from
//     2.3.3 on (before that it went on with delay_before_retry).
//   - An inconclusive try leaves the state as it is and is repeated after
//     RetryInterval.
//
// A keepalived TCP_CHECK with delay_loop d, retry r and delay_before_retry b
// is Interval d, FailureThreshold r+1, RetryInterval b, SuccessThreshold 1.
// Two things differ. Delays here run from start to start, there from the end
// of a try to the start of the next, so a black hole is noticed earlier here.
// And keepalived takes a server that it has never seen up out at the first
// failure, whereas here Unknown needs FailureThreshold of them like Up.
//
// Thresholds below 1 count as 1. Because counts are compared with the
// thresholds of the moment, a state may be carried over to another schedule:
// a verdict changes only with a result.
func Step(state State, result Result, schedule Schedule) (next State, delay time.Duration) {
	switch result {
	case Success:
		return succeed(state, schedule), schedule.Interval
	case Failure:
		next = fail(state, schedule)
		if next.Verdict == Down {
			return next, schedule.Interval
		}
		return next, schedule.RetryInterval
	case Inconclusive:
	}
	return state, schedule.RetryInterval
}

func succeed(state State, schedule Schedule) State {
	state.Successes, state.Failures = count(state.Successes), 0
	if state.Successes >= schedule.SuccessThreshold {
		state.Verdict = Up
	}
	return state
}

func fail(state State, schedule Schedule) State {
	state.Successes, state.Failures = 0, count(state.Failures)
	if state.Failures >= schedule.FailureThreshold {
		state.Verdict = Down
	}
	return state
}

// enough is where counting ends: no threshold of the API is as high, and a
// count must not overflow in a process that runs for years.
const enough = 1 << 20

func count(n int) int { return min(n+1, enough) }

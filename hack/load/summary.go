package load

import (
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"
)

// Summary is what a stretch of requests shows.
type Summary struct {
	Requests, Failed int
	// Reset counts the failed requests whose connection was reset.
	Reset int
	// PerServer counts the answers of each real server.
	PerServer map[string]int
	// Outage is the longest time from the start of a failed request to the
	// start of the next that succeeded (or of the last, if none did); 0 if none
	// failed.
	Outage time.Duration
	// Failing is the time from the start of the first failed request to the start
	// of the first that succeeded after the last failed one (or of the last, if
	// none did): all the while some failed, though not all of them may have.
	Failing time.Duration
	// Errors are the distinct reasons of failures, at most five of them.
	Errors []string
}

// Summarize counts results, which may come in any order.
func Summarize(results []Result) Summary {
	results = sorted(results)
	s := Summary{Requests: len(results), PerServer: map[string]int{}}
	reasons := map[string]struct{}{}
	var first, down time.Time
	for _, result := range results {
		if result.Err == nil {
			s.PerServer[result.Server]++
			if !down.IsZero() {
				s.Outage, s.Failing = max(s.Outage, result.Start.Sub(down)), result.Start.Sub(first)
			}
			down = time.Time{}
			continue
		}
		s.Failed++
		if errors.Is(result.Err, syscall.ECONNRESET) {
			s.Reset++
		}
		reasons[result.Err.Error()] = struct{}{}
		if down.IsZero() {
			down = result.Start
		}
		if first.IsZero() {
			first = down
		}
	}
	if !down.IsZero() {
		last := results[len(results)-1].Start
		s.Outage, s.Failing = max(s.Outage, last.Sub(down)), last.Sub(first)
	}
	s.Errors = slices.Sorted(maps.Keys(reasons))
	s.Errors = s.Errors[:min(len(s.Errors), 5)]
	return s
}

// sorted returns the results in the order of their starts.
func sorted(results []Result) []Result {
	return slices.SortedStableFunc(slices.Values(results), func(a, b Result) int { return a.Start.Compare(b.Start) })
}

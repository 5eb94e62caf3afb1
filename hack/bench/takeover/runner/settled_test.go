package main

import (
	"errors"
	"testing"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

func TestAnEventIsOverWhenItHasShownAndAllIsAnsweredAgain(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	second := func(s float64) time.Time { return at.Add(time.Duration(s * float64(time.Second))) }
	// load returns a request every 20 ms up to now; those begun in [from, to) failed.
	requests := func(now, from, to float64) []load.Result {
		var results []load.Result
		for start := at; start.Before(second(now)); start = start.Add(20 * time.Millisecond) {
			r := load.Result{Start: start}
			if !start.Before(second(from)) && start.Before(second(to)) {
				r.Err = errors.New("no answer")
			}
			results = append(results, r)
		}
		return results
	}
	thin := func(results []load.Result) []load.Result {
		return append(results[:0:0], results[len(results)-60:len(results)-50]...)
	}
	for name, tc := range map[string]struct {
		event   plan.Event
		now     float64
		moved   float64 // before 0: not since the event
		results []load.Result
		want    bool
	}{
		"quiet for long, and moved":      {event: plan.NodeCrash, now: 4, moved: 1, results: requests(4, 0.1, 1), want: true},
		"moved too late":                 {event: plan.NodeCrash, now: 4, moved: 1.2, results: requests(4, 0.1, 1)},
		"never moved":                    {event: plan.NodeCrash, now: 9, moved: -3, results: requests(9, 0.1, 1)},
		"nothing failed, and moved":      {event: plan.GracefulStop, now: 4, moved: 0.2, results: requests(4, 0, 0), want: true},
		"failing again of late":          {event: plan.NodeCrash, now: 5, moved: 1, results: requests(5, 4.8, 4.9)},
		"a client without time":          {event: plan.NodeCrash, now: 4, moved: 1, results: thin(requests(4, 0.1, 1))},
		"a real server is out":           {event: plan.BackendRST, now: 10, moved: -3, results: requests(10, 0.1, 7), want: true},
		"a real server is still asked":   {event: plan.BackendRST, now: 9, moved: -3, results: requests(9, 0.1, 7)},
		"a real server that nobody uses": {event: plan.BackendBlackhole, now: 9, moved: 1, results: requests(9, 0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := settled(tc.event, at, second(tc.now), tc.results, second(tc.moved)); got != tc.want {
				t.Errorf("settled() = %t, want %t", got, tc.want)
			}
		})
	}
}

package main

import (
	"context"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
	"github.com/lvs-operator/lvs-operator/hack/load"
)

// settlePoll is short beside plan.Quiet.
const settlePoll = 100 * time.Millisecond

// settled says whether an event that began at a moment is over for the client: it
// has shown, by a move for a director's and by a failure for a real server's, and
// all that was begun in plan.Quiet since then was answered. What never shows is
// never over. The results are those of requests that were begun from the event on,
// in the order of their starts; of the last load.Timeout not all have one.
func settled(event plan.Event, at, now time.Time, results []load.Result, moved time.Time) bool {
	from, to := now.Add(-load.Timeout-plan.Quiet), now.Add(-load.Timeout)
	shown := moved
	if event.Backend() {
		shown = time.Time{}
		for _, r := range results {
			if r.Err != nil {
				shown = r.Start
			}
		}
	}
	if shown.Before(at) || !from.After(shown) {
		return false
	}
	answered := 0
	for _, r := range results {
		switch {
		case r.Start.Before(from):
		case r.Err != nil:
			return false
		case r.Start.Before(to):
			answered++
		}
	}
	// Somebody who asked next to nothing has seen nothing.
	return answered >= plan.Rate*int(plan.Quiet/time.Second)/2
}

// awaitSettled returns once an event is over for the client, or ctx ends.
func awaitSettled(ctx context.Context, event plan.Event, at time.Time, recorder *load.Recorder, moved *mover) {
	if event == plan.SteadyLoad {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if settled(event, at, now, recorder.Results(at, now), moved.latest()) {
				return
			}
		}
	}
}

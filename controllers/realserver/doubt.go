package realserver

import (
	"context"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// lossGather is how long losses are gathered before they are judged: many at
	// once look like few if each is judged as it comes.
	lossGather = time.Second
	// lossDoubt is how long a mass loss waits for a second look: an API server
	// that was restored from a backup, or a CRD made anew, lists nothing for a
	// moment, and the pods' VIPs must not go with it.
	lossDoubt = 10 * time.Second
)

// doubt holds back what the agent is to take off until it is believed.
type doubt struct {
	// since is when the first of the losses was seen that are held back.
	since time.Time
	// retry is when the API server is asked again.
	retry time.Time
}

// judge returns what the agent is to want, when it was told to want last: next,
// and of last what is not believed yet to be wanted no more. What is new is in it
// at once. Again is how soon to judge anew, 0 if nothing is held back. Look
// asks the API server, not a cache, what is wanted.
func (d *doubt) judge(ctx context.Context, now time.Time, last, next wants, look func(context.Context) (wants, error)) (give wants, again time.Duration, err error) {
	all := func(types.UID, netip.Addr) bool { return true }
	losers, of := losing(last, next)
	if losers == 0 {
		*d = doubt{}
		return next, 0, nil
	}
	if d.since.IsZero() {
		d.since = now
	}
	if left := lossGather - now.Sub(d.since); left > 0 {
		return next.with(last, all), left, nil
	}
	if 2*losers <= of {
		*d = doubt{}
		return next, 0, nil
	}
	due := d.since.Add(lossGather + lossDoubt)
	if d.retry.After(due) {
		due = d.retry
	}
	if left := due.Sub(now); left > 0 {
		return next.with(last, all), left, nil
	}
	sure, err := look(ctx)
	if err != nil {
		d.retry = now.Add(lossDoubt)
		return next.with(last, all), lossDoubt, err
	}
	// What the API server wants is only missing in a cache that lags behind.
	give = next.with(last, sure.has)
	*d = doubt{}
	if left, _ := losing(give, next); left > 0 {
		again = lossDoubt
	}
	return give, again, nil
}

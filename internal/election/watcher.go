package election

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// message is something that happened, to be told to the belief.
type message func(b *belief, now time.Time)

// watcher reads the Lease and follows it. Each session is a GET and then a
// watch from there; when one ends the next one begins.
type watcher struct {
	leases   Leases
	name     string
	duration func() time.Duration
	now      func() time.Time
	jitter   func() float64
	// again ends the session, so that the Lease is read anew. It has room for
	// one.
	again chan struct{}
	// out takes what is found.
	out chan<- message
}

const (
	shortestPause = 100 * time.Millisecond
	longestPause  = time.Second
	// settled is how long a session lasts that ends a row of short ones.
	settled = time.Second
)

// run follows the Lease until ctx is done.
func (w *watcher) run(ctx context.Context) {
	short := 0
	for ctx.Err() == nil {
		started := w.now()
		asked := w.session(ctx)
		if w.now().Sub(started) >= settled {
			short = 0
		}
		if pause := w.pause(short, asked); pause > 0 {
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		short++
	}
}

// pause returns how long to wait after so many short sessions in a row: not at
// all for the first one that was ended on request, else from 100 ms up to a
// second or a third of the duration, half of it at random.
func (w *watcher) pause(short int, asked bool) time.Duration {
	if asked && short == 0 {
		return 0
	}
	longest := max(min(longestPause, w.duration()/3), shortestPause)
	pause := min(shortestPause<<min(short, 10), longest)
	return max(shortestPause, pause/2+time.Duration(w.jitter()*float64(pause/2)))
}

// session reads the Lease and watches it until the watch ends. It returns true
// if it was asked to end.
func (w *watcher) session(ctx context.Context) (asked bool) {
	select {
	case <-w.again: // It is about to be read anyway.
	default:
	}
	version, ok := w.get(ctx)
	if !ok {
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The deadline is for the answer; the stream that follows has none.
	deadline := time.AfterFunc(w.duration()/3, cancel)
	stream, err := w.leases.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, w.name).String(),
		ResourceVersion: version,
	})
	if err != nil {
		return false
	}
	defer stream.Stop()
	if !deadline.Stop() {
		return false
	}
	return w.follow(ctx, stream)
}

// get reads the Lease and returns the version to watch from. A Lease that does
// not exist has none: the watch then begins with what exists by then.
func (w *watcher) get(ctx context.Context) (version string, ok bool) {
	callCtx, cancel := context.WithTimeout(ctx, w.duration()/3)
	defer cancel()
	sent := w.now()
	object, err := w.leases.Get(callCtx, w.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		w.tell(ctx, func(b *belief, now time.Time) { b.read(now, sent, nil) })
		return "", true
	case err != nil:
		w.tell(ctx, func(b *belief, now time.Time) { b.failed(now, sent) })
		return "", false
	}
	w.tell(ctx, func(b *belief, now time.Time) { b.read(now, sent, object) })
	return object.ResourceVersion, true
}

// follow reports events until the stream ends, or has been silent for half a
// duration: a holder renews every third. If there is one, either it or this
// director cannot reach the API server, and a GET tells which before the Lease
// expires.
func (w *watcher) follow(ctx context.Context, stream watch.Interface) (asked bool) {
	silence := time.NewTimer(w.duration() / 2)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-w.again:
			return true
		case <-silence.C:
			return false
		case event, open := <-stream.ResultChan():
			object, isLease := event.Object.(*coordinationv1.Lease)
			if !open || !isLease || event.Type == watch.Error {
				return false
			}
			if event.Type == watch.Bookmark {
				continue
			}
			deleted := event.Type == watch.Deleted
			w.tell(ctx, func(b *belief, now time.Time) { b.event(now, object, deleted) })
			silence.Reset(w.duration() / 2)
		}
	}
}

func (w *watcher) tell(ctx context.Context, m message) {
	select {
	case <-ctx.Done():
	case w.out <- m:
	}
}

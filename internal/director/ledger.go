package director

import (
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Outcome returns how the last pass over the key ended; false if the key is
// unknown.
func (w *Worker) Outcome(key netstate.Key) (Outcome, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[key]
	if e == nil {
		return Outcome{}, false
	}
	return e.outcome, true
}

// Announceable lists, in order, the keys that may be announced: they are
// served (or adopted, which is how a restarted director goes on) and were seen
// in the kernel.
func (w *Worker) Announceable() []netstate.Key {
	return w.keys((*entry).announceable)
}

// announceable says whether a key is one of the Announceable.
func (w *Worker) announceable(key netstate.Key) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[key]
	return e != nil && e.announceable()
}

func (e *entry) announceable() bool { return e.ready && (e.phase == served || e.phase == adopted) }

// Unready lists, in order, the keys whose plan waits for its first pass, or for
// the worker to be let work. One that the kernel refuses is none of them: it
// must not keep the others from being served.
func (w *Worker) Unready() []netstate.Key {
	return w.keys(func(e *entry) bool {
		return e.phase == served && !e.ready && (w.blocked != nil || e.outcome.Err == nil && !e.outcome.Programmed)
	})
}

// Served lists, in order, the keys that are not on their way out.
func (w *Worker) Served() []netstate.Key {
	return w.keys(func(e *entry) bool { return e.phase == served || e.phase == adopted })
}

// Plans lists, in order of their keys, what is wanted of each served key.
func (w *Worker) Plans() []plan.Desired {
	keys := w.keys(func(e *entry) bool { return e.phase == served })
	w.mu.Lock()
	defer w.mu.Unlock()
	plans := make([]plan.Desired, 0, len(keys))
	for _, key := range keys {
		if e := w.entries[key]; e != nil {
			plans = append(plans, e.desired)
		}
	}
	return plans
}

// QuorumsLost counts the services of served keys for which too few real servers
// are up.
func (w *Worker) QuorumsLost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := 0
	for _, e := range w.entries {
		if e.phase == served {
			lost += len(e.outcome.QuorumLost)
		}
	}
	return lost
}

// Links lists the interfaces, other than the announcement interface, by which
// real servers are reached, some perhaps more than once. Those of keys that are
// leaving count too, since neighbours go on sending.
func (w *Worker) Links() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var links []string
	for _, e := range w.entries {
		if e.phase == served || e.phase == leaving {
			links = append(links, e.desired.Links...)
		}
	}
	return links
}

// Plan returns what is wanted of a key that is served; false if it is not.
func (w *Worker) Plan(key netstate.Key) (plan.Desired, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[key]
	if e == nil || e.phase != served {
		return plan.Desired{}, false
	}
	return e.desired, true
}

// Failures lists, in order, the keys that the kernel refuses, with why.
func (w *Worker) Failures() []Failure {
	keys := w.keys(func(e *entry) bool { return e.phase == served && e.outcome.Err != nil })
	var failures []Failure
	for _, key := range keys {
		if outcome, _ := w.Outcome(key); outcome.Err != nil {
			failures = append(failures, Failure{key, outcome.Err})
		}
	}
	return failures
}

// Failure is why a key is not in the kernel as it should be.
type Failure struct {
	Key netstate.Key
	Err error
}

const (
	// A key counts as refused when so many passes failed, and for so long: what
	// passes by in a moment is no reason to move a group.
	refusalPasses   = 4
	refusalPatience = 3 * time.Second
)

// refusals are passes over a key that failed one after the other.
type refusals struct {
	passes int
	since  time.Time
	err    error
}

// count takes in how a pass ended that was let work.
func (r *refusals) count(o Outcome) {
	if o.Err == nil || waits(o.Err) {
		*r = refusals{}
		return
	}
	if r.passes == 0 {
		r.since = time.Now()
	}
	r.passes++
	r.err = o.Err
}

// last says that the kernel has refused for so long that it will not think
// better of it by itself.
func (r *refusals) last() bool {
	return r.passes >= refusalPasses && time.Since(r.since) >= refusalPatience
}

// Refused lists, in order, the keys that the kernel has refused for a while, with
// why. A new plan does not take a key off the list, but a pass that succeeds.
func (w *Worker) Refused() []Failure {
	keys := w.keys(func(e *entry) bool { return e.phase == served && e.refusals.last() })
	w.mu.Lock()
	defer w.mu.Unlock()
	var refused []Failure
	for _, key := range keys {
		if e := w.entries[key]; e != nil && e.refusals.err != nil {
			refused = append(refused, Failure{key, e.refusals.err})
		}
	}
	return refused
}

// Retry works at once on the keys that the kernel refuses.
func (w *Worker) Retry() {
	for _, key := range w.keys(func(e *entry) bool { return e.refusals.passes > 0 }) {
		w.queue.Add(key)
	}
}

func (w *Worker) keys(match func(*entry) bool) []netstate.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []netstate.Key
	for key, e := range w.entries {
		if match(e) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, netstate.Key.Compare)
	return keys
}

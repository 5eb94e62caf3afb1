package announce

import (
	"sync"
	"sync/atomic"
	"time"
)

// StallLimit is the age up to which a decision may be acted upon. An agent
// that was stopped for longer (by the scheduler, a paused guest, a signal)
// must decide afresh before it speaks: a peer may have taken its VIPs over,
// and answers to requests from that time would bring clients back to it.
const StallLimit = 150 * time.Millisecond

// Clock tells the time since a fixed point in the past. It must go on while
// the machine is suspended.
type Clock func() time.Duration

// Fence keeps a director that stopped deciding from announcing. The loop that
// decides calls Beat, an Announcer looks before each frame. One Fence may serve
// many Announcers. All methods are safe for concurrent use.
type Fence struct {
	clock Clock
	// last is when the newest decision was begun, on clock; never is none yet.
	last atomic.Int64
	// gaps counts the beats that came too late. It is written before last, so
	// whoever sees a beat that ended a gap sees the gap too.
	gaps atomic.Uint64

	mu      sync.Mutex
	resumed chan struct{}
}

const never = int64(-1) << 62

// NewFence returns a fence that is not fresh until its first Beat. A nil
// clock is Boottime.
func NewFence(clock Clock) *Fence {
	if clock == nil {
		clock = Boottime
	}
	f := &Fence{clock: clock, resumed: make(chan struct{})}
	f.last.Store(never)
	return f
}

// Now returns the fence's time. Whoever decides takes it before reading what
// the decision is based on, and hands it to Beat afterwards.
func (f *Fence) Now() time.Duration { return f.clock() }

// Beat says that a decision was made, on facts read no earlier than since,
// and carried out (SetActive was called). It takes the time of the facts and
// not its own, so that a process that is stopped between deciding and beating
// does not pass an old decision off as a new one. Call it at least every third
// of StallLimit.
func (f *Fence) Beat(since time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := f.last.Load()
	late := f.clock()-time.Duration(last) > StallLimit
	if late {
		f.gaps.Add(1)
	}
	f.last.Store(max(last, int64(since)))
	if late {
		close(f.resumed)
		f.resumed = make(chan struct{})
	}
}

// Fresh says whether the newest decision is at most StallLimit old.
func (f *Fence) Fresh() bool {
	fresh, _ := f.state()
	return fresh
}

// state returns whether the fence is fresh, and how many gaps there have been.
// A count that differs from an earlier one says that what has been waiting may
// be older than the decision, even though the fence is fresh again.
func (f *Fence) state() (fresh bool, gaps uint64) {
	last := time.Duration(f.last.Load())
	return f.clock()-last <= StallLimit, f.gaps.Load()
}

// afterGap returns a channel that is closed by the next Beat that ends a gap.
// Get it before looking at the state, or that Beat can be missed.
func (f *Fence) afterGap() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resumed
}

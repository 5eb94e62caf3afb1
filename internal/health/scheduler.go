package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Report is what is known of a probe.
type Report struct {
	Verdict Verdict
	// Since is when the verdict became what it is; for a probe without a
	// verdict, when it was first asked for.
	Since time.Time
	// LastError is the reason of the last try's failure, empty if it passed or
	// if there was none yet.
	LastError string
	// LastDuration is how long the last try took.
	LastDuration time.Duration
	// LastTry is when the last try started; zero if there was none yet.
	LastTry time.Time
}

// Options of a Scheduler. The zero value is usable but for Checkers.
type Options struct {
	// Checkers perform the tries.
	Checkers Checkers
	// OnChange is called after a probe of the owner got another verdict, and
	// sees it by Report. It is called on the probe's own goroutine, without any
	// lock held, once for each owner; it must not block, and it may come after
	// the owner has dropped the probe. Calls for one owner may overlap, so the
	// order of two calls means nothing: whoever is called reads the reports.
	OnChange func(owner string)
	// MaxInFlight bounds the tries that run at once, and with them the file
	// descriptors; 0 means 1024. A try that has to wait starts late.
	MaxInFlight int
	// Jitter returns a number in [0, 1) and is safe for concurrent use; nil
	// means a random one.
	Jitter func() float64
}

const (
	defaultInFlight = 1024
	// firstWithin bounds the wait for the first try of a probe.
	firstWithin = time.Second
	// jitterShare is how much of an interval jitter may take away.
	jitterShare = 0.1
	// shortestDelay keeps a nonsensical schedule from becoming a busy loop.
	shortestDelay = 10 * time.Millisecond
	// stall is how much later than its timeout a try ends whose process stood
	// still, or got no processor, while it ran.
	stall = 500 * time.Millisecond
)

var errTimedOut = errors.New("timed out")

// Scheduler runs probes for any number of owners.
//
// A probe is its Target and its Schedule: owners that ask for the same share
// one runner and one verdict. Owners that ask for the same Target with
// different Schedules get a runner each: a merged schedule would give one of
// them thresholds that it did not ask for. An owner that replaces a probe by
// one of the same Target takes what is known over to the new schedule.
//
// Tries of a probe never overlap. They are on a fixed schedule from start to
// start, a late one is not made up for. The first comes within a second (or an
// interval, if that is shorter) at random, and each interval is shortened by
// up to a tenth at random, so that many probes spread out, while
// FailureThreshold and the intervals still bound the time that it takes to
// notice a failure.
//
// All methods may be called concurrently.
type Scheduler struct {
	options Options
	slots   chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	owners  map[string]map[Probe]struct{}
	runners map[Probe]*runner
}

// runner is a probe that runs. Its fields are guarded by the Scheduler's mu.
type runner struct {
	probe  Probe
	stop   context.CancelFunc
	owners map[string]struct{}
	state  State
	report Report
	// stalled says that the last try was void, see void.
	stalled bool
}

// NewScheduler returns a Scheduler that has nothing to do. Its Close must be
// called.
func NewScheduler(options Options) *Scheduler {
	if options.MaxInFlight <= 0 {
		options.MaxInFlight = defaultInFlight
	}
	if options.Jitter == nil {
		options.Jitter = rand.Float64
	}
	return &Scheduler{
		options: options,
		slots:   make(chan struct{}, options.MaxInFlight),
		owners:  map[string]map[Probe]struct{}{},
		runners: map[Probe]*runner{},
	}
}

// SetFor makes probes, and no others, the probes of the owner. Those that it
// had already go on undisturbed; those that nobody wants any more end. After
// Close it does nothing.
func (s *Scheduler) SetFor(owner string, probes []Probe) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}

	had := s.owners[owner]
	want := make(map[Probe]struct{}, len(probes))
	for _, probe := range probes {
		want[probe] = struct{}{}
	}
	known := s.leaving(had, want)
	for probe := range want {
		if _, ok := had[probe]; !ok {
			s.join(owner, probe, known[probe.Target])
		}
	}
	for probe := range had {
		if _, ok := want[probe]; !ok {
			s.leave(owner, probe)
		}
	}

	if len(want) == 0 {
		delete(s.owners, owner)
		return
	}
	s.owners[owner] = want
}

// leaving returns, by target, the runners that the owner gives up. Their
// knowledge goes over to probes of the same target. An owner may give up two
// of one target: then the one with a verdict is preferred, and the more
// pessimistic of two verdicts.
func (s *Scheduler) leaving(had, want map[Probe]struct{}) map[Target]*runner {
	known := map[Target]*runner{}
	for probe := range had {
		if _, stays := want[probe]; stays {
			continue
		}
		r, other := s.runners[probe], known[probe.Target]
		if other == nil || r.state.Verdict > other.state.Verdict {
			known[probe.Target] = r
		}
	}
	return known
}

// join makes owner a user of the probe. A new runner starts from what is known
// of its target, if anything is.
func (s *Scheduler) join(owner string, probe Probe, known *runner) {
	r := s.runners[probe]
	if r == nil {
		ctx, stop := context.WithCancel(context.Background())
		r = &runner{
			probe: probe, stop: stop, owners: map[string]struct{}{},
			report: Report{Since: time.Now()},
		}
		if known != nil {
			r.state, r.report = known.state, known.report
		}
		s.runners[probe] = r
		s.running.Go(func() { s.run(ctx, r) })
	}
	r.owners[owner] = struct{}{}
}

// leave ends the owner's use of the probe.
func (s *Scheduler) leave(owner string, probe Probe) {
	r := s.runners[probe]
	delete(r.owners, owner)
	if len(r.owners) == 0 {
		r.stop()
		delete(s.runners, probe)
	}
}

// Report returns what is known of the probe; the zero Report, which is
// Unknown, if nobody asked for it.
func (s *Scheduler) Report(probe Probe) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.runners[probe]; r != nil {
		return r.report
	}
	return Report{}
}

// Reports returns what is known of every probe of the owner.
func (s *Scheduler) Reports(owner string) map[Probe]Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	reports := make(map[Probe]Report, len(s.owners[owner]))
	for probe := range s.owners[owner] {
		reports[probe] = s.runners[probe].report
	}
	return reports
}

// Close ends all probes and waits for them. Their reports are gone then.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.closed = true
	for _, r := range s.runners {
		r.stop()
	}
	clear(s.runners)
	clear(s.owners)
	s.mu.Unlock()
	s.running.Wait()
}

// run tries the runner's probe until ctx is done.
func (s *Scheduler) run(ctx context.Context, r *runner) {
	first := min(r.probe.Schedule.Interval, firstWithin)
	timer := time.NewTimer(time.Duration(s.options.Jitter() * float64(first)))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return
		case s.slots <- struct{}{}:
		}
		started := time.Now()
		err := s.try(ctx, r.probe)
		<-s.slots
		if ctx.Err() != nil {
			return // The try was cut off, or its target is nobody's any more.
		}
		delay := s.record(r, started, err)
		timer.Reset(time.Until(started.Add(delay)))
	}
}

// try performs the check once.
func (s *Scheduler) try(ctx context.Context, probe Probe) error {
	checker := s.options.Checkers[probe.Target.Type]
	if checker == nil {
		return fmt.Errorf("%w: no check of type %s", ErrInconclusive, probe.Target.Type)
	}
	ctx, cancel := context.WithTimeout(ctx, probe.Schedule.Timeout)
	defer cancel()
	if err := checker.Check(ctx, probe.Target); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return errTimedOut
		}
		return err
	}
	return nil
}

// void makes a timeout inconclusive that came much too late: the answer may have
// been there, and nobody looked. A process that was stopped, or a machine that was
// paused, would else find all its servers down when it wakes. Of two in a row the
// second counts, or a machine that is always late would never find a server down.
// s.mu is held.
func (r *runner) void(err error, took time.Duration) error {
	r.stalled = !r.stalled && errors.Is(err, errTimedOut) && took > r.probe.Schedule.Timeout+stall
	if r.stalled {
		return fmt.Errorf("%w: timed out while the director stood still", ErrInconclusive)
	}
	return err
}

// record enters the outcome of a try, tells the owners if the verdict is a new
// one, and returns how long after its start the next try is due.
func (s *Scheduler) record(r *runner, started time.Time, err error) time.Duration {
	now := time.Now()
	schedule := r.probe.Schedule

	s.mu.Lock()
	err = r.void(err, now.Sub(started))
	before := r.state.Verdict
	state, delay := Step(r.state, resultOf(err), schedule)
	r.state = state
	r.report.LastTry, r.report.LastDuration = started, now.Sub(started)
	r.report.LastError = ""
	if err != nil {
		r.report.LastError = err.Error()
	}
	var tell []string
	if state.Verdict != before {
		r.report.Verdict, r.report.Since = state.Verdict, now
		for owner := range r.owners {
			tell = append(tell, owner)
		}
	}
	s.mu.Unlock()

	if s.options.OnChange != nil {
		for _, owner := range tell {
			s.options.OnChange(owner)
		}
	}
	// The time between tries after a first failure is not shortened: it is how
	// long a server may stumble without harm.
	if state.Failures == 0 || state.Verdict == Down {
		delay -= time.Duration(s.options.Jitter() * jitterShare * float64(delay))
	}
	return max(delay, shortestDelay)
}

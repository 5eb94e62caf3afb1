package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Kernel is the network namespace that a director programs.
type Kernel interface {
	// Keys lists the VIPs that the operator owns there.
	Keys(context.Context) ([]netstate.Key, error)
	// Observe reads what is owned of one key, and nothing else.
	Observe(context.Context, netstate.Key) (netstate.Observation, error)
	// Apply performs one operation. One that is already done is no error.
	Apply(context.Context, netstate.Op) error
}

// ErrUnconfirmed says that what is wanted of a key is known from a checkpoint
// only, so that no service is made of it.
var ErrUnconfirmed = errors.New("the API server has not confirmed the plan yet")

// Outcome is how the last pass over a key ended.
type Outcome struct {
	// Programmed says that the kernel holds what is wanted of the key.
	Programmed bool
	// Err is why not; nil while the plan waits for its pass too.
	Err error
	// State is what the kernel held after the pass, Connections what it counted
	// at its start.
	State       netstate.State
	Connections map[netstate.DestinationKey]netstate.Connections
	// Draining are the destinations that are leaving, with when that began.
	Draining map[netstate.DestinationKey]time.Time
	// Rising are those that are up and do not have their full weight yet, with when
	// they came up.
	Rising map[netstate.DestinationKey]time.Time
	// QuorumLost are the services for which too few real servers are up.
	QuorumLost map[netstate.ServiceKey]struct{}
}

// phase is where a key stands in its life on this director.
type phase int

const (
	// adopted keys were found in the kernel; nothing is changed until a plan
	// says what they should be.
	adopted phase = iota
	// served keys are kept as their plan says.
	served
	// leaving keys are announced no more; neighbours may still send, so
	// services and address stay for a while.
	leaving
	// gone keys are removed from the kernel.
	gone
)

// entry is what the worker knows of a key.
type entry struct {
	phase   phase
	desired plan.Desired
	// confirmed says that desired came from the API and not from a checkpoint.
	confirmed bool
	// memory is what the last pass has to tell the next one.
	memory  plan.Memory
	outcome Outcome
	// verdicts are what the outcome says of servers to other directors.
	verdicts []gossip.Verdicts
	// ready says that the key was in the kernel at least once as it should be.
	ready bool
	// revision changes with what is wanted, so that a pass that began before does
	// not speak for it.
	revision int
	// left is when the key began to leave.
	left time.Time
	// refusals are the passes that failed since the last one that did not.
	refusals refusals
	// tell says that the next pass is to be told of even if it changes nothing.
	tell bool
}

// await begins a new revision: until its pass nothing is known of it.
func (e *entry) await() {
	e.revision++
	e.outcome.Programmed, e.outcome.Err = false, nil
}

// Worker brings the kernel to what is planned, one key at a time. It never
// reads the API, so it goes on without it.
type Worker struct {
	kernel   Kernel
	verdicts func(health.Probe) health.Verdict
	changed  func(netstate.Key)
	log      *slog.Logger
	metrics  *Metrics
	queue    workqueue.TypedRateLimitingInterface[netstate.Key]

	// passing is held while a pass works. It is taken before mu.
	passing sync.Mutex

	mu      sync.Mutex
	entries map[netstate.Key]*entry
	answers answers
	// heard is what Agree was given.
	heard func(plan.Desired) hearsay
	// blocked is why nothing may be changed in the kernel; nil if it may.
	blocked  error
	lastPass time.Time
	// directorsKnown says that marked services may be added.
	directorsKnown bool
}

const (
	// auditInterval bounds how long drift stays: an entry that somebody else
	// deletes is back within it.
	auditInterval = 30 * time.Second
	// drainLook is how often connections that have to end are counted.
	drainLook = time.Second
	// lingerTime is how long the kernel serves a VIP that is announced no more:
	// neighbours keep sending for up to about 40 s.
	lingerTime = 60 * time.Second
)

// NewWorker returns a worker that programs kernel. Verdicts tells what is
// known of a target; changed is called, without locks held, after each pass
// that changed an outcome, and must not block.
func NewWorker(kernel Kernel, verdicts func(health.Probe) health.Verdict, changed func(netstate.Key), metrics *Metrics, log *slog.Logger) *Worker {
	return &Worker{
		kernel:   kernel,
		verdicts: verdicts,
		changed:  changed,
		log:      log,
		metrics:  metrics,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[netstate.Key](100*time.Millisecond, 10*time.Second)),
		entries:  map[netstate.Key]*entry{},
		lastPass: time.Now(),
	}
}

// Run works until ctx ends. It leaves the kernel as it is.
func (w *Worker) Run(ctx context.Context) {
	stop := context.AfterFunc(ctx, w.queue.ShutDown)
	defer stop()
	go w.audit(ctx)
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		w.pass(ctx, key)
		w.queue.Done(key)
	}
}

// audit queues every key once in a while: what others changed behind our back
// is repaired then.
func (w *Worker) audit(ctx context.Context) {
	ticker := time.NewTicker(auditInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.Audit()
			w.idle()
		}
	}
}

// idle counts as a pass when there is nothing to work on.
func (w *Worker) idle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.entries) == 0 {
		w.lastPass = time.Now()
	}
}

// Adopt takes note of keys that are in the kernel. Keys that are known already
// stay as they are.
func (w *Worker) Adopt(keys []netstate.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if w.entries[key] == nil {
			w.entries[key] = &entry{phase: adopted}
			w.queue.Add(key)
		}
	}
}

// Restore takes a plan from a checkpoint: weights follow health, but no
// service is added or removed until the API confirms the plan. False says that
// it has done so before.
func (w *Worker) Restore(desired plan.Desired) bool {
	return w.set(desired, false)
}

// Program takes the plan of a key from the API.
func (w *Worker) Program(desired plan.Desired) {
	w.set(desired, true)
}

func (w *Worker) set(desired plan.Desired, confirmed bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.entries[desired.Key]
	if e == nil {
		e = &entry{}
		w.entries[desired.Key] = e
	}
	if e.confirmed && !confirmed {
		return false
	}
	if e.phase != served || e.confirmed != confirmed || !sameWork(e.desired, desired) {
		e.await()
	}
	e.phase, e.desired, e.confirmed = served, desired, confirmed
	w.queue.Add(desired.Key)
	return true
}

// sameWork says whether two plans ask the same of the kernel, if verdicts are
// the same.
func sameWork(a, b plan.Desired) bool {
	unready := func(string, string) bool { return true } // whatever the reason is
	return maps.Equal(a.State.Guard, b.State.Guard) && maps.Equal(a.State.Addresses, b.State.Addresses) &&
		maps.Equal(a.State.Services, b.State.Services) && maps.Equal(a.State.Destinations, b.State.Destinations) &&
		maps.Equal(a.Policies, b.Policies) && maps.EqualFunc(a.Unready, b.Unready, unready)
}

// Leave stops serving a key: from now on it is not to be announced, and when
// neighbours have had time to forget it, it is removed from the kernel.
func (w *Worker) Leave(key netstate.Key) {
	w.mu.Lock()
	e := w.entries[key]
	if e == nil || e.phase == leaving || e.phase == gone {
		w.mu.Unlock()
		return
	}
	e.await()
	e.phase, e.left = leaving, time.Now()
	w.mu.Unlock()
	w.queue.Add(key)
	w.changed(key)
}

// Answer makes the kernel answer for the VIPs of some groups on an interface, and
// for those of others no more. Of groups that were never decided on what is in the
// kernel stays.
func (w *Worker) Answer(how answers) {
	w.mu.Lock()
	before := w.answers
	w.answers = how.after(before)
	same := w.answers == before
	w.mu.Unlock()
	if !same {
		w.Audit()
	}
}

// Block keeps the worker from changing the kernel for the reason given, or,
// with nil, lets it. What is adopted is still read.
func (w *Worker) Block(reason error) {
	w.mu.Lock()
	again := reason == nil && w.blocked != nil
	w.blocked = reason
	w.mu.Unlock()
	if again {
		w.Audit()
	}
}

// Forget drops every key, without touching the kernel, and returns them. When
// it returns no pass is under way any more: the kernel is the caller's.
func (w *Worker) Forget() []netstate.Key {
	w.mu.Lock()
	keys := slices.Collect(maps.Keys(w.entries))
	clear(w.entries)
	w.answers = answers{}
	w.mu.Unlock()
	w.passing.Lock()
	defer w.passing.Unlock()
	return keys
}

// Enqueue has a key worked on, and told of: what its plan depends on besides
// the plan, such as a verdict, has changed.
func (w *Worker) Enqueue(key netstate.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.entries[key]; e != nil {
		e.tell = true
		w.queue.Add(key)
	}
}

// Audit has every key worked on.
func (w *Worker) Audit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.entries {
		w.queue.Add(key)
	}
}

// LastPass returns when the worker last finished a pass, which is how liveness
// is judged: a worker that hangs in the kernel stops making passes.
func (w *Worker) LastPass() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastPass
}

// pass works on one key and notes how it ended.
func (w *Worker) pass(ctx context.Context, key netstate.Key) {
	w.passing.Lock()
	defer w.passing.Unlock()
	w.mu.Lock()
	e := w.entries[key]
	if e == nil {
		w.mu.Unlock()
		return
	}
	if e.phase == leaving && time.Since(e.left) >= lingerTime {
		e.phase = gone
		e.await()
	}
	job := *e
	e.tell = false
	how, blocked := w.answers, w.blocked
	w.mu.Unlock()

	if blocked != nil && job.phase != adopted {
		outcome := job.outcome
		outcome.Programmed, outcome.Err = false, blocked
		w.settle(key, e, &job, outcome)
		return
	}
	start := time.Now()
	if blocked != nil {
		how = answers{}
	}
	outcome, next := w.work(ctx, key, &job, how)
	w.metrics.pass(time.Since(start), outcome.Err)
	if ctx.Err() != nil {
		return
	}
	w.settle(key, e, &job, outcome)
	switch {
	case outcome.Err != nil && !waits(outcome.Err):
		w.log.Error("Programming a VIP", "vip", key, "error", outcome.Err)
		w.queue.AddRateLimited(key)
	case next > 0:
		w.queue.Forget(key)
		w.queue.AddAfter(key, next)
	default:
		w.queue.Forget(key)
	}
}

// settle stores the outcome of a pass over e that worked from job, and what the
// next one has to know. One that began before the plan changed only tells what
// the kernel holds: the key is queued again for its new plan.
func (w *Worker) settle(key netstate.Key, e, job *entry, outcome Outcome) {
	verdicts := verdictsIn(job.desired, outcome.State)
	w.mu.Lock()
	w.lastPass = time.Now()
	if w.entries[key] != e {
		w.mu.Unlock()
		return
	}
	e.memory = job.memory
	if w.blocked == nil {
		e.refusals.count(outcome)
	}
	if e.revision != job.revision {
		outcome.Programmed, outcome.Err = false, nil
	}
	changed := job.tell || outcome.differs(e.outcome)
	e.outcome, e.verdicts = outcome, verdicts
	inPlace := outcome.Programmed || errors.Is(outcome.Err, ErrUnconfirmed)
	e.ready = e.ready || inPlace && len(outcome.State.Services) > 0
	if e.phase == gone && outcome.Programmed {
		delete(w.entries, key)
		changed = true
	}
	w.mu.Unlock()
	if changed {
		w.changed(key)
	}
}

// differs says whether the change from old is worth telling: connection counts
// are not.
func (o Outcome) differs(old Outcome) bool {
	return o.Programmed != old.Programmed || fmt.Sprint(o.Err) != fmt.Sprint(old.Err) ||
		!maps.Equal(o.State.Services, old.State.Services) ||
		!maps.Equal(o.State.Destinations, old.State.Destinations) ||
		!maps.Equal(o.State.Addresses, old.State.Addresses) ||
		!maps.Equal(o.Draining, old.Draining) || !maps.Equal(o.Rising, old.Rising) || !maps.Equal(o.QuorumLost, old.QuorumLost)
}

// work observes, plans and applies, and keeps in job what the next pass has to
// know. Next says when to look again although nothing happened.
func (w *Worker) work(ctx context.Context, key netstate.Key, job *entry, how answers) (outcome Outcome, next time.Duration) {
	have, err := w.kernel.Observe(ctx, key)
	if err != nil {
		outcome = job.outcome
		outcome.Programmed, outcome.Err = false, fmt.Errorf("reading what the kernel holds of %s: %w", key, err)
		return outcome, 0
	}
	want, memory, due := w.want(job, have, how)
	outcome = Outcome{
		State: have.Clone(), Connections: have.Connections,
		Draining: memory.Draining, Rising: memory.Rising, QuorumLost: lost(memory),
	}
	if outcome.Err = w.awaitsDirectors(have.State, want); outcome.Err != nil {
		return outcome, 0
	}
	job.memory = memory
	for _, op := range have.Diff(want) {
		if !job.permits(op, have.State) {
			outcome.Err = ErrUnconfirmed
			continue
		}
		err := w.kernel.Apply(ctx, op)
		w.metrics.operation(op, err)
		if err != nil {
			outcome.Err = err
			return outcome, 0
		}
		outcome.State.Perform(op)
		w.log.Info("Changed the kernel", "vip", key, "operation", op.String())
	}
	outcome.Programmed = outcome.Err == nil
	return outcome, job.lookAgain(due)
}

func lost(memory plan.Memory) map[netstate.ServiceKey]struct{} {
	services := map[netstate.ServiceKey]struct{}{}
	for service, lost := range memory.Lost {
		if lost {
			services[service] = struct{}{}
		}
	}
	return services
}

// lookAgain returns when a key is due that nothing happens to; 0 is never. Due
// is when its weights are.
func (e *entry) lookAgain(due time.Duration) time.Duration {
	if e.phase == leaving {
		due = sooner(due, max(lingerTime-time.Since(e.left), time.Millisecond))
	}
	if len(e.memory.Draining) > 0 {
		due = sooner(due, drainLook)
	}
	return due
}

// sooner returns the lesser of two times of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

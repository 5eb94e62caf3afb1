package election

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The simulation runs directors against one Lease in virtual time. Their beliefs
// are the real ones; the network, the segment and the API server are simulated
// here: every request and every event has a delay, and may get lost. What the API
// tells of peers is old, as in a cluster.

// preemptionDelay is the simulated pool's.
const preemptionDelay = 2 * time.Second

type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	last := len(*q) - 1
	event := (*q)[last]
	*q = (*q)[:last]
	return event
}

type world struct {
	now   time.Time
	seq   int
	queue simQueue
	rand  *rand.Rand

	lease   *coordinationv1.Lease
	version int
	nodes   []*node

	// epochs says which process was granted each epoch of the present Lease.
	epochs map[int64]string
	// overlap is how long two directors announced at once that have not released
	// the Lease.
	overlap   stretch
	violation string
	// writes and reads count what each director asked of the API server.
	writes, reads map[string]int
	loss          float64
	slowest       time.Duration
}

// node is a director's node: its process comes and goes, the checkpoint stays.
type node struct {
	w        *world
	name     string
	starts   int
	running  bool
	paused   bool
	cut      bool
	deaf     bool
	leaving  bool
	unfit    bool
	cordoned bool
	priority int32
	// tail is how long it announced beside another after it had released the
	// Lease.
	tail stretch
	// heardOf is when the watch last had news.
	heardOf time.Time
	// died is when it last crashed: for a while peers take it for alive.
	died     time.Time
	restored Restored
	// candidate is what the process is told to be.
	candidate bool

	belief   *belief
	decision Decision
	writing  bool
	reading  bool
	// held back while paused, in order.
	inbox []func()
}

func newWorld(seed uint64, nodes int) *world {
	w := &world{now: epochZero, rand: rand.New(rand.NewPCG(seed, 1)), epochs: map[int64]string{}, slowest: duration / 13, writes: map[string]int{}, reads: map[string]int{}}
	for i := range nodes {
		n := &node{w: w, name: string(rune('a' + i)), candidate: true}
		w.nodes = append(w.nodes, n)
		n.start()
	}
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, simEvent{w.now.Add(d), w.seq, do})
}

// run lets the time pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		event := heap.Pop(&w.queue).(simEvent)
		w.now = event.at
		event.do()
		w.measure()
	}
	w.now = end
	w.measure()
}

func (w *world) delay() time.Duration {
	return time.Millisecond + time.Duration(w.rand.Float64()*float64(w.slowest))
}

// announcers returns who answers for the VIPs at this moment.
func (w *world) announcers() []*node {
	var active []*node
	for _, n := range w.nodes {
		if n.running && !n.paused && n.decision.Announce && w.now.Sub(n.decision.At) <= Fence {
			active = append(active, n)
		}
	}
	return active
}

// stretch is how long something lasted at most, and since when it has.
type stretch struct {
	since   time.Time
	longest time.Duration
}

func (s *stretch) note(now time.Time, lasts bool) {
	switch {
	case !lasts:
		s.since = time.Time{}
		return
	case s.since.IsZero():
		s.since = now
	}
	s.longest = max(s.longest, now.Sub(s.since))
}

func (w *world) measure() {
	active := w.announcers()
	// The successor may announce before the release was answered.
	released := func(n *node) bool { return n.belief.sent.Write == Release }
	for _, n := range w.nodes {
		n.tail.note(w.now, len(active) > 1 && released(n) && slices.Contains(active, n))
	}
	w.overlap.note(w.now, len(slices.DeleteFunc(active, released)) > 1)
}

// handover is how long a director announced at most that had released the Lease,
// beside another.
func (w *world) handover() time.Duration {
	longest := time.Duration(0)
	for _, n := range w.nodes {
		longest = max(longest, n.tail.longest)
	}
	return longest
}

func (w *world) fail(format string, arguments ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf("%s: %s", w.now.Sub(epochZero), fmt.Sprintf(format, arguments...))
	}
}

func (n *node) start() {
	n.starts++
	n.running, n.paused, n.leaving, n.writing, n.reading, n.inbox = true, false, false, false, false, nil
	n.unfit = false
	n.decision = Decision{}
	n.belief = &belief{
		self: Self{Node: n.name, Instance: n.name + strconv.Itoa(n.starts)}, duration: duration, group: "pool-0",
		own: Own{Restored: n.restored.Active, Epoch: n.restored.Epoch},
	}
	n.tick(n.starts)
	n.read()
}

func (n *node) crash() {
	if n.running {
		n.running, n.died = false, n.w.now
	}
}

// fade is how long a dead process is taken for alive.
const fade = 5 * time.Second

// peers is what the API tells a director of the others.
func (n *node) peers() []Peer {
	var peers []Peer
	for _, m := range n.w.nodes {
		if m != n && (m.running && !m.leaving || n.w.now.Sub(m.died) < fade) {
			peers = append(peers, Peer{
				Node: m.name, Candidate: m.candidate && !m.unfit, Cordoned: m.cordoned, Priority: m.priority,
			})
		}
	}
	return peers
}

// call announces on the segment, as often as an announcer does at first.
func (n *node) call(start int) {
	for _, at := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second} {
		n.w.after(at, func() {
			if n.running && n.starts == start && !n.paused && !n.deaf && n.decision.Announce && n.w.now.Sub(n.decision.At) <= Fence {
				n.w.spread(n)
			}
		})
	}
}

// spread has all others hear a frame. One that stands still never does: it
// empties its sockets unread when it wakes.
func (w *world) spread(from *node) {
	for _, n := range w.nodes {
		start := n.starts
		if n == from || n.deaf {
			continue
		}
		w.after(time.Millisecond, func() {
			if n.running && n.starts == start && !n.paused {
				n.belief.heard(w.now, w.now)
				n.decide()
			}
		})
	}
}

// live runs do if the process that asked for it still runs: now, or when its
// pause ends.
func (n *node) live(start int, do func()) {
	switch {
	case !n.running || n.starts != start:
	case n.paused:
		n.inbox = append(n.inbox, func() { n.live(start, do) })
	default:
		do()
	}
}

func (n *node) resume() {
	n.paused = false
	inbox := n.inbox
	n.inbox = nil
	// What is ready when a process wakes comes in any order.
	n.w.rand.Shuffle(len(inbox), func(i, j int) { inbox[i], inbox[j] = inbox[j], inbox[i] })
	for _, do := range inbox {
		do()
	}
}

func (n *node) tick(start int) {
	n.live(start, func() {
		n.decide()
		if !n.reading && n.w.now.Sub(n.heardOf) > duration/2 {
			n.read()
		}
		n.w.after(tick, func() { n.tick(start) })
	})
}

func (n *node) decide() {
	n.belief.set(n.w.now, Settings{LeaseDuration: duration, Preemption: Preemption{Delay: preemptionDelay}}, Standing{
		Candidate: n.candidate && !n.unfit, Unfit: n.unfit, Cordoned: n.cordoned, Priority: n.priority,
	}, n.view(), time.Time{}, n.leaving)
	d := n.belief.decide(n.w.now)
	if d.Announce && !n.decision.Announce {
		n.call(n.starts)
	}
	n.decision = d
	n.restored = Restored{Epoch: n.belief.own.Epoch, Active: d.Announce}
	if d.Confirmed {
		n.w.confirmed(n)
	}
	if d.Write != None && !n.writing {
		n.write(d)
	}
	n.w.measure()
}

// view is what a director was last told of its peers: nothing new while it is
// cut off.
func (n *node) view() []Peer {
	if n.cut {
		return n.belief.peers
	}
	return n.peers()
}

// confirmed checks that the API server granted what the director believes.
func (w *world) confirmed(n *node) {
	epoch := n.belief.lease.Epoch
	if granted := w.epochs[epoch]; granted != n.belief.self.Instance {
		w.fail("%s announces epoch %d, which is %q's", n.belief.self.Instance, epoch, granted)
	}
}

// request carries a request to the API server and its outcome back: exactly one
// of done and lost is called, lost after a third of the duration.
func (n *node) request(serve func() (answer func()), lost func()) {
	w, start := n.w, n.starts
	deadline := w.now.Add(duration / 3)
	answered := false
	w.after(duration/3, func() {
		n.live(start, func() {
			if !answered {
				answered = true
				lost()
			}
		})
	})
	if n.cut || w.rand.Float64() < w.loss {
		return
	}
	w.after(w.delay(), func() {
		answer := serve()
		if n.cut || w.rand.Float64() < w.loss {
			return
		}
		w.after(w.delay(), func() {
			if w.now.After(deadline) {
				return
			}
			n.live(start, func() {
				if !answered {
					answered = true
					answer()
				}
			})
		})
	})
}

func (n *node) read() {
	n.reading = true
	n.w.reads[n.name]++
	sent := n.w.now
	n.request(func() func() {
		object := n.w.lease.DeepCopy()
		return func() {
			n.reading, n.heardOf = false, n.w.now
			n.belief.read(n.w.now, sent, object)
			n.decide()
			if n.belief.lease.Unsure {
				n.readSoon()
			}
		}
	}, func() {
		n.belief.failed(n.w.now, sent)
		n.decide()
		n.readSoon()
	})
}

func (n *node) readSoon() {
	start := n.starts
	n.reading = true
	n.w.after(shortestPause, func() { n.live(start, n.read) })
}

func (n *node) write(d Decision) {
	n.writing = true
	n.w.writes[n.name]++
	sent := n.w.now
	n.belief.sending(sent, d)
	object := writer{name: "pool-0", self: n.belief.self}.object(d, n.belief.object, sent, duration)
	n.request(func() func() {
		stored := n.w.store(d, object)
		return func() {
			n.writing = false
			if stored == nil {
				n.belief.refused(n.w.now)
				n.doubt()
				return
			}
			n.belief.wrote(n.w.now, stored)
			n.decide()
		}
	}, func() {
		n.writing = false
		n.belief.unanswered(n.w.now, sent)
		n.doubt()
	})
}

func (n *node) doubt() {
	n.decide()
	if !n.reading {
		n.read()
	}
}

// store is what the API server does with a write; nil is a conflict.
func (w *world) store(d Decision, object *coordinationv1.Lease) *coordinationv1.Lease {
	switch {
	case d.Write == Create && w.lease != nil:
		return nil
	case d.Write != Create && (w.lease == nil || w.lease.ResourceVersion != object.ResourceVersion):
		return nil
	}
	before := claim{}
	if w.lease != nil {
		before = claimOf(w.lease)
	}
	if after := claimOf(object); d.Write == Acquire || d.Write == Create {
		if after.epoch <= before.epoch {
			w.fail("%s acquired epoch %d after epoch %d", after.instance, after.epoch, before.epoch)
		}
		w.epochs[after.epoch] = after.instance
	}
	w.put(object.DeepCopy())
	return w.lease.DeepCopy()
}

// put stores a version of the Lease and tells all who can hear it.
func (w *world) put(object *coordinationv1.Lease) {
	w.version++
	object.ResourceVersion = strconv.Itoa(w.version)
	w.lease = object
	w.broadcast(object.DeepCopy(), false)
}

func (w *world) remove() {
	if w.lease == nil {
		return
	}
	w.version++
	gone := w.lease.DeepCopy()
	gone.ResourceVersion = strconv.Itoa(w.version)
	w.lease = nil
	w.broadcast(gone, true)
}

func (w *world) broadcast(object *coordinationv1.Lease, deleted bool) {
	for _, n := range w.nodes {
		start := n.starts
		if !n.running || n.cut || w.rand.Float64() < w.loss {
			continue
		}
		w.after(w.delay(), func() {
			n.live(start, func() {
				n.heardOf = w.now
				n.belief.event(w.now, object, deleted)
				n.decide()
			})
		})
	}
}

// vacate is what somebody does who edits the Lease.
func (w *world) vacate() {
	if w.lease != nil {
		object := w.lease.DeepCopy()
		object.Spec.HolderIdentity = new("")
		stamp := metav1.NewMicroTime(w.now)
		object.Spec.RenewTime = &stamp
		w.put(object)
	}
}

// heal makes everything well again: all run, all reach the API server.
func (w *world) heal() {
	w.loss = 0
	for _, n := range w.nodes {
		n.cut, n.candidate, n.deaf, n.unfit, n.cordoned = false, true, false, false, false
		if n.paused {
			n.resume()
		}
		if !n.running || n.leaving {
			n.start()
		}
		// The real watcher opens its watch again, with a GET.
		if !n.reading {
			n.read()
		}
	}
}

package election

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// The simulation runs directors against the Leases of some groups in virtual
// time. Their beliefs are the real ones; the network, the segment and the API
// server are simulated here: every request and every event has a delay, and may
// get lost. What the API tells of peers is old, as in a cluster. What happens to
// a node happens to its part in all groups.

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

	groups []*group
	nodes  []*node

	violation string
	loss      float64
	slowest   time.Duration
	medium    medium
}

// group is an election: a Lease, and the parts of all directors in it.
type group struct {
	w       *world
	name    string
	lease   *coordinationv1.Lease
	version int
	parts   []*part

	// epochs says which process was granted each epoch of the present Lease.
	epochs map[int64]string
	// overlap is how long two directors announced at once that have not released
	// the Lease.
	overlap stretch
	// writes and reads count what each director asked of the API server.
	writes, reads map[string]int
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
	// impaired is what the process finds, told what peers know of it.
	impaired, told bool
	// died is when it last crashed: for a while peers take it for alive.
	died time.Time
	// candidate is what the process is told to be.
	candidate bool
	// held back while paused, in order.
	inbox []func()
	// parts are those in the groups, in the order of these.
	parts []*part
	place place
}

// part is what a director has to do with one group.
type part struct {
	*node
	group *group
	// tail is how long it announced beside another after it had released the
	// Lease.
	tail stretch
	// heardOf is when the watch last had news.
	heardOf  time.Time
	restored Restored

	belief   *belief
	decision Decision
	writing  bool
	reading  bool
	probing  bool
}

func newWorld(seed uint64, nodes, groups int) *world {
	return newFastWorld(seed, nodes, groups, duration/13)
}

// newFastWorld is one where nothing takes longer on its way than slowest.
func newFastWorld(seed uint64, nodes, groups int, slowest time.Duration) *world {
	w := &world{now: epochZero, rand: rand.New(rand.NewPCG(seed, 1)), slowest: slowest}
	for i := range groups {
		w.groups = append(w.groups, &group{
			w: w, name: LeaseName("pool", i), epochs: map[int64]string{}, writes: map[string]int{}, reads: map[string]int{},
		})
	}
	for i := range nodes {
		n := &node{w: w, name: string(rune('a' + i)), candidate: true}
		w.nodes = append(w.nodes, n)
		for _, g := range w.groups {
			p := &part{node: n, group: g}
			n.parts, g.parts = append(n.parts, p), append(g.parts, p)
		}
	}
	for _, n := range w.nodes {
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

// announces says whether the director answers for the group's VIPs at this
// moment.
func (p *part) announces() bool {
	return p.running && !p.paused && p.decision.Announce && p.w.now.Sub(p.decision.At) <= Fence
}

// announcers returns who answers for the VIPs at this moment.
func (g *group) announcers() []*part {
	var active []*part
	for _, p := range g.parts {
		if p.announces() {
			active = append(active, p)
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
	for _, g := range w.groups {
		g.measure()
	}
}

func (g *group) measure() {
	active, kept := 0, 0
	for _, p := range g.parts {
		if p.announces() {
			active++
			if !p.released() {
				kept++
			}
		}
	}
	for _, p := range g.parts {
		p.tail.note(g.w.now, active > 1 && p.released() && p.announces())
	}
	g.overlap.note(g.w.now, kept > 1)
}

// released says that the director has released the Lease, or is about to: the
// successor may announce before the release was answered. As long as nobody is
// known to have taken the Lease it is so too while it is being taken back.
func (p *part) released() bool {
	return p.belief.sent.Write == Release || !p.belief.own.Yield.Begun.IsZero()
}

// overlap is how long two directors announced a group at most that neither had
// released.
func (w *world) overlap() time.Duration {
	longest := time.Duration(0)
	for _, g := range w.groups {
		longest = max(longest, g.overlap.longest)
	}
	return longest
}

// handover is how long a director announced a group at most that it had
// released, beside another.
func (w *world) handover() time.Duration {
	longest := time.Duration(0)
	for _, g := range w.groups {
		for _, p := range g.parts {
			longest = max(longest, p.tail.longest)
		}
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
	n.running, n.paused, n.leaving, n.unfit, n.inbox = true, false, false, false, nil
	n.place.begin()
	for _, p := range n.parts {
		p.start()
	}
	if n.w.medium.gossips {
		n.tell(n.starts)
	}
}

func (p *part) start() {
	p.writing, p.reading, p.probing = false, false, false
	p.decision = Decision{}
	p.belief = &belief{
		self: Self{Node: p.name, Instance: p.name + strconv.Itoa(p.starts)}, duration: duration, group: p.group.name,
		own: Own{Restored: p.restored.Active, Epoch: p.restored.Epoch},
	}
	p.tick(p.starts)
	p.read()
}

func (n *node) crash() {
	if n.running {
		n.running, n.died = false, n.w.now
		n.goodbye()
	}
}

// impair makes the kernel refuse some VIPs, or all be well again. Peers learn of
// it some time later.
func (n *node) impair(impaired bool) {
	n.impaired = impaired
	n.w.after(time.Duration(n.w.rand.Float64()*float64(telling)), func() { n.told = n.impaired })
}

// telling is how long it takes at most until peers know how a director is.
const telling = 2 * time.Second

// fade is how long a dead process is taken for alive.
const fade = 5 * time.Second

// peers is what the API tells a director of the others.
func (n *node) peers() []Peer {
	var peers []Peer
	for _, m := range n.w.nodes {
		if m != n && (m.running && !m.leaving || n.w.now.Sub(m.died) < fade) {
			peers = append(peers, Peer{
				Node: m.name, Candidate: m.candidate && !m.unfit, Impaired: m.told, Cordoned: m.cordoned, Priority: m.priority,
			})
		}
	}
	return peers
}

// call announces on the segment, as often as an announcer does at first.
func (p *part) call(start int) {
	for _, at := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second} {
		p.w.after(at, func() {
			if p.starts == start && !p.deaf && p.announces() {
				p.spread()
			}
		})
	}
}

// spread has all others hear a frame. One that stands still never does: it
// empties its sockets unread when it wakes.
func (p *part) spread() {
	w := p.w
	for _, q := range p.group.parts {
		start := q.starts
		if q == p || q.deaf || !w.linked(p.node, q.node) {
			continue
		}
		w.after(time.Millisecond, func() {
			if q.running && q.starts == start && !q.paused {
				q.belief.heard(w.now, w.now)
				q.decide()
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
	n.place.woke = n.w.now
	inbox := n.inbox
	n.inbox = nil
	// What is ready when a process wakes comes in any order.
	n.w.rand.Shuffle(len(inbox), func(i, j int) { inbox[i], inbox[j] = inbox[j], inbox[i] })
	for _, do := range inbox {
		do()
	}
}

func (p *part) tick(start int) {
	p.live(start, func() {
		p.decide()
		if !p.reading && p.w.now.Sub(p.heardOf) > duration/2 {
			p.read()
		}
		p.w.after(tick, func() { p.tick(start) })
	})
}

func (p *part) decide() {
	p.belief.set(p.w.now, Settings{LeaseDuration: duration, Preemption: Preemption{Delay: preemptionDelay}}, Standing{
		Candidate: p.candidate && !p.unfit, Unfit: p.unfit, Impaired: p.impaired, Cordoned: p.cordoned, Priority: p.priority,
	}, p.view(), time.Time{}, p.leaving)
	p.listen()
	d := p.belief.decide(p.w.now)
	p.sound(d)
	begins := d.Announce && !p.decision.Announce
	p.decision = d
	if begins {
		p.call(p.starts)
	}
	p.restored = Restored{Epoch: p.belief.own.Epoch, Active: d.Announce}
	if d.Confirmed {
		p.confirmed()
	}
	if d.Write != None && !p.writing {
		p.write(d)
	}
	p.group.measure()
}

// view is what a director was last told of its peers: nothing new while it is
// cut off.
func (p *part) view() []Peer {
	if p.cut {
		return p.belief.peers
	}
	return p.peers()
}

// confirmed checks that the API server granted what the director believes.
func (p *part) confirmed() {
	epoch := p.belief.lease.Epoch
	if granted := p.group.epochs[epoch]; granted != p.belief.self.Instance {
		p.w.fail("%s announces epoch %d of %s, which is %q's", p.belief.self.Instance, epoch, p.group.name, granted)
	}
}

func (p *part) read() {
	p.reading = true
	p.group.reads[p.name]++
	sent := p.w.now
	p.request(func() func() {
		object := p.group.lease.DeepCopy()
		return func() {
			p.reading, p.heardOf = false, p.w.now
			p.belief.read(p.w.now, sent, object)
			p.decide()
			if p.belief.lease.Unsure {
				p.readSoon()
			}
		}
	}, func() {
		p.belief.failed(p.w.now, sent)
		p.decide()
		p.readSoon()
	})
}

func (p *part) readSoon() {
	start := p.starts
	p.reading = true
	p.w.after(shortestPause, func() { p.live(start, p.read) })
}

func (p *part) write(d Decision) {
	p.writing = true
	p.group.writes[p.name]++
	sent := p.w.now
	p.belief.sending(sent, d)
	object := writer{name: p.group.name, self: p.belief.self}.object(d, p.belief.object, sent, duration)
	p.request(func() func() {
		stored := p.group.store(d, object)
		return func() {
			p.writing = false
			if stored == nil {
				p.belief.refused(p.w.now)
				p.doubt()
				return
			}
			p.belief.wrote(p.w.now, stored)
			p.decide()
		}
	}, func() {
		p.writing = false
		p.belief.unanswered(p.w.now, sent)
		p.doubt()
	})
}

func (p *part) doubt() {
	p.decide()
	if !p.reading {
		p.read()
	}
}

// heal makes everything well again: all run, all reach the API server.
func (w *world) heal() {
	w.loss = 0
	w.medium.heal()
	for _, n := range w.nodes {
		n.place.unplugged = false
		n.cut, n.candidate, n.deaf, n.unfit, n.cordoned = false, true, false, false, false
		if n.paused {
			n.resume()
		}
		if !n.running || n.leaving {
			n.start()
		}
		// The real watcher opens its watch again, with a GET.
		for _, p := range n.parts {
			if !p.reading {
				p.read()
			}
		}
	}
}

package announce

import (
	"container/heap"
	"net/netip"
	"time"
)

// offsets are when a VIP is announced, counted from its first announcement.
// The first ones are close together because a lost one leaves clients with the
// old director's MAC, for 19 to 40 s as measured with Linux neighbours; the
// late ones are for segments that were not forwarding yet.
var offsets = [...]time.Duration{
	0, 50 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second,
}

// settledAfter is how many announcements are the burst.
const settledAfter = 4

// timetable knows which VIP is to be announced next. It is pure: the time is
// handed in.
type timetable struct {
	refresh time.Duration
	queue   slots
	slots   map[netip.Addr]*slot
	started uint64
}

// slot is a VIP's place in the timetable.
type slot struct {
	vip netip.Addr
	// first is when the VIP was announced first, due when it is next.
	first, due time.Time
	// done is how many of offsets are behind it.
	done int
	// order keeps VIPs that are due together in the order of their start.
	order uint64
	// at is the slot's place in the queue.
	at int
}

func newTimetable(refresh time.Duration) *timetable {
	return &timetable{refresh: refresh, slots: map[netip.Addr]*slot{}}
}

// start puts a VIP at the beginning of its schedule, due now.
func (t *timetable) start(vip netip.Addr, now time.Time) {
	t.stop(vip)
	t.started++
	s := &slot{vip: vip, due: now, order: t.started}
	t.slots[vip] = s
	heap.Push(&t.queue, s)
}

// stop takes a VIP out.
func (t *timetable) stop(vip netip.Addr) {
	if s, ok := t.slots[vip]; ok {
		heap.Remove(&t.queue, s.at)
		delete(t.slots, vip)
	}
}

// next returns when the next VIP is due; false is never.
func (t *timetable) next() (time.Time, bool) {
	if len(t.queue) == 0 {
		return time.Time{}, false
	}
	return t.queue[0].due, true
}

// settled says whether a VIP has been announced for so long that it is known
// where it is: the director before has gone silent by then.
func (t *timetable) settled(vip netip.Addr) bool {
	s, ok := t.slots[vip]
	return ok && s.done > settledAfter
}

// take returns the VIP that is to be announced now, if one is due, and moves it
// on. Whoever has not been announced at all goes first. Announcements that are
// overdue are made up for by one: what was missed is of no use any more.
func (t *timetable) take(now time.Time) (netip.Addr, bool) {
	due, ok := t.next()
	if !ok || due.After(now) {
		return netip.Addr{}, false
	}
	s := t.queue[0]
	if s.done == 0 {
		s.first = now
	}
	s.done++
	for s.done < len(offsets) && !s.first.Add(offsets[s.done]).After(now) {
		s.done++
	}
	if s.done < len(offsets) {
		s.due = s.first.Add(offsets[s.done])
	} else {
		s.due = now.Add(t.refresh)
	}
	heap.Fix(&t.queue, 0)
	return s.vip, true
}

// slots is a heap of what is due, the most urgent first.
type slots []*slot

func (q slots) Len() int { return len(q) }

func (q slots) Less(i, j int) bool {
	a, b := q[i], q[j]
	switch {
	case (a.done == 0) != (b.done == 0):
		return a.done == 0
	case !a.due.Equal(b.due):
		return a.due.Before(b.due)
	default:
		return a.order < b.order
	}
}

func (q slots) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push is for package heap.
func (q *slots) Push(x any) {
	s := x.(*slot)
	s.at = len(*q)
	*q = append(*q, s)
}

// Pop is for package heap.
func (q *slots) Pop() any {
	old := *q
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return s
}

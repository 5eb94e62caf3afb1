package announce

import (
	"context"
	"net/netip"
	"time"
)

// lookupInterval is how long an answer of the neighbour table is good for.
const lookupInterval = time.Second

// errands are the directed announcements that are still to be made. They come
// after the gratuitous ones, so that many neighbours of one VIP don't hold up
// the others.
type errands struct {
	neighbors Neighbors
	// vips wait in the order in which they were announced; each waits once.
	vips    []netip.Addr
	waiting map[netip.Addr]bool
	// vip is being worked on, and targets are left.
	vip     netip.Addr
	targets []target
	known   map[netip.Addr]lookup
}

type lookup struct {
	mac MAC
	at  time.Time
}

func newErrands(n Neighbors) *errands {
	return &errands{neighbors: n, waiting: map[netip.Addr]bool{}, known: map[netip.Addr]lookup{}}
}

// add queues a VIP that was announced.
func (e *errands) add(vip netip.Addr) {
	if !e.waiting[vip] {
		e.waiting[vip] = true
		e.vips = append(e.vips, vip)
	}
}

// any says whether somebody is to be told; targets returns whom of a VIP.
func (e *errands) any(targets func(netip.Addr) []target) bool {
	for len(e.targets) == 0 && len(e.vips) > 0 {
		e.vip, e.vips = e.vips[0], e.vips[1:]
		delete(e.waiting, e.vip)
		e.targets = targets(e.vip)
	}
	return len(e.targets) > 0
}

// next takes the next one to tell off the list, which must not be empty, and
// completes its MAC if it can.
func (e *errands) next(ctx context.Context, now time.Time) (netip.Addr, target) {
	to := e.targets[0]
	e.targets = e.targets[1:]
	if to.mac.IsZero() {
		to.mac = e.lookup(ctx, to.addr, now)
	}
	return e.vip, to
}

func (e *errands) lookup(ctx context.Context, addr netip.Addr, now time.Time) MAC {
	if e.neighbors == nil {
		return MAC{}
	}
	if l, ok := e.known[addr]; ok && now.Sub(l.at) < lookupInterval {
		return l.mac
	}
	mac, ok := e.neighbors.Lookup(ctx, addr)
	if !ok || !mac.isStation() {
		mac = MAC{}
	}
	e.known[addr] = lookup{mac, now}
	return mac
}

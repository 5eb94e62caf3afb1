package gossip

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Service names an IPVS service.
type Service struct {
	VIP netip.Addr
	// Protocol is its IANA number.
	Protocol uint8
	Port     uint16
	// Marked says that the kernel knows the service by a firewall mark.
	Marked bool
}

// compare puts services into an order.
func (s Service) compare(t Service) int {
	return cmp.Or(s.VIP.Compare(t.VIP), cmp.Compare(s.Protocol, t.Protocol), cmp.Compare(s.Port, t.Port), cmp.Compare(bits(s.Marked), bits(t.Marked)))
}

// Verdicts say which real servers of a service get new connections from the director
// that says so.
type Verdicts struct {
	Service Service
	// Servers is a hash of which servers these are, in which order: it means the
	// same to those alone who have the same ones.
	Servers uint64
	// Down has a bit for each server, in their order, from the lowest bit of the
	// first byte on: whether it gets none. Zeros at the end are left out.
	Down string
}

// Heard are Verdicts that a member said itself, and when they came last.
type Heard struct {
	Verdicts
	At time.Time
}

const (
	// VerdictsLast is how long verdicts are to be gone by after they were last heard:
	// three rounds that are lost one after the other do no harm.
	VerdictsLast = 10 * time.Second
	// MaxServices is how many services a director may tell verdicts of.
	MaxServices = 4096
	// MaxServers is how many servers of a service it may tell of.
	MaxServers = 4096
	// roundEvery is how often all verdicts are said again.
	roundEvery = 2 * time.Second
	// beatBytes is about how much is said of them in one beat.
	beatBytes = 16 << 10
)

// recital is what a director says of its services, and what of it is due. It has no
// clock and no lock.
type recital struct {
	// list is in the order of the services.
	list []Verdicts
	// fresh is how often what is new is still to be said at once, by service.
	fresh map[Service]int
	// next is the first in the list that the present round has yet to say; the round
	// began at begun.
	next  int
	begun time.Time
}

// set says what is to be said from now on, and whether any of it is new. Those
// beyond MaxServices and MaxServers are not said.
func (r *recital) set(list []Verdicts) (news bool) {
	list = slices.DeleteFunc(slices.Clone(list), func(v Verdicts) bool { return v.validate() != nil })
	slices.SortFunc(list, func(a, b Verdicts) int { return a.Service.compare(b.Service) })
	list = slices.CompactFunc(list, func(a, b Verdicts) bool { return a.Service == b.Service })
	list = list[:min(len(list), MaxServices)]
	before := map[Service]Verdicts{}
	for _, v := range r.list {
		before[v.Service] = v
	}
	fresh := map[Service]int{}
	for _, v := range list {
		if old, there := before[v.Service]; !there || old != v {
			fresh[v.Service] = repeats + 1
			news = true
		} else if left := r.fresh[v.Service]; left > 0 {
			fresh[v.Service] = left
		}
	}
	// A round that is under way goes on where it was, more or less.
	if r.next = min(r.next, len(list)); len(r.list) == 0 {
		r.next = len(list)
	}
	r.list, r.fresh = list, fresh
	return news
}

// again begins a round at once, since somebody new listens.
func (r *recital) again() { r.begun = time.Time{} }

// due returns what is to be said now: what is new, and then more of the round, as
// much as a beat takes.
func (r *recital) due(now time.Time) []Verdicts {
	var say []Verdicts
	size := 0
	full := func(v Verdicts) bool {
		if size > 0 && size+v.size() > beatBytes {
			return true
		}
		size += v.size()
		say = append(say, v)
		return false
	}
	if len(r.fresh) > 0 {
		for _, v := range r.list {
			if r.fresh[v.Service] == 0 {
				continue
			}
			if full(v) {
				return say
			}
			if r.fresh[v.Service]--; r.fresh[v.Service] == 0 {
				delete(r.fresh, v.Service)
			}
		}
	}
	if r.next >= len(r.list) && now.Sub(r.begun) >= roundEvery {
		r.next, r.begun = 0, now
	}
	for r.next < len(r.list) && !full(r.list[r.next]) {
		r.next++
	}
	return say
}

// testimony is what one member said of its services.
type testimony map[Service]statement

// statement is what was said of one service, by which message.
type statement struct {
	Heard
	started int64
	number  uint64
}

// outdated says whether a message is older than what was said.
func (s statement) outdated(m verdictsMessage, now time.Time) bool {
	older := cmp.Or(cmp.Compare(m.Started, s.started), cmp.Compare(m.Number, s.number)) < 0
	return older && now.Sub(s.At) < olderAfter
}

// takeVerdicts takes note of what a member says of its services, and says whether
// it is anything new.
func (b *book) takeVerdicts(m verdictsMessage, now time.Time) (news bool) {
	r := b.of(m.Node)
	if r == nil {
		return false
	}
	if r.testimony == nil {
		r.testimony = testimony{}
	}
	for _, v := range m.Verdicts {
		before, there := r.testimony[v.Service]
		if there && before.outdated(m, now) {
			continue
		}
		if !there && len(r.testimony) >= MaxServices {
			r.testimony.forget(now)
			if len(r.testimony) >= MaxServices {
				continue
			}
		}
		news = news || before.Verdicts != v || now.Sub(before.At) > VerdictsLast
		r.testimony[v.Service] = statement{Heard{v, now}, m.Started, m.Number}
	}
	return news
}

// forget drops what was said too long ago.
func (t testimony) forget(now time.Time) {
	maps.DeleteFunc(t, func(_ Service, s statement) bool { return now.Sub(s.At) > VerdictsLast })
}

// verdicts returns what a member said of its services of late.
func (b *book) verdicts(node string, now time.Time) map[Service]Heard {
	r := b.records[node]
	if r == nil {
		return nil
	}
	r.testimony.forget(now)
	all := make(map[Service]Heard, len(r.testimony))
	for service, s := range r.testimony {
		all[service] = s.Heard
	}
	return all
}

// TellVerdicts sets what this director says of its services. Whoever is there hears
// of a change at once, and of all again every 2 s. It does not block.
func (g *Gossip) TellVerdicts(list []Verdicts) {
	g.mu.Lock()
	news := g.recital.set(list)
	g.mu.Unlock()
	if news {
		wake(g.said)
	}
}

// Verdicts returns what a member itself said of its services within VerdictsLast,
// by Config.Now. Config.Changed is called when there is something new.
func (g *Gossip) Verdicts(node string) map[Service]Heard {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.book.verdicts(node, g.cfg.Now())
}

// dueVerdicts returns the messages about services that are to be sent now. g.mu is
// held.
func (g *Gossip) dueVerdicts(now time.Time) [][]byte {
	messages, err := encodeVerdicts(verdictsMessage{
		Node: g.cfg.Node, Started: g.started, Number: g.number + 1, Verdicts: g.recital.due(now),
	})
	if err != nil {
		g.warnings.warn("This director says of services what no director says", "error", err)
	}
	g.number += uint64(len(messages))
	return messages
}

package gossip

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// maxMembers bounds how many members are remembered.
	maxMembers = 256
	// olderAfter is how long an instance must have been silent before messages of
	// one that started earlier count again: a node's clock may have been set back.
	olderAfter = 5 * time.Second
	// latest is how much later than expected a message may come, as part of the
	// time between two, before its sender counts as silent: two lost ones do no
	// harm to who sends often.
	latest = 100 * time.Millisecond
)

// Member is another director of the pool, as far as it was ever met.
type Member struct {
	Node string
	Addr netip.Addr
	// State is the newest that is known. Relayed says that it was told by another
	// member, and that its own messages said something else, or nothing.
	State   State
	Relayed bool
	// Said is what it last claimed itself, and not only another says that it does; none
	// if it took its leave.
	Said []Claim
	// HeardAt is when its last message came from itself, zero if none has. What
	// another said of it does not count, nor does what came over TCP: only
	// what came the way that its claims come, which may be shut.
	HeardAt time.Time
	// Alive says that it answers probes, if only those of other members, or that it
	// did and is still heard.
	Alive bool
	// Dead says that it ceased to answer and is silent, both. It stays in the list
	// until it is there again or is no director any more. DeadAt is since when.
	Dead   bool
	DeadAt time.Time
	// Left says that it took its leave, which is no death. What it claimed is
	// claimed no more.
	Left bool
}

// View is what is known of the other members at a moment.
type View struct {
	// Now is that moment.
	Now time.Time
	// Members are in the order of their nodes.
	Members []Member
	// Woke is when this process last went on after it had stood still for long;
	// zero if it never did. Nobody was listened to before.
	Woke time.Time
}

// Member returns the one of a node; false if it was never met.
func (v View) Member(node string) (Member, bool) {
	i, found := slices.BinarySearchFunc(v.Members, node, func(m Member, node string) int { return strings.Compare(m.Node, node) })
	if !found {
		return Member{}, false
	}
	return v.Members[i], true
}

// Silence is for how long a member has not been heard by now, while this
// process listened. It means nothing for one that was never heard.
func (v View) Silence(m Member, now time.Time) time.Duration {
	return now.Sub(latter(m.HeardAt, v.Woke))
}

// Living counts the members that are alive.
func (v View) Living() int {
	living := 0
	for _, m := range v.Members {
		if m.Alive {
			living++
		}
	}
	return living
}

func latter(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// record is what is remembered of a member.
type record struct {
	addr netip.AddrPort
	// newest is the newest message of it, whoever told it; raw as it was sent.
	newest message
	raw    []byte
	// own is the newest that came from itself, at heardAt.
	own     message
	heardAt time.Time
	// testimony is what it said of its services.
	testimony testimony

	joined, dead, left bool
	deadAt             time.Time
}

// silentAt is when it counts as silent if nothing is heard by then. One that was
// never heard is.
func (r *record) silentAt(woke time.Time) time.Time {
	if r.heardAt.IsZero() {
		return time.Time{}
	}
	return latter(r.heardAt, woke).Add(2*r.own.Every + latest)
}

// diedAt is since when it is dead; false if it is not.
func (r *record) diedAt(now, woke time.Time) (time.Time, bool) {
	at := latter(r.deadAt, r.silentAt(woke))
	return at, r.dead && !now.Before(at)
}

// book holds the records of all members. It has no clock and no lock.
type book struct {
	self    string
	records map[string]*record
}

func newBook(self string) *book { return &book{self: self, records: map[string]*record{}} }

// of returns the record of a node, nil if there is one too many, or if it is the
// own node.
func (b *book) of(node string) *record {
	r := b.records[node]
	if r == nil && node != b.self && len(b.records) < maxMembers {
		r = &record{}
		b.records[node] = r
	}
	return r
}

// joined notes that a member is there, or is there again.
func (b *book) joined(node string, addr netip.AddrPort) {
	if r := b.of(node); r != nil {
		r.addr, r.joined, r.dead, r.left = addr, true, false, false
	}
}

// gone notes that a member answers probes no more: it died, unless it took its
// leave.
func (b *book) gone(node string, now time.Time) {
	if r := b.of(node); r != nil {
		r.joined, r.dead, r.deadAt = false, !r.left, now
	}
}

// told is what a message changed.
type told struct {
	// news says that it says something new.
	news bool
	// doubted says that its sender is taken for dead or for unknown.
	doubted bool
}

// outdated says whether a message says nothing newer than what is known: what its
// sender says itself is compared with what it said itself, since what others tell
// of it may come by a faster way.
func (r *record) outdated(m message, own bool, now time.Time) bool {
	switch {
	case m.Started < r.newest.Started:
		return !own || now.Sub(r.heardAt) < olderAfter
	case own:
		return m.compare(r.own) <= 0
	default:
		return m.compare(r.newest) <= 0
	}
}

// relayed says whether what is known of it is something else than what it last
// said itself.
func (r *record) relayed() bool {
	return r.newest.Number > 0 && (r.own.Number == 0 || !r.own.equal(r.newest.State))
}

// take takes note of a message: of its sender's own, or one that was relayed. One
// that is outdated changes nothing.
func (b *book) take(m message, raw []byte, own bool, now time.Time) told {
	r := b.of(m.Node)
	if r == nil || r.outdated(m, own, now) {
		return told{}
	}
	before := *r
	if own {
		r.own, r.heardAt = m, now
	}
	if m.Started < r.newest.Started || m.compare(r.newest) > 0 {
		r.newest, r.raw, r.left = m, slices.Clone(raw), m.Leaving
	}
	news := before.newest.Number == 0 || !before.newest.equal(r.newest.State) || before.relayed() != r.relayed() || before.left != r.left
	return told{news: news, doubted: own && !r.joined && !r.left}
}

// retain forgets those who are gone and not among the nodes.
func (b *book) retain(nodes map[string]bool) (forgot bool) {
	for node, r := range b.records {
		if !r.joined && !nodes[node] {
			delete(b.records, node)
			forgot = true
		}
	}
	return forgot
}

// targets are the addresses to which the own state is sent, by node: those of all
// who have not left.
func (b *book) targets() map[string]netip.AddrPort {
	all := map[string]netip.AddrPort{}
	for node, r := range b.records {
		if r.addr.IsValid() && !r.left {
			all[node] = r.addr
		}
	}
	return all
}

// relays are the newest messages of those who are there.
func (b *book) relays() [][]byte {
	var all [][]byte
	for _, node := range slices.Sorted(maps.Keys(b.records)) {
		if r := b.records[node]; r.raw != nil && r.joined && !r.left {
			all = append(all, r.raw)
		}
	}
	return all
}

// members lists all, in the order of their nodes.
func (b *book) members(now, woke time.Time) []Member {
	list := make([]Member, 0, len(b.records))
	for node, r := range b.records {
		m := Member{
			Node: node, Addr: r.addr.Addr(), State: r.newest.State, Relayed: r.relayed(),
			HeardAt: r.heardAt, Left: r.left, Said: slices.Clone(r.own.Claims),
		}
		m.State.Claims, m.State.Directors = slices.Clone(m.State.Claims), slices.Clone(m.State.Directors)
		if r.left {
			m.State.Claims, m.Said = nil, nil
		}
		if at, dead := r.diedAt(now, woke); dead {
			m.Dead, m.DeadAt = true, at
		}
		m.Alive = !m.Dead && !r.left && (r.joined || r.dead)
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

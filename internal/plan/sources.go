package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// source is where a real server comes from. Of one address that comes from
// several the first counts: what is written down is meant, and a pod is held to
// more than a bare endpoint is.
type source uint8

const (
	static source = iota
	ofPod
	bare
)

// candidate is a real server of a VirtualServer on one VIP, before it is known
// of which service.
type candidate struct {
	addr   netip.Addr
	source source
	// pod is nil if it is none, uid the one that it says it is.
	pod    *Pod
	uid    types.UID
	weight uint32
	standing
	// leaving says that it is being deleted, by whoever makes it.
	leaving string
	// unready says why it gets no new connections for now.
	unready string
	// anyPort says that it listens on whatever port clients connect to; else each
	// of ports says on which it does.
	anyPort bool
	ports   [][]EndpointPort
	// left says why it is left out, if so.
	left *refusal
}

// out says that it is no destination, on whatever port.
func (c *candidate) out() bool {
	return c.left != nil || c.leaving != "" || c.state == v1alpha1.RealServerDisabled
}

// compare orders candidates of one address; the first is the one that counts. Two
// pods share an address if they are in their node's network, or if one was given
// it after the other: then the one that can serve does.
func (c *candidate) compare(other *candidate) int {
	return cmp.Or(
		cmp.Compare(c.source, other.source),
		compareBools(c.out(), other.out()),
		compareBools(c.unready != "", other.unready != ""),
		cmp.Compare(c.uid, other.uid),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// server returns what status shows of it.
func (c *candidate) server() Server {
	server := Server{Weight: c.weight, State: c.state, Why: c.why()}
	if c.pod != nil {
		server.Pod = c.pod.Name.Name
	}
	switch {
	case c.leaving != "":
		server.State, server.Why = v1alpha1.RealServerDisabled, c.leaving
	case c.left != nil && c.state != v1alpha1.RealServerDisabled:
		server.Reason, server.Message = c.left.reason, c.left.message
	}
	return server
}

// sources finds the real servers of the claims that a court accepted.
type sources struct {
	snapshot *Snapshot
	court    *court
	pods     podIndex
	reached  map[netip.Addr]reached
}

func newSources(s *Snapshot, court *court) *sources {
	return &sources{snapshot: s, court: court, pods: indexPods(s.Pods), reached: map[netip.Addr]reached{}}
}

// of returns the real servers of a claim that are of the family of the
// snapshot's key, each address once and in order: DR hands on the packet as it
// is.
func (s *sources) of(c *claim) []*candidate {
	found := map[netip.Addr]*candidate{}
	offer := func(next *candidate) {
		if known, ok := found[next.addr]; !ok || next.compare(known) < 0 {
			found[next.addr] = next
		}
	}
	s.static(c, offer)
	s.selected(c, offer)
	s.endpoints(c, offer)
	all := make([]*candidate, 0, len(found))
	for _, candidate := range found {
		all = append(all, candidate)
	}
	slices.SortFunc(all, func(a, b *candidate) int { return a.addr.Compare(b.addr) })
	return all
}

// static offers what is written down. That it may be sent to is judged already.
func (s *sources) static(c *claim, offer func(*candidate)) {
	for _, server := range c.realServers {
		if !s.ofFamily(server.addr) {
			continue
		}
		next := &candidate{addr: server.addr, source: static, weight: server.weight, standing: newStanding(), anyPort: true}
		next.add(server.state, "the spec")
		c.drained.apply(server.addr, &next.standing)
		next.left, next.unready = s.adjacent(server.addr), s.unready(server.addr)
		offer(next)
	}
}

func (s *sources) ofFamily(addr netip.Addr) bool {
	return addr.BitLen() == s.snapshot.Key.Addr.BitLen()
}

// reached is a Reach, or that nothing is known.
type reached struct {
	Reach
	known bool
}

func (s *sources) reach(addr netip.Addr) reached {
	if s.snapshot.Reach == nil {
		return reached{}
	}
	if before, asked := s.reached[addr]; asked {
		return before
	}
	reach, known := s.snapshot.Reach(addr)
	s.reached[addr] = reached{reach, known}
	return s.reached[addr]
}

// adjacent says why direct routing does not reach the address, if so.
func (s *sources) adjacent(addr netip.Addr) *refusal {
	reach := s.reach(addr)
	switch {
	case !reach.known:
		return nil
	case reach.Local && s.isDirector(addr):
		return nil
	case reach.Local:
		return refuse(v1alpha1.ReasonRealServerIsDirector, "%s is an address of the director's own node", addr)
	case reach.Gateway.IsValid():
		return refuse(v1alpha1.ReasonNotAdjacent, "%s is reached by gateway %s; direct routing needs it on a network of the director's own",
			addr, reach.Gateway)
	case reach.Link == "":
		return refuse(v1alpha1.ReasonNotAdjacent, "the director has no route to %s; direct routing needs it on a network of the director's own", addr)
	case s.isDirector(addr) && s.snapshot.Interface != "" && reach.Link != s.snapshot.Interface:
		return refuse(v1alpha1.ReasonNotAdjacent, "director %s is reached by %s and knows other directors by the announcement interface %s alone",
			s.snapshot.Directors[addr], reach.Link, s.snapshot.Interface)
	default:
		return nil
	}
}

// sorry returns the sorry server of a claim, or what keeps it from being one.
func (s *sources) sorry(c *claim) (addr netip.Addr, problem string) {
	addr = c.policy.sorry
	if !addr.IsValid() || !s.ofFamily(addr) {
		return netip.Addr{}, ""
	}
	if left := s.adjacent(addr); left != nil {
		return netip.Addr{}, left.reason + ": " + left.message
	}
	return addr, ""
}

// links returns, in order, by which interfaces other than the announcement
// interface the node gets to what was asked for and is adjacent. Those of
// real servers that wait to be prepared, drain or were disabled are among
// them: their connections are to go on, or begin at once.
func (s *sources) links() []string {
	var links []string
	for _, reach := range s.reached {
		if reach.known && !reach.Local && !reach.Gateway.IsValid() && reach.Link != "" && reach.Link != s.snapshot.Interface {
			links = append(links, reach.Link)
		}
	}
	slices.Sort(links)
	return slices.Compact(links)
}

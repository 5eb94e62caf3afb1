package director

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
)

// sounder asks the segment on behalf of the electors.
type sounder struct {
	// asked says that a decision wants somebody asked for.
	asked chan struct{}

	mu sync.Mutex
	// asking are the nodes that are being asked for.
	asking map[string]bool
	acquaintances
}

// begin notes that a node is asked for; false if it already is.
func (s *sounder) begin(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[node] {
		return false
	}
	if s.asking == nil {
		s.asking = map[string]bool{}
	}
	s.asking[node] = true
	return true
}

func (s *sounder) end(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asking, node)
}

// sound asks for a look at what the decisions want to know of the segment.
func (s *session) sound() {
	select {
	case s.sounder.asked <- struct{}{}:
	default:
	}
}

// soundOut asks the segment for what the electors want to know, until ctx ends. It
// takes a tenth of a second to ask for one, so nobody waits for another to be. Without
// gossip nobody is asked for.
func (s *session) soundOut(ctx context.Context, segment prober) {
	if s.d.cfg.Gossip == nil {
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { s.acquaint(ctx, segment) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.sounder.asked:
		}
		for _, node := range s.suspects() {
			if s.sounder.begin(node) {
				running.Go(func() {
					defer s.sounder.end(node)
					s.ask(ctx, segment, node)
				})
			}
		}
	}
}

// suspects returns the nodes that are to be asked for. What a group decided before
// it had the last answer says nothing any more.
func (s *session) suspects() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []string
	for _, g := range s.groups {
		if node := g.decision.Probe; node != "" && g.decision.At.After(g.sounded) && !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// ask asks for a node's machine and tells the electors that want to know by then.
// A question that comes to nothing is asked again, as long as it is wanted.
func (s *session) ask(ctx context.Context, segment prober, node string) {
	soundings, err := s.look(ctx, segment, node)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, announce.ErrStalled) && !errors.Is(err, announce.ErrSilent) {
			s.d.cfg.Log.Warn("Asking the segment for another director", "node", node, "error", err)
		}
		return
	}
	for g, sounding := range soundings {
		s.mu.Lock()
		wanted := g.decision.Probe == node
		s.mu.Unlock()
		if !wanted {
			continue
		}
		g.elector.SetSounding(sounding)
		s.mu.Lock()
		g.sounded = s.now()
		s.mu.Unlock()
	}
}

// look asks for a node's machine, third machines, and a VIP of each group that wants
// to know or is about to: the electors of what a node holds find out one after the
// other that it died. It returns what each is to be told.
func (s *session) look(ctx context.Context, segment prober, node string) (map[*group]election.Sounding, error) {
	machine := s.d.addressesOf(node)
	third := s.sounder.present(time.Now(), machine)
	groups := s.concerned(node)
	vips := s.vipsOf(groups)
	targets := slices.AppendSeq(slices.Concat(machine, third), maps.Values(vips))
	if len(targets) == 0 {
		return nil, nil
	}
	found, err := segment.Probe(ctx, targets)
	if err != nil {
		return nil, err
	}
	s.sounder.meet(time.Now(), found)
	soundings := map[*group]election.Sounding{}
	for _, g := range groups {
		sounding := election.Sounding{
			Node: node, Begun: s.timeOf(found.Begun), Ended: s.timeOf(found.Ended),
			Machine: answeredFor(found, machine) > 0, VIP: s.servedByPeer(found.Answers[vips[g]]),
			Asked: len(third), Answered: answeredFor(found, third),
		}
		soundings[g] = sounding
	}
	return soundings, nil
}

// concerned lists the groups that want to know of a node, or that it holds.
func (s *session) concerned(node string) []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	var groups []*group
	for _, g := range s.groups {
		if g.decision.Probe == node || g.decision.Holder == node {
			groups = append(groups, g)
		}
	}
	return groups
}

// answeredFor counts the addresses that somebody answered for.
func answeredFor(found announce.Probed, addrs []netip.Addr) int {
	count := 0
	for _, addr := range addrs {
		if len(found.Answers[addr]) > 0 {
			count++
		}
	}
	return count
}

// timeOf is the electors' time of one of the fence's.
func (s *session) timeOf(boot time.Duration) time.Time { return s.started.Add(boot - s.startedBoot) }

// vipsOf returns a VIP of each group that has one.
func (s *session) vipsOf(groups []*group) map[*group]netip.Addr {
	vips := map[*group]netip.Addr{}
	for _, key := range s.d.worker.Announceable() {
		g := s.of(key.Addr)
		if _, any := vips[g]; !any && key.Addr.IsValid() && slices.Contains(groups, g) {
			vips[g] = key.Addr
		}
	}
	return vips
}

// servedByPeer says whether one of those that answered for a VIP is a director that
// is alive, or not known to be dead: the kernel of a dead one may answer for long.
func (s *session) servedByPeer(macs []announce.MAC) bool {
	view := s.gossip.view()
	for _, mac := range macs {
		peer := s.d.peerWith(mac)
		if m, _ := view.Member(peer.Node); peer.Node != "" && !m.Dead {
			return true
		}
	}
	return false
}

// addressesOf returns the addresses of a peer on its announcement interface.
func (d *Director) addressesOf(node string) []netip.Addr {
	d.mu.Lock()
	defer d.mu.Unlock()
	var addrs []netip.Addr
	for _, p := range d.peers {
		for _, addr := range []netip.Addr{p.Address, p.IPv6Address} {
			if p.Node == node && addr.IsValid() && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

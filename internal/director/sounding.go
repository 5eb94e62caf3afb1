package director

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
)

const (
	// acquaintEvery is how often third machines are asked, so that it is known who
	// answers while all is well; one that has not for acquaintFade counts no more.
	acquaintEvery = 20 * time.Second
	acquaintFade  = 4 * acquaintEvery
	// acquaintSoon is how often in the first acquaintEvery: whom there is to ask is
	// learnt bit by bit, and who begins to serve may have to know at once.
	acquaintSoon = 2 * time.Second
	// maxThird is how many third machines are asked along with a sounding: enough
	// to tell a dead machine from a segment that is lost.
	maxThird = 6
)

// sounder asks the segment on behalf of the electors.
type sounder struct {
	// asked says that a decision wants somebody asked for.
	asked chan struct{}
	// answered is when third machines last answered. It is soundOut's own.
	answered map[netip.Addr]time.Time
}

// sound asks for a look at what the decisions want to know of the segment.
func (s *session) sound() {
	select {
	case s.sounder.asked <- struct{}{}:
	default:
	}
}

// soundOut asks the segment for what the electors want to know, until ctx ends.
func (s *session) soundOut(ctx context.Context, segment prober) {
	s.sounder.answered = map[netip.Addr]time.Time{}
	begun := time.Now()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			s.acquaint(ctx, segment)
			if time.Since(begun) < acquaintEvery {
				next.Reset(acquaintSoon)
			} else {
				next.Reset(acquaintEvery)
			}
		case <-s.sounder.asked:
			third := s.acquaintances()
			var running sync.WaitGroup
			var mu sync.Mutex
			for node, groups := range s.suspects() {
				running.Go(func() {
					found := s.ask(ctx, segment, node, groups, third)
					mu.Lock()
					defer mu.Unlock()
					s.meet(found)
				})
			}
			running.Wait()
		}
	}
}

// suspects returns the nodes that are to be asked for now, and for which groups.
func (s *session) suspects() map[string][]*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]*group{}
	for _, g := range s.groups {
		if node := g.decision.Probe; node != "" {
			all[node] = append(all[node], g)
		}
	}
	return all
}

// ask asks for a node's machine, a VIP of each group, and third machines, and tells
// the groups' electors. It returns who answered.
func (s *session) ask(ctx context.Context, segment prober, node string, groups []*group, third []netip.Addr) announce.Probed {
	machine := s.d.addressesOf(node)
	third = slices.DeleteFunc(slices.Clone(third), func(a netip.Addr) bool { return slices.Contains(machine, a) })
	vips := s.vipsOf(groups)
	targets := slices.Concat(machine, third)
	for _, vip := range vips {
		targets = append(targets, vip)
	}
	if len(targets) == 0 {
		return announce.Probed{}
	}
	found, err := segment.Probe(ctx, targets)
	if err != nil {
		// A probe that says nothing is begun again, as long as it is wanted.
		if ctx.Err() == nil && !errors.Is(err, announce.ErrStalled) && !errors.Is(err, announce.ErrSilent) {
			s.d.cfg.Log.Warn("Asking the segment for another director", "node", node, "error", err)
		}
		return announce.Probed{}
	}
	for _, g := range groups {
		sounding := election.Sounding{
			Node: node, Begun: s.timeOf(found.Begun), Ended: s.timeOf(found.Ended), Asked: len(third),
		}
		for _, addr := range machine {
			sounding.Machine = sounding.Machine || len(found.Answers[addr]) > 0
		}
		for _, addr := range third {
			if len(found.Answers[addr]) > 0 {
				sounding.Answered++
			}
		}
		sounding.VIP = s.servedByPeer(found.Answers[vips[g]])
		g.elector.SetSounding(sounding)
	}
	return found
}

// timeOf is the elector's time of one of the fence's.
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
			if p.Node == node && addr.IsValid() {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// acquaint asks third machines, so that it is known who answers.
func (s *session) acquaint(ctx context.Context, segment prober) {
	strangers := s.thirdMachines()
	if len(strangers) == 0 {
		return
	}
	if found, err := segment.Probe(ctx, strangers); err == nil {
		s.meet(found)
	}
}

// meet remembers who answered.
func (s *session) meet(found announce.Probed) {
	for addr := range found.Answers {
		s.sounder.answered[addr] = time.Now()
	}
}

// acquaintances lists third machines that answered of late.
func (s *session) acquaintances() []netip.Addr {
	var third []netip.Addr
	for _, addr := range s.thirdMachines() {
		if met, any := s.sounder.answered[addr]; any && time.Since(met) < acquaintFade && len(third) < maxThird {
			third = append(third, addr)
		}
	}
	return third
}

// thirdMachines lists machines on the segment that have no part in the election's
// question: gateways, then the other directors, then real servers.
func (s *session) thirdMachines() []netip.Addr {
	s.mu.Lock()
	gateways := slices.Clone(s.node.facts.Gateways)
	s.mu.Unlock()
	third := gateways[:min(len(gateways), 2)]
	for _, peer := range s.d.friends() {
		if peer.Address.IsValid() {
			third = append(third, peer.Address)
		}
	}
	third = third[:min(len(third), announce.ProbeLimit/4)]
	var servers []netip.Addr
	for _, desired := range s.d.worker.Plans() {
		for key := range desired.State.Destinations {
			servers = append(servers, key.Addr)
		}
	}
	slices.SortFunc(servers, netip.Addr.Compare)
	servers = slices.Compact(servers)
	return append(third, servers[:min(len(servers), maxThird)]...)
}

package director

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
)

const (
	// acquaintEvery is how often third machines are asked, so that it is known who
	// answers while all is well; one that has not for acquaintFade counts no more.
	// After a start it is soon, and then less and less often: a director may have to
	// tell a dead machine from a lost segment at once.
	acquaintEvery = 20 * time.Second
	acquaintSoon  = time.Second
	acquaintFade  = 4 * acquaintEvery
	// maxThird is how many third machines are asked along with a sounding: enough
	// to tell a dead machine from a segment that is lost. maxCandidates is how many
	// of a kind are asked whether they are there.
	maxThird      = 6
	maxCandidates = 10
)

// acquaintances are machines on the segment that have no part in the election's
// question. Whoever has them has to see to it that one at a time uses them.
type acquaintances struct {
	// third are in the order in which they are preferred.
	third []netip.Addr
	// answered is when they last did.
	answered map[netip.Addr]time.Time
}

// present lists those that answered of late, but for the addresses of a machine that
// is itself in question.
func (s *sounder) present(now time.Time, but []netip.Addr) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var third []netip.Addr
	for _, addr := range s.third {
		met, any := s.answered[addr]
		if any && now.Sub(met) < acquaintFade && len(third) < maxThird && !slices.Contains(but, addr) {
			third = append(third, addr)
		}
	}
	return third
}

// meet remembers which of them answered.
func (s *sounder) meet(now time.Time, found announce.Probed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, addr := range s.third {
		if len(found.Answers[addr]) > 0 {
			s.answered[addr] = now
		}
	}
}

// know replaces the third machines. What is known of those that stay is kept.
func (s *sounder) know(third []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.answered
	s.third, s.answered = third, map[netip.Addr]time.Time{}
	for _, addr := range third {
		if met, any := before[addr]; any {
			s.answered[addr] = met
		}
	}
}

// acquaint asks third machines now and then, until ctx ends. What answered on another
// interface is forgotten.
func (s *session) acquaint(ctx context.Context, segment prober) {
	s.sounder.know(nil)
	for pause := acquaintSoon; ; {
		if !s.acquaintOnce(ctx, segment) {
			pause = acquaintSoon
		}
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, acquaintEvery)
	}
}

// acquaintOnce asks third machines, so that it is known who answers. False says that
// nobody could be asked.
func (s *session) acquaintOnce(ctx context.Context, segment prober) bool {
	third := s.thirdMachines()
	s.sounder.know(third)
	if len(third) == 0 {
		return false
	}
	found, err := segment.Probe(ctx, third)
	if err != nil {
		return false
	}
	s.sounder.meet(time.Now(), found)
	return true
}

// thirdMachines lists the machines that are known on the segment: gateways, then the
// other directors, then real servers. Pods are none: one of this very node may answer
// although the segment is lost.
func (s *session) thirdMachines() []netip.Addr {
	s.mu.Lock()
	link, gateways := s.node.link, s.node.facts.Gateways
	s.mu.Unlock()
	own := s.d.ownAddresses(link)
	var peers, servers []netip.Addr
	for _, peer := range s.d.friends() {
		peers = append(peers, peer.Address)
	}
	for _, desired := range s.d.worker.Plans() {
		for key := range desired.State.Destinations {
			if server, told := desired.Servers[key]; told && server.Pod == "" {
				servers = append(servers, key.Addr)
			}
		}
	}
	slices.SortFunc(servers, netip.Addr.Compare)
	var third []netip.Addr
	for _, kind := range [][]netip.Addr{gateways, peers, slices.Compact(servers)} {
		count := 0
		for _, addr := range kind {
			if near(own, addr) && count < maxCandidates && !slices.Contains(third, addr) {
				third, count = append(third, addr), count+1
			}
		}
	}
	return third
}

// near says whether an address is on the segment of a link with these addresses, and
// another machine's.
func near(own []netip.Prefix, addr netip.Addr) bool {
	if !addr.IsValid() || slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Addr() == addr }) {
		return false
	}
	return slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Masked().Contains(addr) })
}

package director

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

const (
	// probeEvery is how often an active director has its kernel look whether the
	// one that it relays to is still there.
	probeEvery = 2 * time.Second
	// relayRetry is how soon a relay that was refused is tried again.
	relayRetry = 30 * time.Second
)

// relay is what a session knows of the directors that had groups before it: or, of
// a group that another one has, of that one. Their kernels know connections that
// this one's does not.
type relay struct {
	// lost are the nodes whose machine did not answer any more: their connections
	// are gone, and whoever has one is told so with a reset.
	lost map[string]bool
	// first are those that have not been asked since this director became active for
	// a group that they had: what the kernel knew before may be long past.
	first map[string]bool
	// set is what the kernel was told, of an interface and since when; nil if
	// nothing yet, and then what an earlier process told it stays.
	set *kernel.Relay
	// tried and probed are when it was last told and asked.
	tried, probed time.Time
	// problem is why it could not be told, as it was last logged.
	problem string
}

// expect has the machine of a node asked soon.
func (r *relay) expect(node string) {
	if r.first == nil {
		r.first = map[string]bool{}
	}
	r.first[node], r.probed = true, time.Time{}
}

// lose notes that the machine of a node is gone.
func (r *relay) lose(node string) {
	if r.lost == nil {
		r.lost = map[string]bool{}
	}
	r.lost[node] = true
}

// follow takes note of who holds the Lease. The session's mu is held.
func (g *group) follow(holder string, announcing bool) (changed bool) {
	// Who holds the Lease now is there again.
	back := g.s.relay.lost[holder] && !announcing
	if holder == "" || holder == g.s.d.cfg.Node || holder == g.previous && !back {
		return false
	}
	delete(g.s.relay.lost, holder)
	g.previous = holder
	return true
}

// relayOn tells the kernel where packets of unknown connections go, if that
// changed, and looks whether there is still somebody.
func (s *session) relayOn(ctx context.Context) {
	s.probePrevious(ctx)
	wanted, decided := s.relayed()
	if !decided {
		return
	}
	s.mu.Lock()
	done := s.relay.set != nil && reflect.DeepEqual(*s.relay.set, wanted)
	wait := s.relay.problem != "" && time.Since(s.relay.tried) < relayRetry
	ends := s.relay.set != nil && len(s.relay.set.To) > 0 && len(wanted.To) == 0
	s.mu.Unlock()
	if _, told := s.sloppy(); ends && !told {
		// IPVS has to take up what is handed on no more, or it would be reset.
		return
	}
	if done || wait {
		return
	}
	err := s.d.cfg.Kernel.SetRelay(ctx, wanted)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay.tried = time.Now()
	if err == nil {
		s.relay.set, s.relay.problem = &wanted, ""
		return
	}
	if s.relay.problem != err.Error() {
		s.d.cfg.Log.Warn("Connections that are open when a VIP moves will be reset", "error", err)
	}
	s.relay.problem = err.Error()
}

// relayed returns what the kernel is to hand on: what is for a VIP of a group to
// the director that had the group before, unless that is no director of the pool
// with an address any more, or lost. False if nothing can be said yet.
func (s *session) relayed() (r kernel.Relay, decided bool) {
	vips, peers := s.d.worker.keys(func(*entry) bool { return true }), s.d.friends()
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.ContainsFunc(s.groups, func(g *group) bool { return g.previous != "" })
	if s.node.err != nil || s.node.link.Name == "" || !known {
		return kernel.Relay{}, false
	}
	for _, key := range vips {
		before := s.of(key.Addr).previous
		i := slices.IndexFunc(peers, func(p Peer) bool { return p.Node == before })
		if i < 0 || s.relay.lost[before] || !key.Addr.IsValid() {
			continue
		}
		if to := peers[i].addressLike(key.Addr); to.IsValid() {
			if r.To == nil {
				r.To = map[netip.Addr]netip.Addr{}
			}
			r.To[key.Addr] = to
		}
	}
	if len(r.To) == 0 {
		return kernel.Relay{}, true
	}
	r.Interface = s.node.link.Name
	for _, peer := range peers {
		if mac, err := net.ParseMAC(peer.MAC); err == nil {
			r.Directors = append(r.Directors, mac)
		}
	}
	return r, true
}

// addressLike returns the peer's address of the same family as that of addr; the
// zero Addr if it has none.
func (p Peer) addressLike(addr netip.Addr) netip.Addr {
	for _, own := range []netip.Addr{p.Address, p.IPv6Address} {
		if own.IsValid() && own.Is4() == addr.Is4() {
			return own
		}
	}
	return netip.Addr{}
}

// relaying lists the groups of which packets are handed on.
func (s *session) relaying() map[*group]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups := map[*group]bool{}
	if s.relay.set != nil {
		for vip := range s.relay.set.To {
			groups[s.of(vip)] = true
		}
	}
	return groups
}

// probePrevious finds out whether the machines that an active director relays to
// are still there. (A standby gets nothing to relay.)
func (s *session) probePrevious(ctx context.Context) {
	for node, addr := range s.dueForProbe() {
		s.mu.Lock()
		link, first := s.node.link.Name, s.relay.first[node]
		delete(s.relay.first, node)
		s.mu.Unlock()
		there, err := s.d.cfg.Kernel.Probe(ctx, link, addr)
		if err != nil {
			s.d.cfg.Log.Warn("Looking whether a director's machine is there", "node", node, "error", err)
			continue
		}
		if there || first {
			continue
		}
		s.d.cfg.Log.Info("The machine of the director before is gone, and its connections with it", "node", node)
		s.mu.Lock()
		s.relay.lose(node)
		s.mu.Unlock()
	}
}

// dueForProbe returns the nodes whose machines are to be asked, each with an address
// that packets go to, if it is time to.
func (s *session) dueForProbe() map[string]netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay.set == nil || time.Since(s.relay.probed) < probeEvery {
		return nil
	}
	due := map[string]netip.Addr{}
	for vip, to := range s.relay.set.To {
		g := s.of(vip)
		// Of two it is always the same: the kernel knows how the last try ended.
		if known, any := due[g.previous]; g.decision.Announce && (!any || to.Less(known)) {
			due[g.previous] = to
		}
	}
	if len(due) > 0 {
		s.relay.probed = time.Now()
	}
	return due
}

// friends lists the other directors of the pool, live or not.
func (d *Director) friends() []Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.peers)
}

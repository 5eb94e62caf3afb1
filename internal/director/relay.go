package director

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

const (
	// probeEvery is how often an active director has its kernel look whether the
	// one that it relays to is still there.
	probeEvery = 2 * time.Second
	// relayRetry is how soon a relay that was refused is tried again.
	relayRetry = 30 * time.Second
)

// relay is what a session knows of the director that had the VIPs before it: or,
// while it is a standby, of the one that has them. That one's kernel knows the
// connections that this one's does not.
type relay struct {
	// previous is the node of the last other director that held the Lease.
	previous string
	// lost says that its machine did not answer any more: its connections are
	// gone, and whoever has one is told so with a reset.
	lost bool
	// set is what the kernel was told, of an interface and since when; nil if
	// nothing yet, and then what an earlier process told it stays.
	set *kernel.Relay
	// tried and probed are when it was last told and asked.
	tried, probed time.Time
	// first says that the next probe is the first since the director became active:
	// what the kernel knew before may be long past.
	first bool
	// problem is why it could not be told, as it was last logged.
	problem string
}

// follow takes note of who holds the Lease.
func (r *relay) follow(holder, self string, announcing bool) (changed bool) {
	// Who holds the Lease now is there again.
	back := r.lost && !announcing
	if holder == "" || holder == self || holder == r.previous && !back {
		return false
	}
	r.previous, r.lost = holder, false
	return true
}

// relayOn tells the kernel where packets of unknown connections go, if that
// changed, and looks whether there is still somebody.
func (s *session) relayOn(ctx context.Context) {
	s.probePrevious(ctx)
	s.mu.Lock()
	ready, link, previous, lost := s.node.err == nil, s.node.link.Name, s.relay.previous, s.relay.lost
	s.mu.Unlock()
	if !ready || link == "" || previous == "" {
		return
	}
	wanted := s.d.relayTo(link, previous, lost)
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

// probePrevious finds out whether the machine that an active director relays to
// is still there. (A standby gets nothing to relay.)
func (s *session) probePrevious(ctx context.Context) {
	s.mu.Lock()
	var to []netip.Addr
	if s.relay.set != nil && s.decision.Announce && time.Since(s.relay.probed) >= probeEvery {
		to, s.relay.probed = s.relay.set.To, time.Now()
	}
	link, previous, first := s.node.link.Name, s.relay.previous, s.relay.first
	s.relay.first = s.relay.first && len(to) == 0
	s.mu.Unlock()
	if len(to) == 0 {
		return
	}
	there, err := s.d.cfg.Kernel.Probe(ctx, link, to[0])
	if err != nil {
		s.d.cfg.Log.Warn("Looking whether a director's machine is there", "node", previous, "error", err)
		return
	}
	if there || first {
		return
	}
	s.d.cfg.Log.Info("The machine of the director before is gone, and its connections with it", "node", previous)
	s.mu.Lock()
	s.relay.lost = true
	s.mu.Unlock()
}

// relayTo returns the relay to a node; it hands nothing on if that is no director
// of the pool with an address, or lost.
func (d *Director) relayTo(link, node string, lost bool) kernel.Relay {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.peers, func(p Peer) bool { return p.Node == node })
	if lost || i < 0 {
		return kernel.Relay{}
	}
	r := kernel.Relay{Interface: link}
	for _, addr := range []netip.Addr{d.peers[i].Address, d.peers[i].IPv6Address} {
		if addr.IsValid() && !slices.Contains(r.To, addr) {
			r.To = append(r.To, addr)
		}
	}
	if len(r.To) == 0 {
		return kernel.Relay{}
	}
	for _, peer := range d.peers {
		if mac, err := net.ParseMAC(peer.MAC); err == nil {
			r.Directors = append(r.Directors, mac)
		}
	}
	return r
}

// previousIn returns what a checkpoint says of who had the VIPs before.
func previousIn(c *checkpoint.Checkpoint, pool string) string {
	if c == nil || c.Pool != pool {
		return ""
	}
	for _, g := range c.Groups {
		if g.Group == group {
			return g.Previous
		}
	}
	return ""
}

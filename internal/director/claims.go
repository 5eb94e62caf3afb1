package director

import (
	"context"
	"net/netip"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
)

// pursueEvery is how often it is asked again who answers for a VIP that is in
// conflict: often enough for a conflict that lasts not to fade in between.
const pursueEvery = conflictFade / 3

// prober asks the segment.
type prober interface {
	Probe(ctx context.Context, targets []netip.Addr) (announce.Probed, error)
	LookForOthers(vips ...netip.Addr)
}

// hearPeer takes note that a director of the pool announced a VIP. While this one
// announces without a Lease that is known to be valid, it would fall silent on
// that word, so the claim is looked into first: by attendClaims.
func (s *session) hearPeer(claim announce.Claim) {
	g := s.of(claim.VIP)
	s.mu.Lock()
	unsure := unsure(g.decision)
	s.mu.Unlock()
	if !unsure {
		g.elector.Heard()
		return
	}
	select {
	case s.peerClaims <- claim:
	default:
		// There will be more of them: a successor announces ten times.
	}
}

// unsure says that a decision rests on nobody else's announcing. Of a director that
// yields somebody else is to.
func unsure(d election.Decision) bool {
	return d.Announce && !d.Confirmed && !d.Claim.Yielding
}

// attendClaims looks into claims of peers, and keeps asking who else answers for
// VIPs in conflict, until ctx ends.
func (s *session) attendClaims(ctx context.Context, segment prober) {
	ticker := time.NewTicker(pursueEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case claim := <-s.peerClaims:
			s.verify(ctx, claim, segment)
		case <-ticker.C:
			segment.LookForOthers(s.contested()...)
		}
	}
}

// verify takes a peer's claim for true if the peer answers for the VIP. A frame
// that was under way, replayed, or sent in its name does not silence the only
// director that serves.
func (s *session) verify(ctx context.Context, claim announce.Claim, segment prober) {
	found, err := segment.Probe(ctx, []netip.Addr{claim.VIP})
	if err != nil {
		if ctx.Err() == nil {
			s.d.cfg.Log.Warn("Asking whether another director answers for a VIP", "vip", claim.VIP, "mac", claim.MAC.String(), "error", err)
		}
		return
	}
	if found.Answered(claim.VIP, claim.MAC) {
		s.of(claim.VIP).elector.Heard()
	}
}

// contested are the VIPs that others claimed of late.
func (s *session) contested() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var vips []netip.Addr
	for _, g := range s.groups {
		for _, conflict := range g.conflicts.present() {
			if len(vips) == 0 || vips[len(vips)-1] != conflict.VIP {
				vips = append(vips, conflict.VIP)
			}
		}
	}
	return vips
}

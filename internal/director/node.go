package director

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

const (
	// prepareRetry is how soon a node that could not be prepared is looked at
	// again: a module that an administrator loads is used within it.
	prepareRetry = 5 * time.Second
	// prepareAudit is how often a prepared node is looked at again.
	prepareAudit = auditInterval
)

// onInterface works on the announcement interface of the present settings until
// ctx ends.
func (s *session) onInterface(ctx context.Context) {
	s.mu.Lock()
	pool := s.pool
	s.mu.Unlock()
	name, err := announcementInterface(pool)
	for err != nil {
		s.noteNode(kernel.Facts{}, err)
		if !wait(ctx, prepareRetry) {
			return
		}
		name, err = announcementInterface(pool)
	}
	announcer, err := announce.New(announce.Config{
		Interface: name,
		Fence:     s.fence,
		Refresh:   pool.Refresh,
		Neighbors: s.d.cfg.Neighbors(name),
		Report: func(err error) {
			s.d.cfg.Log.Error("Announcing", "interface", name, "error", err)
		},
	})
	if err != nil {
		s.noteNode(kernel.Facts{}, fmt.Errorf("announcing on %s: %w", name, err))
		<-ctx.Done()
		return
	}
	s.mu.Lock()
	s.announcer = announcer
	s.relay.set = nil // of another interface, or of a guard that is made anew
	if s.node.link.Name != name {
		s.node.link, s.node.refused = kernel.Link{}, nil
	}
	s.mu.Unlock()
	s.announce()
	var group errgroup.Group
	group.Go(func() error { return announcer.Run(ctx) })
	group.Go(func() error { s.watchLink(ctx, name, announcer); return nil })
	group.Go(func() error { s.hearClaims(ctx, announcer); return nil })
	group.Go(func() error { s.attendClaims(ctx, announcer); return nil })
	group.Go(func() error { s.soundOut(ctx, announcer); return nil })
	group.Go(func() error { s.prepare(ctx, name, pool, announcer); return nil })
	group.Go(func() error { s.synchronize(ctx); return nil })
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		s.d.cfg.Log.Error("Announcing ended", "interface", name, "error", err)
	}
	s.mu.Lock()
	s.announcer, s.announced = nil, nil
	s.mu.Unlock()
}

// prepare keeps the node as VIPs need it.
func (s *session) prepare(ctx context.Context, link string, pool Pool, announcer *announce.Announcer) {
	guard, err := s.d.cfg.Kernel.WatchGuard(ctx)
	if err != nil {
		s.d.cfg.Log.Warn("Watching for changes of the guard; the audit will find them", "error", err)
	}
	flushed := false
	for ctx.Err() == nil {
		facts, err := s.prepareOnce(ctx, link, pool)
		if ctx.Err() != nil {
			return
		}
		s.noteNode(facts, err)
		if facts.Release != "" {
			announcer.SetGateways(facts.Gateways)
		}
		if flushed && err == nil {
			// The guard is there again, and empty.
			s.d.worker.Audit()
			flushed = false
		}
		next := prepareAudit
		if err != nil {
			next = prepareRetry
		}
		again, open := s.awaitPrepare(ctx, next, guard)
		if !open {
			guard = nil
		}
		flushed = flushed || again
	}
}

// awaitPrepare returns when the node is to be prepared again: after a while, when
// somebody deleted the guard, or when it needs something else than it was prepared
// for. Open is false if there will be no more news of the guard.
func (s *session) awaitPrepare(ctx context.Context, after time.Duration, guard <-chan struct{}) (flushed, open bool) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, true
		case <-timer.C:
			return false, true
		case _, open := <-guard:
			return open, open
		case <-s.relinked:
			// The plans of many VIPs change with one pod.
			if !wait(ctx, judgeGather) || !slices.Equal(s.prepared(), s.d.links(s.name, s.prepared())) {
				return false, true
			}
			if _, told := s.sloppy(); !told {
				return false, true
			}
		}
	}
}

// prepareOnce prepares the node and lets the worker work, or says why not.
func (s *session) prepareOnce(ctx context.Context, link string, pool Pool) (kernel.Facts, error) {
	k := s.d.cfg.Kernel
	facts, err := k.Facts(ctx)
	if err != nil {
		return kernel.Facts{}, fmt.Errorf("looking at the node: %w", err)
	}
	// Before any plan is made: an address of the node that is known to be a VIP
	// is not taken for the node's own.
	keys, err := k.Keys(ctx)
	if err != nil {
		return kernel.Facts{}, fmt.Errorf("looking for VIPs in the kernel: %w", err)
	}
	s.d.found(keys)
	if facts.KubeProxyIPVS && !s.d.cfg.IPVSTakenOK {
		return facts, ErrKubeProxyIPVS
	}
	before := s.prepared()
	links := s.d.links(s.name, before)
	sloppy, _ := s.sloppy()
	node := netstate.Node{Interface: link, Guard: pool.Guard, Timeouts: pool.Timeouts, Links: links, Sloppy: sloppy}
	if err := k.Prepare(ctx, node); err != nil {
		return facts, fmt.Errorf("preparing the node: %w", err)
	}
	s.noteSloppy(sloppy)
	s.mu.Lock()
	s.links = links
	s.mu.Unlock()
	if !slices.Equal(before, links) {
		s.d.store.changed()
	}
	return facts, nil
}

// noteNode stores what was found of the node, and stops or starts the worker
// accordingly. The zero Facts say that nothing was found out.
func (s *session) noteNode(facts kernel.Facts, err error) {
	s.mu.Lock()
	before := s.node
	if facts.Release == "" {
		facts = before.facts
	}
	s.node.facts, s.node.err = facts, err
	s.mu.Unlock()
	s.d.worker.Block(err)
	failed := fmt.Sprint(before.err) != fmt.Sprint(err)
	if failed && err != nil {
		s.d.cfg.Log.Error("The node cannot serve VIPs", "error", err)
	}
	if failed || !reflect.DeepEqual(before.facts, facts) {
		s.d.cfg.Changed(netstate.Key{})
	}
	if !sameFacts(before.facts, facts) {
		s.d.cfg.SiteChanged()
	}
	s.refresh()
}

func sameFacts(a, b kernel.Facts) bool {
	return a.Release == b.Release && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Gateways, b.Gateways)
}

// watchLink follows the announcement interface.
func (s *session) watchLink(ctx context.Context, name string, announcer *announce.Announcer) {
	for ctx.Err() == nil {
		links, err := s.d.cfg.Kernel.WatchLink(ctx, name)
		if err != nil {
			s.d.cfg.Log.Error("Watching the announcement interface", "interface", name, "error", err)
		}
		for err == nil {
			link, open := <-links
			if !open {
				break
			}
			s.linkChanged(link, announcer)
		}
		if !wait(ctx, time.Second) {
			return
		}
	}
}

func (s *session) linkChanged(link kernel.Link, announcer *announce.Announcer) {
	mac, _ := announce.MACFrom(link.MAC)
	err := announcer.LinkChanged(announce.LinkState{
		Index: link.Index, MAC: mac, Up: link.Up && link.Running, BondMode: link.BondMode,
	})
	s.mu.Lock()
	before := s.node.link
	s.node.link, s.node.refused = link, err
	s.mu.Unlock()
	if before.Running != link.Running || before.MAC.String() != link.MAC.String() {
		s.d.cfg.Log.Info("The announcement interface changed", "interface", link.Name, "running", link.Running, "mac", link.MAC.String())
	}
	if before.Name != link.Name || !slices.Equal(before.Addresses, link.Addresses) {
		s.d.cfg.SiteChanged()
	}
	s.d.cfg.Changed(netstate.Key{})
	s.refresh()
}

// hearClaims takes note of who else claims a VIP.
func (s *session) hearClaims(ctx context.Context, announcer *announce.Announcer) {
	for {
		select {
		case <-ctx.Done():
			return
		case claim := <-announcer.Claims():
			s.hear(claim, announcer)
		}
	}
}

// defender speaks up for VIPs.
type defender interface {
	Announce(vips ...netip.Addr)
	Defend(vip netip.Addr) error
}

// hear takes note of a claim. What to do about a peer's is the elector's
// business; a stranger's is an event and no more.
func (s *session) hear(claim announce.Claim, announcer defender) {
	s.d.cfg.Metrics.heardClaim()
	from := s.d.peerWith(claim.MAC)
	if from.Node != "" {
		s.hearPeer(claim)
	}
	// Its answer to our own question took no neighbour away.
	if from.dead() && claim.Kind != announce.Answer && time.Since(s.answered) >= time.Second && s.d.Announces(claim.VIP) {
		// Nobody can take the VIP off a kernel whose director is dead.
		s.answered = time.Now()
		announcer.Announce(claim.VIP)
	}
	disputed, news := s.disputes(claim, from)
	if !disputed {
		return
	}
	if news {
		s.d.cfg.Log.Warn("Somebody else claims a VIP", "vip", claim.VIP, "mac", claim.MAC.String(), "kind", claim.Kind.String(), "director", from.Node)
		s.d.cfg.Changed(netstate.Key{})
	}
	if err := announcer.Defend(claim.VIP); err != nil && !errors.Is(err, announce.ErrRateLimited) {
		s.d.cfg.Log.Warn("Defending a VIP", "vip", claim.VIP, "error", err)
	}
}

// disputes says whether a claim is a conflict, and notes it. What peers sent
// around a takeover is none, and against a peer only a director speaks up whose
// Lease is confirmed: the peer may be the one that holds it. The zero Peer is a
// stranger.
func (s *session) disputes(claim announce.Claim, from Peer) (disputed, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.of(claim.VIP)
	switch {
	case !g.decision.Announce:
		return false, false
	case from.Node != "" && (!g.decision.Confirmed || time.Since(g.since) < peersFade):
		return false, false
	case from.dead():
		return true, g.conflicts.add(claim, from.Node)
	default:
		return true, g.conflicts.add(claim, "")
	}
}

// announcementInterface returns the pool's interface, or the one whose network
// holds the first address that the pool allows and that is on any.
func announcementInterface(pool Pool) (string, error) {
	if pool.Interface != "" {
		return pool.Interface, nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("listing interfaces: %w", err)
	}
	for _, addr := range pool.Within {
		for _, link := range links {
			if link.Name != netstate.DummyLink && holds(link, addr) {
				return link.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no interface has a network with an address that DirectorPool %s allows; set spec.interface.name", pool.Name)
}

// holds says whether a network of the interface contains the address.
func holds(link net.Interface, addr netip.Addr) bool {
	addrs, err := link.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Bits() < addr.BitLen() && prefix.Contains(addr) {
			return true
		}
	}
	return false
}

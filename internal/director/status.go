package director

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// Status is what a director reports of itself.
type Status struct {
	// Pool is the DirectorPool that it serves, empty if none.
	Pool string
	// Link is the announcement interface, Address the node's own on it: an IPv4
	// address if it has one. IPv6Address may be a link-local one.
	Link                 kernel.Link
	Address, IPv6Address netip.Addr
	Facts                kernel.Facts
	// Err is why it cannot serve VIPs at all; nil if it can.
	Err error
	// Failures are the keys that the kernel refuses.
	Failures []Failure
	// Refused are those that the kernel has refused for so long that a director
	// without such trouble is preferred.
	Refused []Failure
	// Waiting is why it should not become active.
	Waiting Waiting
	// Announcing says that it is active for at least one group; Active are these, in
	// order, of so many as Groups.
	Announcing bool
	Active     []ActiveGroup
	Groups     int
	// RolePending says that it is not active for a group for no other reason than
	// that it has yet to find out whether it still is, which takes a moment. It says
	// so for pendingPatience at most.
	RolePending bool
	// Programmed says that all that is to be served has been in the kernel since
	// the node can serve VIPs.
	Programmed bool
	// APIReachable says that the API server answers for the Leases, or for one.
	APIReachable bool
	// KernelAnswers says that the kernel answers for the VIPs.
	KernelAnswers bool
	// Conflicts are the claims of late by others, in order.
	Conflicts []Conflict
	// Last is the last change between active and standby, nil if there was none;
	// Transitions the last one of each group that had one.
	Last        *Transition
	Transitions []Transition
	// Sync is how it shares connections.
	Sync SyncStatus
	// VIPs, Services and Destinations in the kernel.
	VIPs, Services, Destinations int
}

// ActiveGroup is a group that a director is active for: since when, in which Epoch.
type ActiveGroup struct {
	Group int
	Epoch int64
	Since time.Time
}

// Status returns how the director is.
func (d *Director) Status() Status {
	s := d.present()
	status := Status{Waiting: Waiting{WaitingForPool, "no DirectorPool selects the node"}}
	status.Failures = d.worker.Failures()
	status.VIPs, status.Services, status.Destinations, status.KernelAnswers = d.worker.Counts()
	if s == nil {
		status.RolePending = d.PoolName() != ""
		return status
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.groups {
		g.describe(&status)
	}
	status.Announcing, status.Groups = len(status.Active) > 0, len(s.groups)
	status.Pool, status.Programmed = s.name, s.programmed
	status.Link, status.Facts, status.Err = s.node.link, s.node.facts, s.node.err
	status.Address = d.sourceOf(s.node.link, netip.Addr.Is4)
	status.IPv6Address = d.sourceOf(s.node.link, netip.Addr.Is6)
	if !status.IPv6Address.IsValid() {
		status.IPv6Address = linkLocal(s.node.link)
	}
	if !status.Address.IsValid() {
		status.Address = d.sourceOf(s.node.link, netip.Addr.Is6)
	}
	status.Refused = s.refused
	status.Waiting = s.waiting
	status.Sync = s.syncStatus()
	return status
}

// describe adds what there is to say of a group. The session's mu is held.
func (g *group) describe(status *Status) {
	pending := !g.pendingSince.IsZero() && time.Since(g.pendingSince) < pendingPatience
	status.RolePending = status.RolePending || pending || g.decision.Announce && !g.awake()
	if g.decision.Announce {
		status.Active = append(status.Active, ActiveGroup{g.number, g.decision.Epoch, g.since})
	}
	if g.last != nil {
		status.Transitions = append(status.Transitions, *g.last)
		if status.Last == nil || status.Last.At.Before(g.last.At) {
			status.Last = g.last
		}
	}
	status.Conflicts = append(status.Conflicts, g.conflicts.present()...)
	status.APIReachable = status.APIReachable || g.elector.APIReachable()
}

// Counts returns how much the worker knows to be in the kernel, and whether
// the kernel answers for the VIPs.
func (w *Worker) Counts() (vips, services, destinations int, answering bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.entries {
		if len(e.outcome.State.Addresses) > 0 {
			vips++
		}
		services += len(e.outcome.State.Services)
		destinations += len(e.outcome.State.Destinations)
		for address := range e.outcome.State.Addresses {
			answering = answering || address.Link != netstate.DummyLink
		}
	}
	return vips, services, destinations, answering
}

// Outcome returns how the last pass over a key ended.
func (d *Director) Outcome(key netstate.Key) (Outcome, bool) { return d.worker.Outcome(key) }

// Report returns what is known of a probe.
func (d *Director) Report(probe health.Probe) health.Report { return d.health.Report(probe) }

// PoolName is the pool that the director is in, or empty.
func (d *Director) PoolName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pool == nil {
		return ""
	}
	return d.pool.Name
}

// Alive says whether the kernel worker works. The API server has no part in
// it: a director goes on without.
func (d *Director) Alive() error {
	if last := time.Since(d.worker.LastPass()); last > 3*auditInterval {
		return fmt.Errorf("the kernel worker has not finished a pass for %s", last.Round(time.Second))
	}
	return nil
}

// Group returns the group of the pool that a VIP is in.
func (d *Director) Group(vip netip.Addr) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pool == nil {
		return 0
	}
	return election.GroupOf(vip, d.pool.groups())
}

// Active says whether the director announces a group.
func (d *Director) Active(group int) bool {
	roles := d.Roles()
	return group < len(roles) && roles[group].Active
}

// Term returns the epoch in which a group's Lease is this director's, and since
// when; 0 if it is not, or not known to be.
func (d *Director) Term(group int) (epoch int64, since time.Time) {
	roles := d.Roles()
	if group >= len(roles) {
		return 0, time.Time{}
	}
	return roles[group].Term, roles[group].TermSince
}

// Role is how things stand with a group.
type Role struct {
	// Active says that this director announces it.
	Active bool
	// Term is the epoch in which the group's Lease is this director's, TermSince since
	// when it is; 0 if it is not, or not known to be.
	Term      int64
	TermSince time.Time
	// Holder is the node that the Lease names, empty if none or if it is not known,
	// Epoch that of the Lease, and HeldSince since when this director has known.
	Holder    string
	Epoch     int64
	HeldSince time.Time
}

// Roles returns how things stand with each group of the pool; nothing without a
// pool.
func (d *Director) Roles() []Role {
	s := d.present()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var roles []Role
	for _, g := range s.groups {
		role := Role{Holder: g.holding.node, Epoch: g.holding.epoch, HeldSince: g.holding.since}
		if g.awake() {
			role.Active, role.Term, role.TermSince = g.decision.Announce, g.term.epoch, g.term.since
		}
		roles = append(roles, role)
	}
	return roles
}

// Announces says whether this director announces the VIP, now or within a moment:
// it is active for its group, and the VIP is in its kernel.
func (d *Director) Announces(vip netip.Addr) bool {
	s := d.present()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.announcer != nil && s.of(vip).decision.Announce && d.worker.announceable(netstate.Key{Addr: vip})
}

// present returns the session that runs, nil if there is none.
func (d *Director) present() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.session
}

// Plan returns what was last planned of a key that is served; false if it is
// not.
func (d *Director) Plan(key netstate.Key) (plan.Desired, bool) { return d.worker.Plan(key) }

// Ready says whether the director could serve: what it is to serve is planned
// (or restored), in the kernel, and its real servers have verdicts or had their
// time. A director that belongs to no pool is ready: there is nothing to do.
func (d *Director) Ready() error {
	status := d.Status()
	switch {
	case d.PoolName() == "" && d.Decided():
		return nil
	case d.PoolName() == "":
		return errors.New("it is not known yet which DirectorPool selects the node")
	case status.Pool == "":
		return ErrPending
	case status.Err != nil:
		return status.Err
	case status.Waiting.mine() && !status.Announcing:
		return errors.New(status.Waiting.Message)
	default:
		return nil
	}
}

// Local is what the plans of a director depend on of its node.
type Local struct {
	Pool, Interface string
	// Source is the node's IPv4 address on the interface.
	Source netip.Addr
	// Own are the node's addresses, VIPs left out; Gateways its routes'.
	Own, Gateways []netip.Addr
}

// Local returns what plans depend on of the node, as it is now. Pool is empty
// until the announcement interface is known.
func (d *Director) Local() Local {
	s := d.present()
	if s == nil {
		return Local{}
	}
	s.mu.Lock()
	node := s.node
	s.mu.Unlock()
	if !node.link.Exists() || node.facts.Release == "" {
		return Local{}
	}
	local := Local{
		Pool:      s.name,
		Interface: node.link.Name,
		Source:    d.sourceOf(node.link, netip.Addr.Is4),
		Gateways:  node.facts.Gateways,
	}
	for _, prefix := range node.facts.Addresses {
		if !d.isVIP(prefix.Addr()) {
			local.Own = append(local.Own, prefix.Addr())
		}
	}
	return local
}

// sourceOf returns the first address of a family on the link that is no VIP of
// ours and of more than the link's scope.
func (d *Director) sourceOf(link kernel.Link, family func(netip.Addr) bool) netip.Addr {
	for _, prefix := range link.Addresses {
		addr := prefix.Addr()
		if family(addr) && !addr.IsLinkLocalUnicast() && !d.isVIP(addr) {
			return addr
		}
	}
	return netip.Addr{}
}

// ownAddresses returns the addresses on the link that are no VIPs of ours.
func (d *Director) ownAddresses(link kernel.Link) []netip.Prefix {
	var own []netip.Prefix
	for _, prefix := range link.Addresses {
		if !d.isVIP(prefix.Addr()) {
			own = append(own, prefix)
		}
	}
	return own
}

// linkLocal returns the link-local IPv6 address of a link, if it has one.
func linkLocal(link kernel.Link) netip.Addr {
	for _, prefix := range link.Addresses {
		if addr := prefix.Addr(); addr.Is6() && addr.IsLinkLocalUnicast() {
			return addr
		}
	}
	return netip.Addr{}
}

// isVIP says whether the address is one that the director itself put on the
// node.
func (d *Director) isVIP(addr netip.Addr) bool {
	_, known := d.worker.Outcome(netstate.Key{Addr: addr})
	return known
}

// planned says whether the director knows what to serve in the pool: from the
// API, or, when that did not answer, from the checkpoint.
func (d *Director) planned(pool string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.synced == pool
}

// company is whether another director of the pool could take over.
type company int

const (
	companyUnknown company = iota
	alone
	accompanied
)

func (d *Director) company() company {
	d.mu.Lock()
	defer d.mu.Unlock()
	view := d.gossipView()
	switch {
	case slices.ContainsFunc(d.peers, func(p Peer) bool { return p.Live || vouched(p.Node, view) }):
		return accompanied
	case d.peersKnown:
		return alone
	default:
		return companyUnknown
	}
}

// peerWith returns the director of the pool that has the MAC, the zero Peer if
// none has.
func (d *Director) peerWith(mac announce.MAC) Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.peers, func(p Peer) bool { return strings.EqualFold(p.MAC, mac.String()) })
	if i < 0 {
		return Peer{}
	}
	return d.peers[i]
}

// electorate lists the live peers as the election knows them.
func (d *Director) electorate() []election.Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []election.Peer
	view := d.gossipView()
	for _, p := range d.peers {
		if p.Live || vouched(p.Node, view) {
			all = append(all, p.elector())
		}
	}
	return all
}

// ownRank is what this director's node counts for.
func (d *Director) ownRank() Rank {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rank
}

// peerKernelAnswers names a peer whose kernel answers for the VIPs, if any.
func (d *Director) peerKernelAnswers() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, peer := range d.peers {
		if peer.Live && peer.KernelAnswers {
			return peer.Node
		}
	}
	return ""
}

// verdictsMissing says whether a real server that is not in the kernel already
// has no verdict. Where the scheduler is netstate.Ordered one that waits for its
// verdict is in the kernel too, at weight 0.
func (d *Director) verdictsMissing() bool {
	verdict := func(p health.Probe) health.Verdict { return d.health.Report(p).Verdict }
	for _, desired := range d.worker.Plans() {
		outcome, _ := d.worker.Outcome(desired.Key)
		for key := range desired.State.Destinations {
			destination, there := outcome.State.Destinations[key]
			there = there && (destination.Weight > 0 || !desired.State.Services[key.Service].Ordered())
			if judged, _ := desired.Judge(key, verdict); judged == health.Unknown && !there {
				return true
			}
		}
	}
	return false
}

// found is told which VIPs are in the kernel: those that nobody knows are left
// by an earlier process.
func (d *Director) found(keys []netstate.Key) {
	d.worker.Adopt(keys)
	d.mu.Lock()
	synced := d.pool != nil && d.synced == d.pool.Name && d.confirmed
	d.mu.Unlock()
	if synced {
		d.removeUnknown()
	}
}

// removeUnknown asks for the removal of what was found in the kernel and never
// planned. It goes once it is certain that nobody wants it.
func (d *Director) removeUnknown() {
	for _, key := range d.worker.keys(func(e *entry) bool { return e.phase == adopted }) {
		d.removals.request(key)
	}
}

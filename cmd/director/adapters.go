package main

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
	"github.com/lvs-operator/lvs-operator/controllers/virtualserver"
	"github.com/lvs-operator/lvs-operator/internal/announce"
	"github.com/lvs-operator/lvs-operator/internal/conditions"
	"github.com/lvs-operator/lvs-operator/internal/director"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// member is the director as its membership and status controllers see it.
type member struct{ c *cluster }

// Join implements directorcontroller.Member.
func (m member) Join(pool v1alpha1.DirectorPool) { m.c.director.Join(poolOf(pool)) }

// Leave implements directorcontroller.Member.
func (m member) Leave(ctx context.Context) error { return m.c.director.Leave(ctx) }

// PoolName implements directorcontroller.Member.
func (m member) PoolName() string { return m.c.director.PoolName() }

// Marked implements directorcontroller.Member.
func (m member) Marked() bool { return m.c.director.Marked() }

// Decided implements directorcontroller.Reported.
func (m member) Decided() bool { return m.c.director.Decided() }

// SetPeers implements directorcontroller.Befriended.
func (m member) SetPeers(own directorcontroller.Rank, peers []directorcontroller.Peer) {
	all := make([]director.Peer, len(peers))
	for i, peer := range peers {
		all[i] = director.Peer{
			Node: peer.Node, Address: peer.Address, IPv6Address: peer.IPv6Address, SyncAddress: peer.SyncAddress,
			MAC: peer.MAC, Live: peer.Live,
			Candidate: peer.Candidate, Impaired: peer.Impaired, Cold: peer.Cold, KernelAnswers: peer.KernelAnswers, Rank: director.Rank(peer.Rank),
		}
	}
	m.c.director.SetPeers(director.Rank(own), all)
}

// poolOf takes from a DirectorPool what a director needs of it.
func poolOf(pool v1alpha1.DirectorPool) director.Pool {
	p := director.Pool{
		Name:    pool.Name,
		Refresh: pool.Spec.Announcement.RefreshInterval.Duration,
		Election: election.Settings{
			LeaseDuration: pool.Spec.Election.LeaseDuration.Duration,
			Preemption:    preemptionOf(pool.Spec),
		},
		Gossip:         director.Gossip{Port: uint16(pool.Spec.Gossip.Port), ProbeInterval: pool.Spec.Gossip.ProbeInterval.Duration},
		Groups:         int(pool.Spec.Election.Groups),
		ConnectionSync: syncOf(pool),
		Guard:          pool.Spec.Guard != v1alpha1.GuardDisabled,
		Timeouts: netstate.Timeouts{
			TCP:    pool.Spec.IPVS.TCPTimeout.Duration,
			TCPFin: pool.Spec.IPVS.TCPFinTimeout.Duration,
			UDP:    pool.Spec.IPVS.UDPTimeout.Duration,
		},
	}
	if pool.Spec.Interface != nil {
		p.Interface = pool.Spec.Interface.Name
	}
	for _, rule := range pool.Spec.Allow {
		for _, text := range rule.Addresses {
			if r, err := plan.ParseRange(string(text)); err == nil {
				p.Within = append(p.Within, r.First())
			}
		}
	}
	return p
}

// programmer is the director as the planner sees it.
type programmer struct{ c *cluster }

// Program implements virtualserver.Programmer.
func (p programmer) Program(desired plan.Desired) {
	p.c.director.Program(desired)
	p.c.changed.add(desired.Key)
}

// Remove implements virtualserver.Programmer.
func (p programmer) Remove(key netstate.Key) {
	p.c.director.Remove(key)
	p.c.changed.add(key)
}

// Served implements virtualserver.Programmer.
func (p programmer) Served() []netstate.Key { return p.c.director.Served() }

// Synced implements virtualserver.Programmer.
func (p programmer) Synced(pool string) { p.c.director.Synced(pool) }

// PoolName implements directorcontroller.Serving.
func (p programmer) PoolName() string { return p.c.director.PoolName() }

// Term implements directorcontroller.Serving.
func (p programmer) Term(group int32) (epoch int64, since time.Time) {
	return p.c.director.Term(int(group))
}

// Holdings implements directorcontroller.Serving.
func (p programmer) Holdings() []directorcontroller.Holding {
	var holdings []directorcontroller.Holding
	for _, role := range p.c.director.Roles() {
		holdings = append(holdings, directorcontroller.Holding{Node: role.Holder, Epoch: role.Epoch, Since: role.HeldSince})
	}
	return holdings
}

// Died implements directorcontroller.Serving.
func (p programmer) Died(node string) time.Time { return p.c.director.Died(node) }

// Group implements virtualserver.Observed.
func (p programmer) Group(vip netip.Addr) int32 { return int32(p.c.director.Group(vip)) }

// Active implements virtualserver.Observed.
func (p programmer) Active(group int32) bool { return p.c.director.Active(int(group)) }

// Plan implements virtualserver.Observed.
func (p programmer) Plan(addr netip.Addr) (plan.Desired, bool) {
	return p.c.director.Plan(netstate.Key{Addr: addr})
}

// Report implements virtualserver.Observed.
func (p programmer) Report(probe health.Probe) health.Report { return p.c.director.Report(probe) }

// Address implements virtualserver.Observed. Of a group that this director is not
// active for, the one that holds the Lease is: it has the same plan.
func (p programmer) Address(addr netip.Addr) conditions.Address {
	outcome, _ := p.c.director.Outcome(netstate.Key{Addr: addr})
	address := conditions.Address{
		Programmed: outcome.Programmed, Failure: failureOf(outcome.Err), State: outcome.State, Draining: outcome.Draining,
		QuorumLost: outcome.QuorumLost, Group: p.Group(addr),
	}
	roles := p.c.director.Roles()
	switch group := int(address.Group); {
	case p.c.director.Announces(addr):
		address.Director = p.c.options.node
	case group < len(roles) && !roles[group].Active && roles[group].Holder != p.c.options.node:
		address.Director = roles[group].Holder
	}
	return address
}

// Site returns what plans need to know of the node.
func (p programmer) Site() virtualserver.Site {
	local := p.c.director.Local()
	site := virtualserver.Site{
		Node: p.c.options.node, Pool: local.Pool, Interface: local.Interface, Source: local.Source,
		Reserved: map[netip.Addr]string{}, Reach: p.c.director.Reach,
	}
	for _, addr := range local.Own {
		site.Reserved[addr] = "an address of node " + site.Node
	}
	for _, addr := range local.Gateways {
		site.Reserved[addr] = "a gateway of node " + site.Node
	}
	for _, addr := range p.c.apiServer {
		site.Reserved[addr] = "the API server's address"
	}
	return site
}

// neighbors is the kernel's neighbour table of a link.
type neighbors struct {
	kernel *kernel.Client
	link   string
}

// Lookup implements announce.Neighbors.
func (n neighbors) Lookup(ctx context.Context, addr netip.Addr) (announce.MAC, bool) {
	var mac net.HardwareAddr
	mac, err := n.kernel.Neighbor(ctx, n.link, addr)
	if err != nil {
		return announce.MAC{}, false
	}
	return announce.MACFrom(mac)
}

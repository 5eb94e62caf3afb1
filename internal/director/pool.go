package director

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/checkpoint"
	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Pool is what a director takes from its DirectorPool.
type Pool struct {
	Name string
	// Interface is the announcement interface; empty means the one whose
	// network holds Within.
	Interface string
	// Within are the first addresses of what the pool allows, in its order.
	Within []netip.Addr
	// Refresh is the time between two announcements of a VIP.
	Refresh time.Duration
	// Election is how its directors decide who serves. A LeaseDuration of 0 is
	// LeaseDuration.
	Election election.Settings
	Gossip   Gossip
	// Groups is how many groups its VIPs are divided into; 0 is one.
	Groups   int
	Guard    bool
	Timeouts netstate.Timeouts
	// ConnectionSync is how its directors share connections.
	ConnectionSync ConnectionSync
}

// groups is how many groups the pool has, at least one.
func (p Pool) groups() int { return min(max(p.Groups, 1), election.MaxGroups) }

// is says whether q is the same pool, with whatever settings. One with another
// number of groups was made anew.
func (p Pool) is(q Pool) bool { return p.Name == q.Name && p.groups() == q.groups() }

func (p Pool) equal(q Pool) bool {
	return p.is(q) && p.Interface == q.Interface && p.Refresh == q.Refresh && p.Guard == q.Guard && p.Election == q.Election &&
		p.ConnectionSync == q.ConnectionSync && p.Gossip == q.Gossip &&
		p.Timeouts == q.Timeouts && fmt.Sprint(p.Within) == fmt.Sprint(q.Within)
}

// poolIn returns the settings that a checkpoint holds.
func poolIn(c checkpoint.Checkpoint) Pool {
	return Pool{
		Name: c.Pool, Interface: c.Node.Interface, Within: c.Within, Refresh: c.Refresh,
		Guard: c.Node.Guard, Timeouts: c.Node.Timeouts, Groups: c.Election.Groups, Gossip: Gossip(c.Gossip),
		ConnectionSync: ConnectionSync(c.ConnectionSync),
		Election: election.Settings{
			LeaseDuration: c.Election.LeaseDuration,
			Preemption:    election.Preemption{Never: c.Election.NeverPreempt, Delay: c.Election.PreemptionDelay},
		},
	}
}

// peersIn returns the peers that a checkpoint holds.
func peersIn(c checkpoint.Checkpoint) []Peer {
	var peers []Peer
	for _, p := range c.Peers {
		peers = append(peers, Peer{
			Node: p.Node, Address: p.Addr, IPv6Address: p.IPv6Addr, SyncAddress: p.SyncAddr, MAC: string(p.MAC), Live: p.Live,
		})
	}
	return peers
}

// Peer is another director of the pool.
type Peer struct {
	Node string
	// Address and IPv6Address are the node's own on its announcement interface.
	Address, IPv6Address netip.Addr
	// SyncAddress is the one from which it sends its connections, if it does.
	SyncAddress netip.Addr
	MAC         string
	// Live says that it could take over at some time: its pod and node are ready,
	// and it is not one that cannot serve.
	Live bool
	// Candidate says that it could become active.
	Candidate bool
	// Impaired says that its kernel refuses some of the VIPs.
	Impaired bool
	// Cold says that it may not know all connections of the others yet.
	Cold bool
	// KernelAnswers says that its kernel answers for the VIPs.
	KernelAnswers bool
	// Rank is what its node counts for.
	Rank Rank
}

// dead says that it is a peer, and not live.
func (p Peer) dead() bool { return p.Node != "" && !p.Live }

// Rank is what a node counts for in the election.
type Rank struct {
	Priority int32
	// Cordoned says that it is to be emptied.
	Cordoned bool
}

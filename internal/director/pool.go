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
	Guard    bool
	Timeouts netstate.Timeouts
}

func (p Pool) equal(q Pool) bool {
	return p.Name == q.Name && p.Interface == q.Interface && p.Refresh == q.Refresh && p.Guard == q.Guard && p.Election == q.Election && p.Gossip == q.Gossip &&
		p.Timeouts == q.Timeouts && fmt.Sprint(p.Within) == fmt.Sprint(q.Within)
}

// poolIn returns the settings that a checkpoint holds.
func poolIn(c checkpoint.Checkpoint) Pool {
	return Pool{
		Name: c.Pool, Interface: c.Node.Interface, Within: c.Within, Refresh: c.Refresh,
		Guard: c.Node.Guard, Timeouts: c.Node.Timeouts, Gossip: Gossip(c.Gossip),
		Election: election.Settings{
			LeaseDuration: c.Election.LeaseDuration,
			Preemption:    election.Preemption{Never: c.Election.NeverPreempt, Delay: c.Election.PreemptionDelay},
		},
	}
}

// Peer is another director of the pool.
type Peer struct {
	Node string
	// Address and IPv6Address are the node's own on its announcement interface.
	Address, IPv6Address netip.Addr
	MAC                  string
	// Live says that it could take over at some time: its pod and node are ready,
	// and it is not one that cannot serve.
	Live bool
	// Candidate says that it could become active.
	Candidate bool
	// Impaired says that its kernel refuses some of the VIPs.
	Impaired bool
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

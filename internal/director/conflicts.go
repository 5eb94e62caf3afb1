package director

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
)

const (
	// conflictFade is how long after the last claim a conflict is reported.
	conflictFade = time.Minute
	// maxConflicts bounds what is remembered: on a broken network there is no end
	// of it.
	maxConflicts = 256
)

// Conflict is somebody else's claim on a VIP that this director announces.
type Conflict struct {
	VIP netip.Addr
	MAC announce.MAC
	// Peer is the node of the dead director whose kernel still answers for the
	// VIP; empty if anybody else claims it.
	Peer string
}

// conflicts are the claims of late. The zero value holds none, and can be added
// to.
type conflicts struct {
	heard map[claimant]claimed
}

type claimant struct {
	vip netip.Addr
	mac announce.MAC
}

type claimed struct {
	peer string
	when time.Time
}

// add notes a claim, by a dead peer or, with an empty name, by anybody else. It
// says whether that is news.
func (c *conflicts) add(claim announce.Claim, peer string) (news bool) {
	who := claimant{claim.VIP, claim.MAC}
	before, known := c.heard[who]
	if !known && len(c.heard) >= maxConflicts {
		return false
	}
	if c.heard == nil {
		c.heard = map[claimant]claimed{}
	}
	c.heard[who] = claimed{peer, claim.When}
	return !known || before.peer != peer
}

// fade forgets what was claimed too long ago and says whether there was any.
func (c *conflicts) fade() (any bool) {
	for who, what := range c.heard {
		if what.faded() {
			delete(c.heard, who)
			any = true
		}
	}
	return any
}

// present lists the claims of late, in order.
func (c *conflicts) present() []Conflict {
	var all []Conflict
	for who, what := range c.heard {
		if !what.faded() {
			all = append(all, Conflict{VIP: who.vip, MAC: who.mac, Peer: what.peer})
		}
	}
	slices.SortFunc(all, func(a, b Conflict) int {
		return cmp.Or(a.VIP.Compare(b.VIP), strings.Compare(a.MAC.String(), b.MAC.String()))
	})
	return all
}

func (c claimed) faded() bool { return time.Since(c.when) > conflictFade }

package announce

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Neighbors looks addresses up in the neighbour table of the announcement
// interface.
type Neighbors interface {
	// Lookup returns the MAC that the kernel has for addr. False is unknown,
	// for whatever reason. It is called from Run, before directed frames and at
	// most once a second for each address, and holds them up while it lasts.
	Lookup(ctx context.Context, addr netip.Addr) (MAC, bool)
}

// Config is what an Announcer is made of. Only Interface and Fence are
// required.
type Config struct {
	// Interface is the announcement interface's name. It is only written into
	// claims and errors: which interface it is says LinkChanged.
	Interface string
	// Fence is beaten by whoever calls SetActive.
	Fence *Fence
	// Refresh is the time between two announcements of a VIP that has been
	// active for a while. It belongs under the time after which switches forget
	// a station. Zero is DefaultRefresh.
	Refresh time.Duration
	// Spacing is the mean time between two announcements. A few VIPs are
	// announced together; many are spread, so that neither a switch's ARP
	// policer nor a neighbour's queue drops them. Zero is DefaultSpacing.
	Spacing time.Duration
	// Neighbors finds the gateways' MACs. Without it, or where it does not know
	// one, a gateway is told by a broadcast that asks for it.
	Neighbors Neighbors
	// Report is told what went wrong with the sockets, from Run; each is tried
	// again after a second. It may be nil.
	Report func(error)
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Defaults of Config.
const (
	DefaultRefresh = time.Minute
	DefaultSpacing = time.Millisecond
)

// LinkState is the state of the announcement interface. The zero value is an
// interface that does not exist.
type LinkState struct {
	// Index is the interface's number; 0 says that there is no such interface.
	Index int
	// MAC is its Ethernet address.
	MAC MAC
	// Up says that it is up and has carrier.
	Up bool
	// BondMode is the kernel's name of its mode if it is a bond.
	BondMode string
}

// Stats are counts since New.
type Stats struct {
	// Answered requests and solicitations.
	Answered uint64
	// Announced counts the gratuitous announcements sent, each of which is two
	// frames for an IPv4 VIP; Directed the frames to gateways and neighbours.
	Announced, Directed uint64
	// StaleDrops counts the frames that arrived while the fence was not fresh
	// and went unanswered for that.
	StaleDrops uint64
	// Claims of our VIPs that were heard. ClaimsLimited of them were like one
	// reported just before, ClaimsDropped were not read by anybody.
	Claims, ClaimsLimited, ClaimsDropped uint64
	// Asked counts the questions that probes sent, and announcements along with
	// them.
	Asked uint64
	// SendErrors counts the frames that the kernel refused.
	SendErrors uint64
	// Malformed counts the frames that are neither ARP nor neighbour discovery
	// as their RFCs have it.
	Malformed uint64
}

var (
	// ErrSilent says that nothing was sent because the VIP is not announced
	// here, or the interface is not ready.
	ErrSilent = errors.New("not announcing")
	// ErrStale says that nothing was sent because the fence is not fresh.
	ErrStale = errors.New("no fresh decision")
	// ErrRateLimited says that nothing was sent because the VIP was defended
	// less than DefendInterval ago.
	ErrRateLimited = errors.New("defended just before")
)

// DefendInterval is the least time between two defences of one VIP
// (DEFEND_INTERVAL of RFC 5227).
const DefendInterval = 10 * time.Second

package announce

import (
	"fmt"
	"net/netip"
	"time"
)

// Kind is the form in which a VIP was claimed.
type Kind uint8

// The kinds of claim. The zero Kind is none of them.
const (
	// Gratuitous is an ARP request or reply with the VIP as both sender and
	// target, or a neighbour advertisement to all: IPv6 answers a Probe so.
	Gratuitous Kind = iota + 1
	// Answer is an ARP reply or a neighbour advertisement to somebody who
	// asked.
	Answer
	// Source is an ARP request or neighbour solicitation for another address
	// that was sent from the VIP.
	Source
)

// String returns the kind's name, as logs and events show it.
func (k Kind) String() string {
	switch k {
	case Gratuitous:
		return "gratuitous"
	case Answer:
		return "answer"
	case Source:
		return "source"
	default:
		return fmt.Sprintf("kind %d", uint8(k))
	}
}

// Claim says that a station with another MAC than ours spoke as the owner of
// a VIP. It is a fact and no verdict: it may come from a peer that has just
// taken over. A probe (RFC 5227, or duplicate address detection) claims
// nothing and is none.
type Claim struct {
	VIP       netip.Addr
	MAC       MAC
	Interface string
	When      time.Time
	Kind      Kind
}

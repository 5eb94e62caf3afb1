// Package netstate models what the operator owns in one network namespace:
// the addresses, IPVS services and destinations and guard entries of each
// served VIP. It is pure: it knows how two states differ and in which order
// one is turned into the other, and nothing of a kernel.
package netstate

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Key names the unit of work: everything that belongs to one VIP. Mark is for
// firewall-mark services, which have no address; exactly one of the two is
// set.
type Key struct {
	Addr netip.Addr
	Mark uint32
}

// String returns the VIP, or "fwmark N".
func (k Key) String() string {
	if k.Mark != 0 {
		return fmt.Sprintf("fwmark %d", k.Mark)
	}
	return k.Addr.String()
}

// Compare orders keys by mark, then by address.
func (k Key) Compare(other Key) int {
	return cmp.Or(cmp.Compare(k.Mark, other.Mark), k.Addr.Compare(other.Addr))
}

// Protocol is an IP protocol number that IPVS can schedule.
type Protocol uint8

// The transport protocols of IPVS services, by their IANA numbers.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the protocol's name as the API writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	default:
		return fmt.Sprintf("protocol %d", uint8(p))
	}
}

// Method is how a director hands a packet to a real server.
type Method uint8

// The forwarding methods, by keepalived's names. Their zero value is none of
// them, so that a forgotten method is never taken for one.
const (
	DR Method = iota + 1
	TUN
	NAT
)

// String returns the method's name as the API writes it.
func (m Method) String() string {
	switch m {
	case DR:
		return "DR"
	case TUN:
		return "TUN"
	case NAT:
		return "NAT"
	default:
		return fmt.Sprintf("method %d", uint8(m))
	}
}

// AddressKey names an address on a link.
type AddressKey struct {
	Link string
	Addr netip.Addr
}

// Address is what an address of ours is like. A VIP is always a /32 (/128).
type Address struct {
	// Source is the address that the node's own packets to the VIP are sent
	// from (`src` of the VIP's local route). It is set only for an IPv4 VIP
	// on the director's dummy device; the zero Addr leaves the kernel's choice.
	Source netip.Addr
}

// ServiceKey names an IPVS service.
type ServiceKey struct {
	Key      Key
	Protocol Protocol
	Port     uint16
	// Marked says that the kernel knows the service by a firewall mark of its own
	// instead of by address, protocol and port. It is given packets that the guard's
	// entry of the same name marks: those that no other director has sent. To the
	// kernel it and the unmarked service are two.
	Marked bool `json:",omitempty"`
}

// SchedulerFlags are the scheduler-specific bits of a service
// (IP_VS_SVC_F_SCHED1 and IP_VS_SVC_F_SCHED2 of linux/ip_vs.h).
type SchedulerFlags uint32

// Flags of the sh and mh schedulers.
const (
	// Fallback takes another real server if the hashed one is down or full.
	Fallback SchedulerFlags = 0x08
	// Port hashes the source port too.
	Port SchedulerFlags = 0x10
)

// Service is what an IPVS service is like.
type Service struct {
	// Scheduler is the kernel's name of it: rr, wrr, ...
	Scheduler string
	Flags     SchedulerFlags
	// OnePacket schedules each datagram by itself (UDP only).
	OnePacket bool
	// Persistence is how long a client stays with its real server, in whole
	// seconds; 0 is no persistence.
	Persistence time.Duration
	// PersistencePrefix is how many leading bits of the client's address
	// count for persistence: 1-32 or 1-128. It means nothing (and is 32 or
	// 128) without persistence.
	PersistencePrefix uint8
}

// DestinationKey names a destination of a service.
type DestinationKey struct {
	Service ServiceKey
	Addr    netip.Addr
	Port    uint16
}

// Destination is what a destination is like.
type Destination struct {
	Method Method
	// Weight is 0-65535; 0 takes no new connections.
	Weight uint32
	// LastWeight is the weight above 0 by which a scheduler that is Ordered goes on
	// counting a destination at weight 0: the last one that it was given
	// (last_weight of the kernel's ip_vs_dest). 0 is unknown, or of no
	// consequence, as it is at any other weight. Whoever gives a destination a
	// weight of 0 and a LastWeight lets it have that first, for a moment.
	LastWeight uint32
	// Upper is the number of connections above which the destination takes no
	// new ones, Lower the one below which it takes them again; 0 is no limit.
	Upper, Lower uint32
}

// GuardKey names an entry of the guard. Without Protocol and Port (both zero)
// it is the VIP itself: what arrives for it on a port that is no service is
// dropped. With them it is a service that is let through untracked, or, if it is
// Marked, one whose packets are marked for a Marked service: a service of that
// kind has both entries.
type GuardKey struct {
	VIP      netip.Addr
	Protocol Protocol
	Port     uint16
	Marked   bool
}

// Present is the value of entries that carry nothing but their key.
type Present struct{}

// Connections counts the connections of a destination as IPVS does. All of
// UDP's count as inactive.
type Connections struct {
	Active, Inactive uint32
}

// State is what the operator owns: of one key where a function is handed a
// key, of all of them else. The zero State is not usable: call New.
type State struct {
	Guard        map[GuardKey]Present
	Addresses    map[AddressKey]Address
	Services     map[ServiceKey]Service
	Destinations map[DestinationKey]Destination
}

// New returns an empty state.
func New() State {
	return State{
		Guard:        map[GuardKey]Present{},
		Addresses:    map[AddressKey]Address{},
		Services:     map[ServiceKey]Service{},
		Destinations: map[DestinationKey]Destination{},
	}
}

// Observation is what the kernel holds of one key.
type Observation struct {
	State
	// Connections of every destination in State.
	Connections map[DestinationKey]Connections
	// Order is that in which the destinations of each service were added; empty
	// where that is not known.
	Order map[ServiceKey][]DestinationKey
}

// DummyLink is the device that holds every VIP on a director. Node address
// autodetection of CNIs skips devices of that name pattern.
const DummyLink = "dummy-lvs"

// Node is what a director needs of its node besides the VIPs.
type Node struct {
	// Interface is the announcement interface.
	Interface string
	// Guard says whether the nftables guard is wanted.
	Guard bool
	// Timeouts of IPVS connections; zero fields are left as they are.
	Timeouts Timeouts
	// Links are, in order, the other interfaces by which real servers are
	// reached: those of the node's own pods. What they answer from a VIP is let in
	// there. One that does not exist is passed over.
	Links []string `json:",omitempty"`
	// Sloppy says for which protocols IPVS takes up connections of which it did not
	// see the beginning; nil leaves that as it is.
	Sloppy *Sloppy `json:",omitempty"`
}

// Sloppy are the protocols whose packets IPVS schedules also where they begin no
// connection. That is of the network namespace: it holds for every service.
type Sloppy struct {
	TCP, SCTP bool
}

// Timeouts are the connection timeouts of IPVS, in whole seconds. They are
// one per network namespace.
type Timeouts struct {
	TCP, TCPFin, UDP time.Duration
}

package announce

import "net/netip"

// family is an address family, by its IP version.
type family uint8

const (
	ipv4 family = 4
	ipv6 family = 6
)

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return ipv4
	}
	return ipv6
}

// network is what an Announcer needs of the kernel.
type network interface {
	// listen opens a socket for whole Ethernet frames on the interface with
	// this index: ARP for IPv4, neighbour discovery for IPv6.
	listen(index int, f family) (port, error)
	// member opens a socket to join multicast groups on that interface with.
	member(index int) (member, error)
}

// port is a packet socket. One goroutine may wait while others receive, send
// and close.
type port interface {
	// wait returns when there may be a frame, or with an error once the port is
	// closed or can't be waited for.
	wait() error
	// receive copies the next frame to buf and returns its length; false if
	// there is none. It does not block.
	receive(buf []byte) (int, bool, error)
	// send sends a frame. It does not block: if it would have to, it is an
	// error.
	send(frame []byte) error
	close() error
}

// member is a socket that is in multicast groups until it leaves them or is
// closed.
type member interface {
	join(group netip.Addr) error
	leave(group netip.Addr) error
	close() error
}

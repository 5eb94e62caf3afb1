package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Reach is how the namespace gets to an address, by its routes. The zero Reach
// does not get there.
type Reach struct {
	// Link is the interface; empty if there is no route.
	Link string
	// Gateway is not valid if the address is on a network that the namespace is
	// directly connected to.
	Gateway netip.Addr
	// Local says that the address is the namespace's own.
	Local bool
}

// Reach looks up the route to an address, as IPVS does for a destination: by no
// source, mark or incoming interface. Nothing is sent. It returns when ctx ends,
// however busy the kernel is; no route is no error.
func (c *Client) Reach(ctx context.Context, addr netip.Addr) (Reach, error) {
	if err := ctx.Err(); err != nil {
		return Reach{}, err
	}
	type answer struct {
		reach Reach
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reach, err := c.lookUp(addr)
		answers <- answer{reach, err}
	}()
	select {
	case <-ctx.Done():
		return Reach{}, fmt.Errorf("looking up the route to %s: %w", addr, ctx.Err())
	case a := <-answers:
		if a.err != nil {
			return Reach{}, fmt.Errorf("looking up the route to %s: %w", addr, a.err)
		}
		return a.reach, nil
	}
}

func (c *Client) lookUp(addr netip.Addr) (Reach, error) {
	routes, err := c.route.RouteGet(addr.AsSlice())
	// These are the kernel's words for no route, or for one that is unreachable,
	// prohibited or a blackhole (fib_props of net/ipv4/fib_semantics.c).
	if isErrno(err, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL) {
		return Reach{}, nil
	}
	if err != nil {
		return Reach{}, err
	}
	if len(routes) == 0 {
		return Reach{}, nil
	}
	route := routes[0]
	reach := Reach{Local: route.Type == unix.RTN_LOCAL, Gateway: gatewayOf(route)}
	if !reach.Local && route.Type != unix.RTN_UNICAST {
		return Reach{}, nil // multicast, broadcast, or unreachable by IPv6's words
	}
	link, err := c.route.LinkByIndex(route.LinkIndex)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return Reach{}, nil
	}
	if err != nil {
		return Reach{}, err
	}
	reach.Link = link.Attrs().Name
	return reach, nil
}

// gatewayOf returns the next hop of a route, of whatever family; not valid if it
// has none.
func gatewayOf(route netlink.Route) netip.Addr {
	if via, ok := route.Via.(*netlink.Via); ok {
		addr, _ := netip.AddrFromSlice(via.Addr)
		return addr.Unmap()
	}
	addr, _ := netip.AddrFromSlice(route.Gw)
	return addr.Unmap()
}

// routing are the groups of rtnetlink that tell of what a look-up depends on.
var routing = [...]uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
}

// WatchRoutes sends a value after anything changed that Reach depends on: routes,
// rules, addresses or interfaces. Many changes may make one value, and a change
// need not make a difference. The channel is closed when ctx ends or when the
// kernel stops reporting: what was looked up is not to be relied on then.
func (c *Client) WatchRoutes(ctx context.Context) (<-chan struct{}, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_ROUTE, &mdnetlink.Config{NetNS: c.netns.fd()})
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	for _, group := range routing {
		if err := conn.JoinGroup(group); err != nil {
			return nil, fmt.Errorf("watching routes: %w", join(err, conn.Close()))
		}
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	go func() {
		defer close(changed)
		defer func() {
			if stop() {
				_ = conn.Close()
			}
		}()
		for {
			// With ENOBUFS messages were lost: something changed.
			if _, err := conn.Receive(); err != nil && !isErrno(err, unix.ENOBUFS) {
				return
			}
			select {
			case changed <- struct{}{}:
			default: // one is waiting to be received
			}
		}
	}()
	return changed, nil
}

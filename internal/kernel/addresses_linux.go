package kernel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// foreverLifetime is the lifetime of an address that does not end
// (INFINITY_LIFE_TIME of net/addrconf.h).
const foreverLifetime = math.MaxUint32

// protoKernel is RTPROT_KERNEL: the routes that come with addresses carry it.
const protoKernel = unix.RTPROT_KERNEL

func (c *Client) applyAddress(ctx context.Context, op netstate.AddressChange) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	link, err := c.linkByName(op.Entry.Link)
	if err != nil {
		if op.Verb == netstate.Del && errors.Is(err, ErrNoLink) {
			return nil
		}
		return err
	}
	if op.Verb == netstate.Del {
		return c.deleteAddress(link, op.Entry.Addr)
	}
	err = c.route.AddrAdd(link, vipAddress(op.Entry))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	if op.Entry.Addr.Is6() {
		return nil
	}
	return c.ensureLocalRoute(link, op.Entry.Addr, op.Value.Source)
}

// vipAddress is the kernel's form of a VIP on a link. On netstate.DummyLink an
// IPv4 VIP is an ordinary /32. On the announcement interface it makes no route
// to the segment. An IPv6 VIP skips duplicate address detection (a standby has
// it too) and is deprecated from the start, so that it is no source address.
func vipAddress(k netstate.AddressKey) *netlink.Addr {
	a := &netlink.Addr{IPNet: hostNet(k.Addr)}
	if k.Link != netstate.DummyLink {
		a.Flags |= unix.IFA_F_NOPREFIXROUTE
	}
	if k.Addr.Is6() {
		a.Flags |= unix.IFA_F_NODAD
		a.PreferedLft, a.ValidLft = 0, foreverLifetime
	}
	return a
}

func hostNet(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(addr.AsSlice()), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

// deleteAddress takes an address off a link, and its local route: once the
// route's source is another, kernels differ in whether it goes along (6.1 takes
// it, 6.18 leaves it, and the VIP then still counts as local).
func (c *Client) deleteAddress(link netlink.Link, addr netip.Addr) error {
	err := c.route.AddrDel(link, &netlink.Addr{IPNet: hostNet(addr)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	if addr.Is6() {
		return nil
	}
	for {
		route, found, err := c.localRoute(link, addr)
		if err != nil || !found {
			return err
		}
		if err := c.route.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("deleting the local route: %w", err)
		}
	}
}

// ensureLocalRoute sees to it that the address has its route in the table local
// and that packets of the node's own to it get source, if one is given.
//
// A new route is made before the old one goes: there is no moment without one.
// Where the VIP is on the announcement interface too, the route of
// netstate.DummyLink is the first, which decides about the source.
func (c *Client) ensureLocalRoute(link netlink.Link, addr, source netip.Addr) error {
	old, found, err := c.localRoute(link, addr)
	if err != nil {
		return err
	}
	if found && sourceOf(old, addr) == source {
		return nil
	}
	route := netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       hostNet(addr),
		Table:     unix.RT_TABLE_LOCAL,
		Type:      unix.RTN_LOCAL,
		Scope:     netlink.SCOPE_HOST,
		Protocol:  protoKernel,
		Src:       net.IP(addr.AsSlice()),
	}
	if source.IsValid() {
		route.Src = net.IP(source.AsSlice())
	}
	add := c.route.RouteAppend
	if link.Attrs().Name == netstate.DummyLink {
		add = c.route.RouteAddEcmp // a plain NLM_F_CREATE, which for IPv4 prepends
	}
	if err := add(&route); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding the local route with source %s: %w", route.Src, err)
	}
	if !found {
		return nil
	}
	if err := c.route.RouteDel(&old); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("deleting the local route with source %s: %w", old.Src, err)
	}
	return nil
}

// localRoute looks the route of an IPv4 address up in the table local, on one
// link. It is one question to the routing code, whatever the size of the table.
func (c *Client) localRoute(link netlink.Link, addr netip.Addr) (netlink.Route, bool, error) {
	routes, err := c.route.RouteGetWithOptions(net.IP(addr.AsSlice()), &netlink.RouteGetOptions{
		OifIndex: link.Attrs().Index,
		FIBMatch: true,
	})
	if errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) {
		return netlink.Route{}, false, nil
	}
	if err != nil {
		return netlink.Route{}, false, fmt.Errorf("looking up the local route: %w", err)
	}
	for _, r := range routes {
		exact := r.Dst != nil && fromIP(r.Dst.IP.To4()) == addr
		if exact && r.Type == unix.RTN_LOCAL && r.LinkIndex == link.Attrs().Index {
			// As long as nobody made rules the kernel keeps the tables local and main
			// as one and says main.
			r.Table = unix.RT_TABLE_LOCAL
			return r, true, nil
		}
	}
	return netlink.Route{}, false, nil
}

// sourceOf is the source that a local route gives, zero if it is the kernel's
// own choice, the address itself.
func sourceOf(route netlink.Route, addr netip.Addr) netip.Addr {
	if source := fromIP(route.Src.To4()); source != addr {
		return source
	}
	return netip.Addr{}
}

// readAddress says what a VIP on a link is like; false if it is not there. An
// IPv4 address whose local route somebody deleted counts as not there: adding it
// again repairs it.
func (c *Client) readAddress(k netstate.AddressKey) (netstate.Address, bool, error) {
	link, err := c.linkByName(k.Link)
	if errors.Is(err, ErrNoLink) {
		return netstate.Address{}, false, nil
	}
	if err != nil {
		return netstate.Address{}, false, err
	}
	if k.Addr.Is6() {
		found, err := c.hasIPv6(link, k.Addr)
		return netstate.Address{}, found, err
	}
	route, found, err := c.localRoute(link, k.Addr)
	if err != nil || !found {
		return netstate.Address{}, false, err
	}
	return netstate.Address{Source: sourceOf(route, k.Addr)}, true, nil
}

// hasIPv6 asks for one IPv6 address on one link (RTM_GETADDR without a dump,
// which the kernel has for IPv6 alone).
func (c *Client) hasIPv6(link netlink.Link, addr netip.Addr) (bool, error) {
	socket, err := nl.GetNetlinkSocketAt(c.netns.handle, -1, unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("opening netlink: %w", err)
	}
	defer socket.Close()
	limit := unix.NsecToTimeval(c.opts.Timeout.Nanoseconds())
	if err := socket.SetReceiveTimeout(&limit); err != nil {
		return false, fmt.Errorf("limiting netlink's time: %w", err)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	msg := nl.NewIfAddrmsg(unix.AF_INET6)
	msg.Index = uint32(link.Attrs().Index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	_, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading address %s: %w", addr, err)
	}
	return true, nil
}

// linkByName finds a link, or returns an error that is ErrNoLink.
func (c *Client) linkByName(name string) (netlink.Link, error) {
	link, err := c.route.LinkByName(name)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil, fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	if err != nil {
		return nil, fmt.Errorf("finding interface %s: %w", name, err)
	}
	return link, nil
}

// listAddresses returns the addresses of a link, or of all if it is nil. A dump
// that was interrupted is repeated.
func (c *Client) listAddresses(ctx context.Context, link netlink.Link) ([]netlink.Addr, error) {
	return steady(ctx, "listing addresses", func() ([]netlink.Addr, error) {
		return c.route.AddrList(link, netlink.FAMILY_ALL)
	})
}

// steady repeats a dump until it was not interrupted by a change.
func steady[T any](ctx context.Context, what string, dump func() (T, error)) (T, error) {
	for {
		if err := ctx.Err(); err != nil {
			var zero T
			return zero, fmt.Errorf("%s: %w", what, err)
		}
		list, err := dump()
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			var zero T
			return zero, fmt.Errorf("%s: %w", what, err)
		}
		return list, nil
	}
}

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neighbor returns the MAC address that the kernel has for addr in the
// neighbour table of a link. It is nil if the kernel knows none, or none that
// it believes in. It sends nothing.
func (c *Client) Neighbor(_ context.Context, link string, addr netip.Addr) (net.HardwareAddr, error) {
	l, err := c.route.LinkByName(link)
	if err != nil {
		return nil, fmt.Errorf("looking up interface %s: %w", link, err)
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	neighbors, err := c.route.NeighList(l.Attrs().Index, family)
	if err != nil {
		return nil, fmt.Errorf("listing the neighbours on %s: %w", link, err)
	}
	for _, n := range neighbors {
		known, ok := netip.AddrFromSlice(n.IP)
		if ok && known.Unmap() == addr && n.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) == 0 {
			return n.HardwareAddr, nil
		}
	}
	return nil, nil
}

package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"

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
	known, err := c.neighborEntry(l, addr)
	if err != nil || known == nil || known.State&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0 {
		return nil, err
	}
	return known.HardwareAddr, nil
}

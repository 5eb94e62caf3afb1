// Package realserver keeps a host a real server for direct routing: the VIPs are
// on lo, and the host does not answer ARP for them. What to do is decided here;
// package kernel does it.
package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ParseVIPs reads VIPs: at least one, each an ordinary unicast address, none
// twice. They are returned in the given order.
func ParseVIPs(texts []string) ([]netip.Addr, error) {
	if len(texts) == 0 {
		return nil, errors.New("name at least one VIP")
	}
	vips := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		vip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("VIP %q is no IP address", text)
		}
		if fault := faultOf(vip); fault != "" {
			return nil, fmt.Errorf("VIP %s is %s", text, fault)
		}
		if slices.Contains(vips, vip) {
			return nil, fmt.Errorf("VIP %s is named twice", vip)
		}
		vips = append(vips, vip)
	}
	return vips, nil
}

// faultOf says what keeps an address from being a VIP; nothing if it can be one.
func faultOf(vip netip.Addr) string {
	switch {
	case vip.Is4In6():
		return "an IPv4-mapped address: write " + vip.Unmap().WithZone("").String()
	case vip.IsUnspecified():
		return "the unspecified address"
	case vip.IsLoopback():
		return "a loopback address"
	case vip.IsMulticast():
		return "a multicast address"
	case vip.IsLinkLocalUnicast():
		return "a link-local address"
	case vip.Zone() != "":
		return "an address with a zone"
	case vip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

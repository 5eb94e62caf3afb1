package election

import "net/netip"

// MaxGroups is how many groups a pool can have.
const MaxGroups = 32

// GroupOf returns the group of a VIP in a pool of so many groups, 0 to groups-1:
// the sum of the address's bytes modulo their number, an IPv4 address in its
// IPv6-mapped form counting as IPv4. All directors of a pool, of whatever
// version, have to agree, so it never changes. It is no hash that scatters: people
// hand VIPs out one after the other, and of neighbouring addresses each falls to
// another group.
func GroupOf(vip netip.Addr, groups int) int {
	sum := 0
	for _, b := range vip.Unmap().AsSlice() {
		sum += int(b)
	}
	return sum % max(groups, 1)
}

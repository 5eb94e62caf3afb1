package election

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// TestTheGroupOfAVIPNeverChanges pins groups that are in use somewhere: directors
// of two versions have to agree during an upgrade.
func TestTheGroupOfAVIPNeverChanges(t *testing.T) {
	for _, tc := range []struct {
		vip    string
		groups int
		want   int
	}{
		{"192.168.11.200", 1, 0},
		{"192.168.11.200", 0, 0},
		{"192.168.11.200", 4, 3},
		{"192.168.11.201", 4, 0},
		{"192.168.11.202", 4, 1},
		{"::ffff:192.168.11.202", 4, 1},
		{"255.255.255.255", 32, 28},
		{"fd00:11::200", 3, 2},
		{"fd00:11::201", 3, 0},
		{"::", 7, 0},
	} {
		if got := GroupOf(netip.MustParseAddr(tc.vip), tc.groups); got != tc.want {
			t.Errorf("%s is in group %d of %d, want %d", tc.vip, got, tc.groups, tc.want)
		}
	}
}

func TestNeighbouringVIPsAreInDifferentGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := rapid.IntRange(1, MaxGroups).Draw(t, "groups")
		network := rapid.SliceOfN(rapid.Byte(), 3, 15).Filter(func(b []byte) bool { return len(b) == 3 || len(b) == 15 }).Draw(t, "network")
		begin := rapid.IntRange(0, 256-groups).Draw(t, "begin")
		seen := map[int]bool{}
		for i := range groups {
			vip, _ := netip.AddrFromSlice(append(append([]byte{}, network...), byte(begin+i)))
			group := GroupOf(vip, groups)
			if group < 0 || group >= groups || seen[group] {
				t.Fatalf("%s is in group %d of %d: none, or another's of the row", vip, group, groups)
			}
			seen[group] = true
		}
	})
}

package realserver_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// settings of a host with the interfaces lo and eth0: values of arp_ignore and
// arp_announce of all, eth0 and lo.
func settings(values ...int) []kernel.Setting {
	list := make([]kernel.Setting, 0, len(values))
	for i, link := range []string{"all", "eth0", "lo"} {
		list = append(list,
			kernel.Setting{Link: link, Name: kernel.ARPIgnore, Value: values[2*i]},
			kernel.Setting{Link: link, Name: kernel.ARPAnnounce, Value: values[2*i+1]})
	}
	return list
}

func on(link, addr string) kernel.HostAddress {
	return kernel.HostAddress{Addr: netip.MustParseAddr(addr), Link: link, Label: link}
}

var (
	fresh = settings(0, 0, 0, 0, 0, 0)
	quiet = settings(1, 2, 0, 0, 1, 2)
)

func TestDeviations(t *testing.T) {
	tests := map[string]struct {
		vips  string
		state kernel.RealServerState
		want  []string
	}{
		"nothing, where all is set up": {
			vips:  "192.0.2.1 2001:db8::1",
			state: kernel.RealServerState{Settings: quiet, Addresses: []kernel.HostAddress{on("lo", "192.0.2.1"), on("lo", "2001:db8::1")}},
		},
		"everything, on a fresh host": {
			vips:  "192.0.2.1",
			state: kernel.RealServerState{Settings: fresh},
			want: []string{
				"net.ipv4.conf.lo.arp_ignore: 0, should be 1",
				"net.ipv4.conf.lo.arp_announce: 0, should be 2",
				"net.ipv4.conf.all.arp_ignore: 0, should be 1",
				"net.ipv4.conf.all.arp_announce: 0, should be 2",
				"192.0.2.1: not on lo, should be on lo",
			},
		},
		"no stricter value": {
			vips:  "192.0.2.1",
			state: kernel.RealServerState{Settings: settings(2, 2, 0, 0, 8, 2), Addresses: []kernel.HostAddress{on("lo", "192.0.2.1")}},
		},
		"larger values that are less strict": {
			vips:  "192.0.2.1",
			state: kernel.RealServerState{Settings: settings(3, 3, 0, 0, 9, 1), Addresses: []kernel.HostAddress{on("lo", "192.0.2.1")}},
			want: []string{
				"net.ipv4.conf.lo.arp_ignore: 9, should be 1",
				"net.ipv4.conf.lo.arp_announce: 1, should be 2",
				"net.ipv4.conf.all.arp_ignore: 3, should be 1",
				"net.ipv4.conf.all.arp_announce: 3, should be 2",
			},
		},
		"a VIP on another interface is not on lo": {
			vips:  "192.0.2.1",
			state: kernel.RealServerState{Settings: quiet, Addresses: []kernel.HostAddress{on("eth0", "192.0.2.1")}},
			want:  []string{"192.0.2.1: not on lo, should be on lo"},
		},
		"a VIP of ours that is not wanted any more": {
			vips: "192.0.2.1",
			state: kernel.RealServerState{
				Settings:  quiet,
				Addresses: []kernel.HostAddress{on("lo", "192.0.2.1"), on("lo", "192.0.2.2"), on("lo", "192.0.2.3")},
				Recorded:  addrs("192.0.2.1", "192.0.2.2", "192.0.2.4"),
			},
			want: []string{"192.0.2.2: on lo, should be not on lo"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range realserver.Deviations(addrs(strings.Fields(tc.vips)...), tc.state) {
				got = append(got, d.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSettingsAreEnough: a host with what Settings asks for deviates no more.
func TestSettingsAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state := kernel.RealServerState{Settings: settings(rapid.SliceOfN(rapid.IntRange(-1, 10), 6, 6).Draw(t, "values")...)}
		for _, want := range realserver.Settings(state) {
			for i := range state.Settings {
				if state.Settings[i].Path() == want.Path() {
					state.Settings[i].Value = want.Value
				}
			}
		}
		if left := realserver.Deviations(nil, state); len(left) > 0 {
			t.Errorf("still deviates: %v", left)
		}
	})
}

func TestObstacles(t *testing.T) {
	tests := map[string]struct {
		vips  string
		state kernel.RealServerState
		want  []string
	}{
		"none on a fresh host":                      {vips: "192.0.2.1", state: kernel.RealServerState{Settings: fresh}},
		"none, for a VIP that is on lo":             {vips: "192.0.2.1", state: kernel.RealServerState{Settings: fresh, Addresses: []kernel.HostAddress{on("lo", "192.0.2.1")}}},
		"none, for other addresses":                 {vips: "192.0.2.1", state: kernel.RealServerState{Settings: fresh, Addresses: []kernel.HostAddress{on("eth0", "192.0.2.7")}}},
		"none, where all overrides the interface":   {vips: "192.0.2.1", state: kernel.RealServerState{Settings: settings(8, 2, 3, 1, 0, 0)}},
		"none, of ARP for IPv6":                     {vips: "2001:db8::1", state: kernel.RealServerState{Settings: settings(0, 0, 3, 3, 0, 0)}},
		"lo's own value: it is set":                 {vips: "192.0.2.1", state: kernel.RealServerState{Settings: settings(0, 0, 0, 0, 3, 3)}},
		"an interface that answers for global ones": {vips: "192.0.2.1", state: kernel.RealServerState{Settings: settings(1, 2, 3, 0, 1, 2)}, want: []string{"net.ipv4.conf.eth0.arp_ignore = 3 makes VIPs on lo known on eth0: set it to 0"}},
		"an interface with a value without meaning": {vips: "192.0.2.1", state: kernel.RealServerState{Settings: settings(0, 0, 0, 3, 0, 0)}, want: []string{"net.ipv4.conf.eth0.arp_announce = 3 makes VIPs on lo known on eth0: set it to 0"}},
		"the host's own address": {
			vips:  "192.0.2.1",
			state: kernel.RealServerState{Settings: fresh, Addresses: []kernel.HostAddress{on("eth0", "192.0.2.1")}},
			want:  []string{"192.0.2.1 is the host's own address on eth0: a VIP must be on no interface but lo"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, realserver.Obstacles(addrs(strings.Fields(tc.vips)...), tc.state)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	found := map[string]string{
		"ipv4/conf/all/arp_ignore": "0", "ipv4/conf/all/arp_announce": "0",
		"ipv4/conf/lo/arp_ignore": "0", "ipv4/conf/lo/arp_announce": "1",
	}
	vip := kernel.HostAddress{Addr: netip.MustParseAddr("192.0.2.1"), Link: "lo", Label: "lo:0"}
	const values = `  net.ipv4.conf.all.arp_ignore = 1 (found 0)
  net.ipv4.conf.all.arp_announce = 2 (found 0)
  net.ipv4.conf.lo.arp_ignore = 1 (found 0)
  net.ipv4.conf.lo.arp_announce = 2 (found 1)
`
	tests := map[string]struct {
		status       realserver.Status
		want         string
		wantComplete bool
	}{
		"nothing": {
			status: realserver.Status{State: kernel.RealServerState{Settings: quiet, Addresses: []kernel.HostAddress{vip}}},
			want:   "This host is not set up as a real server.\n",
		},
		"complete": {
			status: realserver.Status{
				VIPs: addrs("192.0.2.1"), Keeper: "process 7",
				State: kernel.RealServerState{Settings: quiet, Addresses: []kernel.HostAddress{vip}, Recorded: addrs("192.0.2.1"), Found: found},
			},
			want:         "This host is set up as a real server.\n  192.0.2.1 on lo:0\n" + values + "Kept so by process 7.\n",
			wantComplete: true,
		},
		"without its VIP": {
			status: realserver.Status{
				VIPs:  addrs("192.0.2.1"),
				State: kernel.RealServerState{Settings: quiet, Recorded: addrs("192.0.2.1"), Found: found},
			},
			want: "This host is set up as a real server, but something is wrong.\n" + values +
				"  wrong: 192.0.2.1: not on lo, should be on lo\nNo process keeps it so.\n",
		},
		"cut short": {
			status: realserver.Status{State: kernel.RealServerState{Settings: quiet, Found: found}},
			want:   "A set-up as a real server was cut short; realserver stop undoes it.\n" + values + "No process keeps it so.\n",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.status.String()); diff != "" {
				t.Error(diff)
			}
			if got := tc.status.Complete(); got != tc.wantComplete {
				t.Errorf("Complete() = %v", got)
			}
		})
	}
}

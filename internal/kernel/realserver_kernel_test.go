//go:build kernel

package kernel_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

// loAddresses maps addresses on lo to their labels.
func loAddresses(t *testing.T, ns *netlab.NS) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := ns.Links().AddrList(ns.Link("lo"), family)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			found[a.IPNet.String()] = a.Label
		}
	}
	return found
}

func arpSettings(ns *netlab.NS) map[string]string {
	values := map[string]string{}
	for _, name := range []string{
		"ipv4/conf/lo/arp_ignore", "ipv4/conf/all/arp_ignore", "ipv4/conf/lo/arp_announce", "ipv4/conf/all/arp_announce",
	} {
		values[name] = ns.Sysctl(name)
	}
	return values
}

func TestARealServerOnAHost(t *testing.T) {
	ns, dir := netlab.New(t), t.TempDir()
	ns.SetSysctl("ipv4/conf/all/arp_announce", "1")
	// Somebody has put one VIP there by hand, as lo:0.
	ns.LabelledAddress("lo", "192.0.2.201/32", "lo:0")
	found, before := arpSettings(ns), loAddresses(t, ns)

	server, err := kernel.NewRealServer(kernel.Options{NetNS: ns.Path(), StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // what it made is what counts
	steps := []struct {
		vips []string
		want map[string]string // besides what was there
	}{
		{[]string{vip4, vip6}, map[string]string{vip4 + "/32": "lo:1", vip6 + "/128": ""}},
		{[]string{vip4, vip6}, map[string]string{vip4 + "/32": "lo:1", vip6 + "/128": ""}},
		{[]string{"192.0.2.201", vip4, "192.0.2.202"}, map[string]string{vip4 + "/32": "lo:1", "192.0.2.202/32": "lo:2"}},
		{[]string{"192.0.2.202"}, map[string]string{"192.0.2.202/32": "lo:2"}},
	}
	for i, step := range steps {
		var vips []netip.Addr
		for _, v := range step.vips {
			vips = append(vips, netip.MustParseAddr(v))
		}
		if err := server.Prepare(t.Context(), vips); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, m := range []map[string]string{before, step.want} {
			for k, v := range m {
				want[k] = v
			}
		}
		if diff := cmp.Diff(want, loAddresses(t, ns)); diff != "" {
			t.Errorf("step %d: addresses on lo (-want +got):\n%s", i, diff)
		}
	}
	want := map[string]string{
		"ipv4/conf/lo/arp_ignore": "1", "ipv4/conf/all/arp_ignore": "1",
		"ipv4/conf/lo/arp_announce": "2", "ipv4/conf/all/arp_announce": "2",
	}
	if diff := cmp.Diff(want, arpSettings(ns)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}

	// Another process, which prepared nothing, cleans up.
	after, err := kernel.NewRealServer(kernel.Options{NetNS: ns.Path(), StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close() //nolint:errcheck // what it made is what counts
	for range 2 {
		if err := after.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(found, arpSettings(ns)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, loAddresses(t, ns)); diff != "" {
		t.Errorf("restored addresses (-before +got):\n%s", diff)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the record is left: %v, %v", entries, err)
	}
}

// The point of the settings: nobody but the director answers for the VIP.
func TestARealServerDoesNotAnswerForTheVIP(t *testing.T) {
	segment := netlab.NewSegment(t)
	client := segment.Host(client4+"/24", "2001:db8::10/64")
	host := segment.Host("192.0.2.21/24", "2001:db8::21/64")
	prepareServer(t, host)
	for _, vip := range []string{vip4, vip6} {
		if err := client.Silent(vip); err != nil {
			t.Error(err)
		}
	}
	// It does answer for its own, so that the check can fail.
	for _, addr := range []string{"192.0.2.21", "2001:db8::21"} {
		if err := client.Ping(addr); err != nil {
			t.Errorf("ping %s: %v", addr, err)
		}
	}
}

// The main thread of a process outlives its goroutines. In another namespace it
// would keep that one, and mislead whoever reads /proc/self.
func TestTheMainThreadStaysWhereItIs(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	server, err := kernel.NewRealServer(kernel.Options{NetNS: netlab.New(t).Path(), StateDir: t.TempDir(), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // it changes nothing
	for range 50 {
		var group errgroup.Group
		for range 8 {
			group.Go(func() error {
				_, err := server.Observe(t.Context())
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
		t.Errorf("the main thread went from %s to %s, %v", before, after, err)
	}
}

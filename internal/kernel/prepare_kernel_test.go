//go:build kernel

package kernel_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// node is a namespace with eth0 that goes nowhere.
func node(t *testing.T) *netlab.NS {
	t.Helper()
	ns := netlab.New(t)
	ns.Dummy("eth0")
	ns.Address("eth0", director4+"/24")
	return ns
}

var settings = []string{
	"ipv4/conf/eth0/arp_ignore", "ipv4/conf/eth0/arp_announce", "ipv4/conf/eth0/accept_local", "ipv4/conf/eth0/rp_filter",
	"ipv4/conf/all/arp_ignore", "ipv4/conf/all/arp_announce", "ipv4/conf/all/accept_local", "ipv4/conf/all/rp_filter",
	"ipv4/vs/expire_nodest_conn", "ipv4/vs/expire_quiescent_template", "ipv4/vs/conn_reuse_mode", "ipv4/vs/conntrack",
}

func read(ns *netlab.NS) map[string]string {
	values := map[string]string{}
	for _, name := range settings {
		values[name] = ns.Sysctl(name)
	}
	return values
}

func TestPrepareRecordsAndRestorePutsBack(t *testing.T) {
	ns := node(t)
	ns.SetSysctl("ipv4/conf/eth0/rp_filter", "1")
	ns.SetSysctl("ipv4/vs/conn_reuse_mode", "0")
	found, dir := read(ns), t.TempDir()
	host := read(hostNamespace(t))
	first := openAt(t, ns, dir)
	longer := guarded
	longer.Timeouts = netstate.Timeouts{TCP: 1000 * time.Second, UDP: 30 * time.Second}
	prepare(t, first, longer)
	bring(t, first, kerneltest.Parse(t, web4+"address 192.0.2.100 dev eth0\n"))

	want := map[string]string{
		"ipv4/conf/eth0/arp_ignore": "1", "ipv4/conf/eth0/arp_announce": "2", "ipv4/conf/eth0/accept_local": "1",
		"ipv4/conf/eth0/rp_filter": "2", "ipv4/vs/expire_nodest_conn": "1", "ipv4/vs/expire_quiescent_template": "1",
		"ipv4/vs/conn_reuse_mode": "2", "ipv4/vs/conntrack": "0",
		"ipv4/conf/all/arp_ignore": "0", "ipv4/conf/all/arp_announce": "0", "ipv4/conf/all/accept_local": "0",
		"ipv4/conf/all/rp_filter": found["ipv4/conf/all/rp_filter"],
	}
	if diff := cmp.Diff(want, read(ns)); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(host, read(hostNamespace(t))); diff != "" {
		t.Errorf("settings of another namespace changed (-before +after):\n%s", diff)
	}
	wantTimeouts(t, ns, ipvs.Config{TimeoutTCP: 1000 * time.Second, TimeoutTCPFin: 120 * time.Second, TimeoutUDP: 30 * time.Second})

	// A new process finds its own values and records nothing of them.
	second := openAt(t, ns, dir)
	prepare(t, second, longer)
	if err := second.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, read(ns)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
	wantTimeouts(t, ns, ipvs.Config{TimeoutTCP: 900 * time.Second, TimeoutTCPFin: 120 * time.Second, TimeoutUDP: 300 * time.Second})
	wantNothingLeft(t, ns, dir)
}

// hostNamespace is a second namespace that nobody prepares.
func hostNamespace(t *testing.T) *netlab.NS {
	t.Helper()
	return node(t)
}

func openAt(t *testing.T, ns *netlab.NS, dir string) *kernel.Client {
	t.Helper()
	client, err := kernel.New(kernel.Options{NetNS: ns.Path(), StateDir: dir, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func wantTimeouts(t *testing.T, ns *netlab.NS, want ipvs.Config) {
	t.Helper()
	got, err := rawIPVS(t, ns).GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("timeouts (-want +got):\n%s", diff)
	}
}

// rawIPVS speaks to IPVS as somebody else would.
func rawIPVS(t *testing.T, ns *netlab.NS) *ipvs.Handle {
	t.Helper()
	h, err := ipvs.New(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func wantNothingLeft(t *testing.T, ns *netlab.NS, dir string) {
	t.Helper()
	if _, err := ns.Links().LinkByName(netstate.DummyLink); err == nil {
		t.Error("the dummy device is left")
	}
	tables, err := dialNFT(t, ns).ListTables()
	if err != nil || len(tables) != 0 {
		t.Errorf("tables %v are left, %v", tables, err)
	}
	services, err := rawIPVS(t, ns).GetServices()
	if err != nil || len(services) != 0 {
		t.Errorf("services %v are left, %v", services, err)
	}
	if left := ns.LocalRoutes(netip.MustParseAddr(vip4)); len(left) != 0 {
		t.Errorf("routes %v are left", left)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the record is left: %v, %v", entries, err)
	}
}

func TestRestoreByAProcessThatPreparedNothing(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	before := openAt(t, ns, dir)
	if err := before.Restore(t.Context()); err != nil {
		t.Fatalf("Restore() of nothing = %v", err)
	}
	found := read(ns)
	prepare(t, before, guarded)
	bring(t, before, kerneltest.Parse(t, web4+"address 192.0.2.100 dev eth0\n"))
	if err := openAt(t, ns, dir).Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, read(ns)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
	wantNothingLeft(t, ns, dir)
	// Addresses that are not ours stay.
	addrs, err := ns.Links().AddrList(ns.Link("eth0"), unix.AF_INET)
	if err != nil || len(addrs) != 1 {
		t.Errorf("eth0 has %v, %v, want the node's address alone", addrs, err)
	}
}

func TestACrashBetweenRecordAndSettingIsHarmless(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	found := read(ns)
	// The record of a process that died before it set anything.
	text := `{"version":1,"interface":"eth0","settings":{` +
		`"ipv4/conf/eth0/arp_ignore":{"found":"0","ours":["1"]},"ipv4/vs/expire_nodest_conn":{"found":"0","ours":["1"]}}}`
	if err := os.WriteFile(filepath.Join(dir, "director-found.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client := openAt(t, ns, dir)
	prepare(t, client, guarded)
	if got := ns.Sysctl("ipv4/conf/eth0/arp_ignore"); got != "1" {
		t.Errorf("arp_ignore = %s, want 1", got)
	}
	if err := client.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(found, read(ns)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
}

func TestServicesOfOthersAreNeitherListedNorTouched(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	foreign := rawIPVS(t, ns)
	theirs := &ipvs.Service{
		Address: net.ParseIP("192.0.2.200").To4(), Protocol: unix.IPPROTO_TCP, Port: 80, SchedName: "rr",
		AddressFamily: unix.AF_INET, Netmask: 0xffffffff,
	}
	marked := &ipvs.Service{FWMark: 9, SchedName: "rr", AddressFamily: unix.AF_INET, Netmask: 0xffffffff}
	for _, s := range []*ipvs.Service{theirs, marked} {
		if err := foreign.NewService(s); err != nil {
			t.Fatal(err)
		}
		if err := foreign.NewDestination(s, &ipvs.Destination{
			Address: net.ParseIP("192.0.2.21").To4(), Port: 80, Weight: 1, ConnectionFlags: ipvs.ConnFwdDirectRoute,
			AddressFamily: unix.AF_INET,
		}); err != nil {
			t.Fatal(err)
		}
	}
	ns.Address("eth0", "192.0.2.200/32")

	client := openAt(t, ns, dir)
	prepare(t, client, guarded)
	bring(t, client, kerneltest.Parse(t, web4))
	keys, err := client.Keys(t.Context())
	if err != nil || len(keys) != 1 || keys[0].Addr != netip.MustParseAddr(vip4) {
		t.Errorf("Keys() = %v, %v", keys, err)
	}
	for _, key := range []netstate.Key{{Addr: netip.MustParseAddr("192.0.2.200")}, {Mark: 9}} {
		seen, err := client.Observe(t.Context(), key)
		if err != nil || len(seen.Keys()) != 0 {
			t.Errorf("Observe(%s) = %v, %v, want nothing", key, seen, err)
		}
	}
	if err := client.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	services, err := foreign.GetServices()
	if err != nil || len(services) != 2 {
		t.Fatalf("services of others: %v, %v", services, err)
	}
	for _, s := range services {
		if list, err := foreign.GetDestinations(s); err != nil || len(list) != 1 {
			t.Errorf("their destinations: %v, %v", list, err)
		}
	}
	if addrs, err := ns.Links().AddrList(ns.Link("eth0"), unix.AF_INET); err != nil || len(addrs) != 2 {
		t.Errorf("their addresses: %v, %v", addrs, err)
	}
}

func TestARestartAdoptsWhatIsThere(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	want := kerneltest.Parse(t, web4+"address 192.0.2.100 dev eth0\n")
	before := openAt(t, ns, dir)
	prepare(t, before, guarded)
	bring(t, before, want)

	after := openAt(t, ns, dir)
	holds(t, after, want) // even before Prepare
	keys, err := after.Keys(t.Context())
	if err != nil || len(keys) != 1 {
		t.Errorf("Keys() = %v, %v", keys, err)
	}
	holds(t, after, want)
	if ops := netstate.Diff(observe(t, after, keys[0]), want); len(ops) != 0 {
		t.Errorf("there is something to do: %v", ops)
	}
}

func observe(t *testing.T, k *kernel.Client, key netstate.Key) netstate.State {
	t.Helper()
	seen, err := k.Observe(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return seen.State
}

func TestDriftIsSeen(t *testing.T) {
	ns := node(t)
	client := openAt(t, ns, t.TempDir())
	want := kerneltest.Parse(t, web4)
	prepare(t, client, guarded)
	bring(t, client, want)
	other := rawIPVS(t, ns)
	service, err := other.GetServices()
	if err != nil || len(service) != 1 {
		t.Fatal(service, err)
	}
	// Without an audit: what we know of and is gone or changed.
	if err := other.DelDestination(service[0], &ipvs.Destination{
		Address: net.ParseIP("192.0.2.21").To4(), Port: 80, AddressFamily: unix.AF_INET,
	}); err != nil {
		t.Fatal(err)
	}
	got := observe(t, client, want.Keys()[0])
	if len(got.Destinations) != 1 {
		t.Errorf("destinations %v, want one", got.Destinations)
	}
	bring(t, client, want)
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := observe(t, client, want.Keys()[0]); len(got.Services)+len(got.Destinations) != 0 {
		t.Errorf("observed %v after a flush", got)
	}
	bring(t, client, want)
	holds(t, client, want)
	// With an audit: an address that is gone although its route is left, and a
	// service that somebody put on our VIP.
	vip := netip.MustParseAddr(vip4)
	leave := ns.LocalRoutes(vip)
	ns.DeleteAddress(netstate.DummyLink, vip4+"/32")
	putBack(t, ns, leave)
	extra := *service[0]
	extra.Port, extra.Flags = 81, 0
	if err := other.NewService(&extra); err != nil {
		t.Fatal(err)
	}
	bring(t, client, want)
	holds(t, client, want)
	if list, err := other.GetServices(); err != nil || len(list) != 2 {
		t.Errorf("services %v, %v: what is not on the dummy device was touched", list, err)
	}
	bring(t, client, want) // now it is there again, so all its services are ours
	if list, err := other.GetServices(); err != nil || len(list) != 1 {
		t.Errorf("services %v, %v, want the stray one gone", list, err)
	}
}

// putBack makes routes that are not there: newer kernels leave a local route
// behind when its address goes.
func putBack(t *testing.T, ns *netlab.NS, routes []netlink.Route) {
	t.Helper()
	if len(routes) == 0 {
		t.Fatal("there was no route")
	}
	for _, r := range routes {
		if err := ns.Links().RouteReplace(&r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARouteThatOutlivedItsAddressGoesWithTheVIP(t *testing.T) {
	ns := node(t)
	client := open(t, ns)
	prepare(t, client, guarded)
	bring(t, client, kerneltest.Parse(t, web4))
	vip := netip.MustParseAddr(vip4)
	routes := ns.LocalRoutes(vip)
	ns.DeleteAddress(netstate.DummyLink, vip4+"/32")
	putBack(t, ns, routes)
	apply(t, client, netstate.AddressChange{
		Verb: netstate.Del, Entry: netstate.AddressKey{Link: netstate.DummyLink, Addr: vip},
	})
	if left := ns.LocalRoutes(vip); len(left) != 0 {
		t.Errorf("local routes are left: %v", left)
	}
}

func TestFacts(t *testing.T) {
	l := newLab(t)
	l.director.Dummy("kube-ipvs0")
	l.director.Gateway("192.0.2.1")
	l.serve(guarded, web4)
	facts, err := l.kernel.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := kernel.Facts{
		Release: facts.Release, // checked below
		IPVS:    true,
		Schedulers: map[string]bool{
			"rr": true, "wrr": true, "lc": true, "wlc": true, "lblc": true, "lblcr": true, "sh": true, "dh": true,
			"mh": true, "sed": true, "nq": true, "fo": true, "ovf": true, "twos": false,
		},
		ConnectionTableSize: 4096,
		Addresses: []netip.Prefix{
			netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix(director4 + "/24"),
			netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("2001:db8::2/64"),
		},
		Gateways:      []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		KubeProxyIPVS: true,
	}
	// Link-local addresses are the kernel's own choice.
	var global []netip.Prefix
	for _, p := range facts.Addresses {
		if !p.Addr().IsLinkLocalUnicast() {
			global = append(global, p)
		}
	}
	facts.Addresses = global
	if diff := cmp.Diff(want, facts, sameAddr, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("Facts() (-want +got):\n%s", diff)
	}
	if facts.Release == "" {
		t.Error("no release")
	}
	services, err := rawIPVS(t, l.director).GetServices()
	if err != nil || len(services) != 1 {
		t.Errorf("services %v, %v: asking for schedulers left something", services, err)
	}
}

func TestEveryScheduler(t *testing.T) {
	ns := node(t)
	client := open(t, ns)
	prepare(t, client, guarded)
	facts, err := client.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, usable := range facts.Schedulers {
		op := netstate.ServiceChange{
			Verb:  netstate.Add,
			Entry: netstate.ServiceKey{Key: netstate.Key{Addr: netip.MustParseAddr(vip4)}, Protocol: netstate.SCTP, Port: 80},
			Value: netstate.Service{Scheduler: name, PersistencePrefix: 32},
		}
		err := client.Apply(t.Context(), op)
		var missing kernel.SchedulerUnavailable
		if usable && err != nil {
			t.Errorf("scheduler %s: %v", name, err)
		}
		if !usable && (!errors.As(err, &missing) || missing.Name != name) {
			t.Errorf("scheduler %s: %v, want SchedulerUnavailable", name, err)
		}
	}
}

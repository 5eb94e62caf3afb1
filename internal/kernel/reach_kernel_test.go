//go:build kernel

package kernel_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// reaching is a namespace with every kind of route.
func reaching(t *testing.T) *netlab.NS {
	t.Helper()
	ns := netlab.New(t)
	ns.SetSysctl("ipv6/conf/default/accept_dad", "0")
	ns.Dummy("eth0")
	ns.Address("eth0", director4+"/24")
	ns.Address("eth0", "2001:db8::2/64")
	ns.Dummy("veth-pod")
	onLink(t, ns, "veth-pod", pod4+"/32")
	onLink(t, ns, "veth-pod", pod6+"/128")
	add := func(dst string, route netlink.Route) {
		t.Helper()
		prefix, err := netlink.ParseIPNet(dst)
		if err != nil {
			t.Fatal(err)
		}
		route.Dst = prefix
		if err := ns.Links().RouteAdd(&route); err != nil {
			t.Fatalf("adding the route to %s: %v", dst, err)
		}
	}
	add("10.1.0.0/16", netlink.Route{Gw: net.ParseIP("192.0.2.1")})
	add("fd01::/32", netlink.Route{Gw: net.ParseIP("2001:db8::1")})
	add("10.2.0.0/16", netlink.Route{Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("2001:db8::1")}, LinkIndex: ns.Link("eth0").Attrs().Index})
	add("10.3.0.0/16", netlink.Route{Type: unix.RTN_UNREACHABLE})
	add("10.4.0.0/16", netlink.Route{Type: unix.RTN_BLACKHOLE})
	add("10.5.0.0/16", netlink.Route{Type: unix.RTN_PROHIBIT})
	add("fd03::/32", netlink.Route{Type: unix.RTN_UNREACHABLE, LinkIndex: ns.Link("lo").Attrs().Index})
	return ns
}

func TestReach(t *testing.T) {
	ns := reaching(t)
	client := open(t, ns)
	for addr, want := range map[string]kernel.Reach{
		"192.0.2.77":      {Link: "eth0"},
		"2001:db8::77":    {Link: "eth0"},
		pod4:              {Link: "veth-pod"},
		pod6:              {Link: "veth-pod"},
		"10.1.2.3":        {Link: "eth0", Gateway: netip.MustParseAddr("192.0.2.1")},
		"fd01::7":         {Link: "eth0", Gateway: netip.MustParseAddr("2001:db8::1")},
		"10.2.2.3":        {Link: "eth0", Gateway: netip.MustParseAddr("2001:db8::1")},
		director4:         {Link: "lo", Local: true},
		"2001:db8::2":     {Link: "lo", Local: true},
		"10.3.2.3":        {},
		"10.4.2.3":        {},
		"10.5.2.3":        {},
		"fd03::7":         {},
		"203.0.113.1":     {},
		"2001:db8:ffff::": {},
		"192.0.2.255":     {}, // broadcast
		"224.0.0.9":       {},
	} {
		got, err := client.Reach(t.Context(), netip.MustParseAddr(addr))
		if err != nil {
			t.Errorf("Reach(%s) = %v", addr, err)
		}
		if diff := cmp.Diff(want, got, sameAddr); diff != "" {
			t.Errorf("Reach(%s) (-want +got):\n%s", addr, diff)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := client.Reach(ended, netip.MustParseAddr(pod4)); !errors.Is(err, context.Canceled) {
		t.Errorf("Reach() after the end = %v", err)
	}
}

// A VIP of the node's own is local, which says nothing about its real servers.
func TestReachOfAVIP(t *testing.T) {
	l := newLab(t)
	l.serve(guarded, web4)
	got, err := l.kernel.Reach(t.Context(), netip.MustParseAddr(vip4))
	if want := (kernel.Reach{Link: netstate.DummyLink, Local: true}); err != nil || got != want && got != (kernel.Reach{Link: "lo", Local: true}) {
		t.Errorf("Reach() = %+v, %v, want %+v", got, err, want)
	}
}

func TestWatchRoutesTellsOfEveryChange(t *testing.T) {
	ns := reaching(t)
	client := open(t, ns)
	ctx, end := context.WithCancel(t.Context())
	changed, err := client.WatchRoutes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	links := ns.Links()
	prefix, _ := netlink.ParseIPNet("10.9.0.0/16")
	route := &netlink.Route{Dst: prefix, Gw: net.ParseIP("192.0.2.1")}
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Priority = unix.AF_INET, 100, 1000
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"a route", func() error { return links.RouteAdd(route) }},
		{"no route", func() error { return links.RouteDel(route) }},
		{"a rule", func() error { return links.RuleAdd(rule) }},
		{"an address", func() error { ns.Address("eth0", "192.0.2.3/24"); return nil }},
		{"an IPv6 address", func() error { ns.Address("eth0", "2001:db8::3/64"); return nil }},
		{"an interface", func() error { ns.Dummy("veth-other"); return nil }},
		{"an interface less", func() error { return links.LinkDel(ns.Link("veth-pod")) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		select {
		case _, open := <-changed:
			if !open {
				t.Fatalf("%s: the watch ended", step.name)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nobody noticed", step.name)
		}
		// One step may tell more than once.
		for quiet := false; !quiet; {
			select {
			case <-changed:
			case <-time.After(300 * time.Millisecond):
				quiet = true
			}
		}
	}
	end()
	for range changed {
	}
}

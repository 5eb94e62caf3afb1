//go:build kernel

package kernel_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// The pod's addresses.
const (
	pod4, pod6         = "10.244.0.5", "fd00:10:244::5"
	podGate4, podGate6 = "10.244.0.1", "fd00:10:244::1"
)

// podOn makes a pod of the director's own node, attached as the CNI plugin ptp
// does it: a veth pair, a route to the pod on the one side and to the gateway on
// the other. The pod has the VIPs and answers on port 80.
func (l *lab) podOn(link string) *netlab.NS {
	l.t.Helper()
	pod := netlab.New(l.t)
	for _, ns := range []*netlab.NS{pod, l.director} {
		ns.SetSysctl("ipv6/conf/default/accept_dad", "0")
	}
	l.director.SetSysctl("ipv4/ip_forward", "1")
	l.director.SetSysctl("ipv6/conf/all/forwarding", "1")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	if err := l.director.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(pod.FD())}); err != nil {
		l.t.Fatal(err)
	}
	l.director.Up(link)
	pod.Up("eth0")
	for _, of := range []struct{ pod, gate, bits string }{{pod4, podGate4, "/32"}, {pod6, podGate6, "/128"}} {
		l.director.Address(link, of.gate+of.bits)
		pod.Address("eth0", of.pod+of.bits)
		onLink(l.t, l.director, link, of.pod+of.bits)
		onLink(l.t, pod, "eth0", of.gate+of.bits)
		if err := pod.Links().RouteAdd(&netlink.Route{Gw: net.ParseIP(of.gate), LinkIndex: pod.Link("eth0").Attrs().Index}); err != nil {
			l.t.Fatal(err)
		}
	}
	prepareServer(l.t, pod)
	pod.ServeTCP("[::]:80", "pod")
	return pod
}

// onLink makes a route to what is reached without a gateway.
func onLink(t *testing.T, ns *netlab.NS, link, prefix string) {
	t.Helper()
	dst, err := netlink.ParseIPNet(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Links().RouteAdd(&netlink.Route{Dst: dst, LinkIndex: ns.Link(link).Attrs().Index, Scope: unix.RT_SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
}

const webPod = `
guard 192.0.2.100
guard TCP 192.0.2.100:80
guard 2001:db8::100
guard TCP [2001:db8::100]:80
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
address 2001:db8::100 dev dummy-lvs
service TCP 192.0.2.100:80 wrr
destination TCP 192.0.2.100:80 10.244.0.5:80 DR weight 1
service TCP [2001:db8::100]:80 wrr
destination TCP [2001:db8::100]:80 [fd00:10:244::5]:80 DR weight 1
`

// withPod is a guarded node with a pod behind an interface.
var withPod = netstate.Node{Interface: "eth0", Guard: true, Links: []string{"veth-pod", "veth-gone"}}

func TestAPodOfTheDirectorsOwnNodeAnswers(t *testing.T) {
	cases := map[string]struct {
		node         netstate.Node
		want4, want6 bool
	}{
		"with its interface":                 {withPod, true, true},
		"without: IPv4 takes it for martian": {guarded, false, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.podOn("veth-pod")
			l.director.SetSysctl("ipv4/conf/veth-pod/rp_filter", "1")
			l.serve(tc.node, webPod)
			dropped := dropInvalid(t, l.director)
			for address, want := range map[string]bool{vip4 + ":80": tc.want4, "[" + vip6 + "]:80": tc.want6} {
				if !want {
					if err := l.client.Refused("tcp", address); err != nil {
						t.Error(err)
					}
					continue
				}
				wantCounts(t, count(t, l.client, "tcp", address, 3), map[string]int{"pod": 3})
			}
			if tc.want4 {
				wantCounts(t, count(t, l.director, "tcp", vip4+":80", 3), map[string]int{"pod": 3})
			}
			if n := dropped(); n > 0 {
				t.Errorf("a firewall that drops INVALID dropped %d packets", n)
			}
		})
	}
}

func TestAPodCannotSpeakWithTheNodesAddresses(t *testing.T) {
	for name, tc := range map[string]struct {
		node       netstate.Node
		wantPassed bool
	}{
		"with the guard":    {withPod, false},
		"without the guard": {netstate.Node{Interface: "eth0", Links: withPod.Links}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			pod := l.podOn("veth-pod")
			l.serve(tc.node, web4)
			heard := l.director.ReceiveUDP(director4 + ":9")
			pod.SendUDP(l.director.MAC("veth-pod"), director4+":1000", director4+":9", "spoofed")
			pod.SendUDP(l.director.MAC("veth-pod"), pod4+":1000", director4+":9", "honest")
			if got := heard("honest"); (len(got) == 2) != tc.wantPassed {
				t.Errorf("the director heard %q, want the spoofed one among it: %t", got, tc.wantPassed)
			}
		})
	}
}

func TestInterfacesOfPodsArePutBackWhenTheyAreNotListed(t *testing.T) {
	ns, dir := node(t), t.TempDir()
	for _, link := range []string{"veth-a", "veth-b"} {
		ns.Dummy(link)
		ns.SetSysctl("ipv4/conf/"+link+"/rp_filter", "1")
	}
	values := func() map[string]string {
		all := map[string]string{}
		for _, name := range []string{"veth-a/accept_local", "veth-a/rp_filter", "veth-b/accept_local", "veth-b/rp_filter"} {
			all[name] = ns.Sysctl("ipv4/conf/" + name)
		}
		return all
	}
	prepared := func(links ...string) netstate.Node {
		return netstate.Node{Interface: "eth0", Guard: true, Links: links}
	}
	check := func(a, b string) {
		t.Helper()
		want := map[string]string{"veth-a/accept_local": "0", "veth-a/rp_filter": "1", "veth-b/accept_local": "0", "veth-b/rp_filter": "1"}
		if a != "" {
			want["veth-a/accept_local"], want["veth-a/rp_filter"] = "1", "2"
		}
		if b != "" {
			want["veth-b/accept_local"], want["veth-b/rp_filter"] = "1", "2"
		}
		if diff := cmp.Diff(want, values()); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
	}
	found := read(ns)
	client := openAt(t, ns, dir)
	prepare(t, client, prepared("veth-a", "veth-b", "veth-gone"))
	check("prepared", "prepared")
	// A process that knows nothing but the record puts back what is not listed.
	client = openAt(t, ns, dir)
	prepare(t, client, prepared("veth-b"))
	check("", "prepared")
	prepare(t, client, prepared("veth-a", "veth-b"))
	check("prepared", "prepared")
	// One that is gone, and another of its name.
	if err := ns.Links().LinkDel(ns.Link("veth-b")); err != nil {
		t.Fatal(err)
	}
	prepare(t, client, prepared("veth-a", "veth-b"))
	ns.Dummy("veth-b")
	ns.SetSysctl("ipv4/conf/veth-b/rp_filter", "1")
	prepare(t, client, prepared("veth-a"))
	check("prepared", "")
	if err := client.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("", "")
	if diff := cmp.Diff(found, read(ns)); diff != "" {
		t.Errorf("restored settings (-found +got):\n%s", diff)
	}
	wantNothingLeft(t, ns, dir)
}

// A client of UDP has no connection that ends: the entry that ties it to a server
// lives on after the server was taken out, unless it is told to go.
func TestAClientOfUDPMovesWhenItsServerIsTakenOut(t *testing.T) {
	l := newLab(t)
	service := vip4 + ":53"
	for i, s := range l.servers {
		s.ServeUDP(service, []string{"s1", "s2"}[i])
	}
	want := l.serve(guarded, `
guard 192.0.2.100
guard UDP 192.0.2.100:53
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
service UDP 192.0.2.100:53 rr
destination UDP 192.0.2.100:53 192.0.2.21:53 DR weight 1
destination UDP 192.0.2.100:53 192.0.2.22:53 DR weight 1
`)
	ask := asker(t, l.client, service)
	takeOut := func(name string) {
		t.Helper()
		addr := map[string]string{"s1": "192.0.2.21", "s2": "192.0.2.22"}[name]
		for k := range want.Destinations {
			if k.Addr == netip.MustParseAddr(addr) {
				apply(t, l.kernel, netstate.DestinationChange{Verb: netstate.Del, Entry: k})
				return
			}
		}
		t.Fatalf("no destination %s", name)
	}
	first := ask(10)
	for range 3 {
		if again := ask(10); again != first {
			t.Fatalf("the client went from %q to %q for no reason", first, again)
		}
	}
	takeOut(first)
	// The datagram that finds the server gone may be lost.
	if next := ask(3); next == first || next == "" {
		t.Errorf("the client of %s is answered by %q after it was taken out", first, next)
	}

	// Without the setting it stays with a server that is not there.
	bring(t, l.kernel, want)
	l.director.SetSysctl("ipv4/vs/expire_nodest_conn", "0")
	ask = asker(t, l.client, service)
	takeOut(ask(10))
	if next := ask(3); next != "" {
		t.Errorf("without the setting the client is answered by %q: the test shows nothing", next)
	}
}

// asker asks over UDP from one port, so many times at most, and returns the
// first answer, or nothing.
func asker(t *testing.T, ns *netlab.NS, address string) func(times int) string {
	t.Helper()
	var conn net.Conn
	if err := ns.Do(func() error {
		var err error
		conn, err = net.Dial("udp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(times int) string {
		buf := make([]byte, 64)
		for range times {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := conn.Write([]byte("?")); err != nil {
				continue
			}
			if size, err := conn.Read(buf); err == nil {
				return string(buf[:size])
			}
		}
		return ""
	}
}

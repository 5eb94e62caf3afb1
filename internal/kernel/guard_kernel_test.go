//go:build kernel

package kernel_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestHostPortsDoNotAnswerOnTheVIP(t *testing.T) {
	cases := map[string]struct {
		node        netstate.Node
		wantRefused bool
	}{
		"with the guard":    {guarded, true},
		"without the guard": {unguarded, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.serve(tc.node, web4)
			l.director.ServeTCP("[::]:8080", "host port")
			l.director.ServeUDP(vip4+":5353", "host port")
			for _, network := range []string{"tcp", "udp"} {
				address := map[string]string{"tcp": vip4 + ":8080", "udp": vip4 + ":5353"}[network]
				if err := l.client.Refused(network, address); (err == nil) != tc.wantRefused {
					t.Errorf("%s is refused: %v, want %t", address, err == nil, tc.wantRefused)
				}
			}
			wantCounts(t, count(t, l.client, "tcp", director4+":8080", 1), map[string]int{"host port": 1})
			wantCounts(t, count(t, l.client, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})
			if err := l.client.Ping(vip4); err != nil {
				t.Errorf("ping: %v", err)
			}
		})
	}
}

// stealer writes rules as kube-proxy does for a NodePort (or a CNI for a host
// port): in the nat prerouting chain, whatever is for a local address on port 80
// is redirected to 30080.
func stealer(t *testing.T, ns *netlab.NS) {
	t.Helper()
	conn := dialNFT(t, ns)
	table := conn.AddTable(&nftables.Table{Name: "proxy", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "prerouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	output := conn.AddChain(&nftables.Chain{
		Table: table, Name: "output", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for _, c := range []*nftables.Chain{chain, output} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: c, Exprs: []expr.Any{
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(80)},
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(30080)},
			&expr.Redir{RegisterProtoMin: 1, RegisterProtoMax: 1, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED},
		}})
	}
	flush(t, conn)
	ns.ServeTCP("[::]:30080", "node port")
}

func dialNFT(t *testing.T, ns *netlab.NS) *nftables.Conn {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func flush(t *testing.T, conn *nftables.Conn) {
	t.Helper()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestDNATOfOthersDoesNotStealAService(t *testing.T) {
	cases := map[string]struct {
		node netstate.Node
		want map[string]int
	}{
		"with the guard":    {guarded, map[string]int{"s1": 2, "s2": 4}},
		"without the guard": {unguarded, map[string]int{"node port": 6}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			stealer(t, l.director)
			l.serve(tc.node, web4)
			wantCounts(t, count(t, l.client, "tcp", vip4+":80", 6), tc.want)
			wantCounts(t, count(t, l.director, "tcp", vip4+":80", 6), tc.want)
			// What others want for their own addresses they get.
			wantCounts(t, count(t, l.client, "tcp", director4+":80", 1), map[string]int{"node port": 1})
		})
	}
}

// dropInvalid makes a firewall that drops what connection tracking calls
// INVALID, and returns the number of packets that it dropped.
func dropInvalid(t *testing.T, ns *netlab.NS) func() uint64 {
	t.Helper()
	conn := dialNFT(t, ns)
	table := conn.AddTable(&nftables.Table{Name: "firewall", Family: nftables.TableFamilyINet})
	for name, hook := range map[string]*nftables.ChainHook{
		"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward, "output": nftables.ChainHookOutput,
	} {
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	flush(t, conn)
	return func() uint64 {
		total := uint64(0)
		for _, name := range []string{"input", "forward", "output"} {
			rules, err := conn.GetRules(table, &nftables.Chain{Table: table, Name: name})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rules {
				for _, e := range r.Exprs {
					if c, ok := e.(*expr.Counter); ok {
						total += c.Packets
					}
				}
			}
		}
		return total
	}
}

func TestAFirewallThatDropsInvalidDoesNoHarm(t *testing.T) {
	cases := map[string]struct {
		node    netstate.Node
		wantAny bool
	}{
		"with the guard":    {guarded, false},
		"without the guard": {unguarded, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.serve(tc.node, web4)
			dropped := dropInvalid(t, l.director)
			// Requests go through even then: what is dropped ends connections.
			wantCounts(t, count(t, l.client, "tcp", vip4+":80", 6), map[string]int{"s1": 2, "s2": 4})
			if tc.node.Guard {
				wantCounts(t, count(t, l.director, "tcp", vip4+":80", 6), map[string]int{"s1": 2, "s2": 4})
			}
			if n := dropped(); (n > 0) != tc.wantAny {
				t.Errorf("the firewall dropped %d packets, want any: %t", n, tc.wantAny)
			}
		})
	}
}

func TestTheSegmentCannotSpeakWithTheNodesAddresses(t *testing.T) {
	cases := map[string]struct {
		node       netstate.Node
		wantPassed bool
	}{
		"with the guard":    {guarded, false},
		"without the guard": {unguarded, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.serve(tc.node, web4)
			heard := l.director.ReceiveUDP(director4 + ":9")
			l.client.SendUDP(l.director.MAC("eth0"), director4+":1000", director4+":9", "spoofed")
			l.client.SendUDP(l.director.MAC("eth0"), client4+":1000", director4+":9", "honest")
			// Frames of one sender keep their order, so that the honest one ends the wait.
			got := heard("honest")
			if passed := len(got) == 2; passed != tc.wantPassed {
				t.Errorf("the director heard %q, want the spoofed one among it: %t", got, tc.wantPassed)
			}
		})
	}
}

func TestTheGuardIsRepairedAfterAFlush(t *testing.T) {
	l := newLab(t)
	want := l.serve(guarded, web4)
	l.director.ServeTCP("[::]:8080", "host port")
	gone, err := l.kernel.WatchGuard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := dialNFT(t, l.director)
	conn.FlushRuleset()
	flush(t, conn)
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed that the guard is gone")
	}
	wantCounts(t, count(t, l.client, "tcp", vip4+":8080", 1), map[string]int{"host port": 1})

	// It is whole before the audit.
	prepare(t, l.kernel, guarded)
	if err := l.client.Refused("tcp", vip4+":8080"); err != nil {
		t.Error(err)
	}
	wantCounts(t, count(t, l.client, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})
	bring(t, l.kernel, want)
	holds(t, l.kernel, want)
	if err := l.client.Refused("tcp", vip4+":8080"); err != nil {
		t.Error(err)
	}
	wantCounts(t, count(t, l.client, "tcp", vip4+":80", 3), map[string]int{"s1": 1, "s2": 2})

	// An entry that comes before the next audit brings the guard with it.
	conn.FlushRuleset()
	flush(t, conn)
	apply(t, l.kernel, netstate.Diff(netstate.New(), want)...)
	holds(t, l.kernel, want)
}

func TestAGuardOfThousandsOfEntriesIsMadeAtOnce(t *testing.T) {
	// More than fit an attribute (64 KiB), or a socket's buffer as it is.
	const services = 6000
	l := newLab(t)
	l.serve(unguarded, "address 2001:db8::100 dev dummy-lvs\n")
	table, err := ipvs.New(l.director.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for i := range uint16(services) {
		if err := table.NewService(&ipvs.Service{
			AddressFamily: unix.AF_INET6, Address: net.ParseIP(vip6), Netmask: 128,
			Protocol: unix.IPPROTO_TCP, Port: i + 1, SchedName: "rr",
		}); err != nil {
			t.Fatal(err)
		}
	}
	prepare(t, l.kernel, guarded)
	guard := &nftables.Table{Name: "lvs-operator", Family: nftables.TableFamilyINet}
	set, err := dialNFT(t, l.director).GetSetByName(guard, "services6")
	if err != nil {
		t.Fatal(err)
	}
	elements, err := dialNFT(t, l.director).GetSetElements(set)
	if err != nil {
		t.Fatal(err)
	}
	if len(elements) != services {
		t.Errorf("the guard has %d services, want %d", len(elements), services)
	}
}

func TestTheGuardIsLeftAloneWhileItIsRight(t *testing.T) {
	l := newLab(t)
	l.serve(guarded, web4)
	rules := func() []uint64 {
		conn := dialNFT(t, l.director)
		table := &nftables.Table{Name: "lvs-operator", Family: nftables.TableFamilyINet}
		rules, err := conn.GetRules(table, &nftables.Chain{Table: table, Name: "prerouting"})
		if err != nil {
			t.Fatal(err)
		}
		var handles []uint64
		for _, r := range rules {
			handles = append(handles, r.Handle)
		}
		return handles
	}
	before := rules()
	prepare(t, l.kernel, guarded)
	if after := rules(); len(before) == 0 || before[0] != after[0] {
		t.Errorf("rules %v became %v: they were replaced", before, after)
	}
	// A rule that somebody took out is put back, and entries stay.
	conn := dialNFT(t, l.director)
	table := &nftables.Table{Name: "lvs-operator", Family: nftables.TableFamilyINet}
	conn.FlushChain(&nftables.Chain{Table: table, Name: "output"})
	flush(t, conn)
	want := l.serve(guarded, web4)
	if after := rules(); before[0] == after[0] {
		t.Error("the rules were not replaced")
	}
	holds(t, l.kernel, want)
}

func TestAnIPv6GuardDropsWhatIsNoService(t *testing.T) {
	l := newLab(t)
	l.serve(guarded, "guard 2001:db8::100\naddress 2001:db8::100 dev dummy-lvs\n")
	l.director.ServeTCP("[::]:8080", "host port")
	if err := l.client.Refused("tcp", "[2001:db8::100]:8080"); err != nil {
		t.Error(err)
	}
	wantCounts(t, count(t, l.client, "tcp", "[2001:db8::2]:8080", 1), map[string]int{"host port": 1})
	apply(t, l.kernel, netstate.GuardChange{
		Verb: netstate.Del, Entry: netstate.GuardKey{VIP: netip.MustParseAddr(vip6)},
	})
	wantCounts(t, count(t, l.client, "tcp", "[2001:db8::100]:8080", 1), map[string]int{"host port": 1})
}

func TestLaterFragmentsPass(t *testing.T) {
	cases := map[string]struct{ vip, server string }{
		"IPv4": {vip4, "192.0.2.21"},
		"IPv6": {vip6, "2001:db8::21"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			service := netip.AddrPortFrom(netip.MustParseAddr(tc.vip), 53).String()
			server := netip.AddrPortFrom(netip.MustParseAddr(tc.server), 53).String()
			l.servers[0].ServeUDP(service, "s1")
			l.serve(guarded, "guard "+tc.vip+"\nguard UDP "+service+"\naddress "+tc.vip+" dev dummy-lvs\n"+
				"service UDP "+service+" rr\ndestination UDP "+service+" "+server+" DR weight 1\n")
			// 4000 bytes come in three fragments; no connection tracking puts them
			// together here before the guard sees them.
			if answer, err := l.client.AskLong(service, 4000); err != nil || answer != "s1" {
				t.Errorf("the answer is %q, %v", answer, err)
			}
		})
	}
}

//go:build kernel

package kernel_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// twins are two directors that are the real servers of their own VIPs: both have
// all services, and answer with d1 and d2.
type twins struct {
	t       *testing.T
	client  *netlab.NS
	hosts   [2]*netlab.NS
	kernels [2]*kernel.Client
}

func newTwins(t *testing.T) *twins {
	t.Helper()
	segment := netlab.NewSegment(t)
	w := &twins{t: t, client: segment.Host(client4+"/24", "192.0.2.11/24", "2001:db8::10/64")}
	for i := range w.hosts {
		w.hosts[i] = segment.Host(fmt.Sprintf("192.0.2.%d/24", i+2), fmt.Sprintf("2001:db8::%d/64", i+2))
		w.hosts[i].ServeTCP("[::]:80", fmt.Sprintf("d%d", i+1))
		w.hosts[i].ServeEcho("[::]:7")
		w.kernels[i] = open(t, w.hosts[i])
		prepare(t, w.kernels[i], guarded)
	}
	for i, k := range w.kernels {
		if err := k.SetDirectors(t.Context(), []net.HardwareAddr{w.hosts[1-i].MAC("eth0")}); err != nil {
			t.Fatal(err)
		}
	}
	w.activate(0, vip4, vip6)
	return w
}

// activate makes the client send to a director from now on.
func (w *twins) activate(i int, vips ...string) {
	for _, vip := range vips {
		w.client.Neighbor("eth0", vip, w.hosts[i].MAC("eth0"))
	}
}

// twinServices are the services of both families; each %[2]s of a line is "marked "
// or nothing.
const twinServices = `
guard 192.0.2.100
guard TCP 192.0.2.100:80
guard TCP 192.0.2.100:7
address 192.0.2.100 dev dummy-lvs src 192.0.2.%[1]d
service %[2]sTCP 192.0.2.100:80 rr
destination %[2]sTCP 192.0.2.100:80 192.0.2.2:80 DR weight 1
destination %[2]sTCP 192.0.2.100:80 192.0.2.3:80 DR weight 1
service %[2]sTCP 192.0.2.100:7 rr
destination %[2]sTCP 192.0.2.100:7 192.0.2.2:7 DR weight 1
destination %[2]sTCP 192.0.2.100:7 192.0.2.3:7 DR weight 1
guard 2001:db8::100
guard TCP [2001:db8::100]:80
guard TCP [2001:db8::100]:7
address 2001:db8::100 dev dummy-lvs
service %[2]sTCP [2001:db8::100]:80 rr
destination %[2]sTCP [2001:db8::100]:80 [2001:db8::2]:80 DR weight 1
destination %[2]sTCP [2001:db8::100]:80 [2001:db8::3]:80 DR weight 1
service %[2]sTCP [2001:db8::100]:7 rr
destination %[2]sTCP [2001:db8::100]:7 [2001:db8::2]:7 DR weight 1
destination %[2]sTCP [2001:db8::100]:7 [2001:db8::3]:7 DR weight 1
`

const twinMarks = `
guard marked TCP 192.0.2.100:80
guard marked TCP 192.0.2.100:7
guard marked TCP [2001:db8::100]:80
guard marked TCP [2001:db8::100]:7
`

// state is what the director i is to hold.
func (w *twins) state(i int, marked string) netstate.State {
	w.t.Helper()
	text := fmt.Sprintf(twinServices, i+2, marked)
	if marked != "" {
		text += twinMarks
	}
	return kerneltest.Parse(w.t, text)
}

func (w *twins) serve(marked string) {
	w.t.Helper()
	for i, k := range w.kernels {
		bring(w.t, k, w.state(i, marked))
		holds(w.t, k, w.state(i, marked))
	}
}

// sniff counts the frames for port 80 that a director gets and that have a given
// source.
func (w *twins) sniff(on int, from net.HardwareAddr) func() int {
	w.t.Helper()
	mac := w.hosts[on].MAC("eth0")
	return w.hosts[on].Sniff("eth0", func(frame []byte) bool {
		offset := 14 + 20 // without options
		if len(frame) > 14 && frame[12] == 0x86 {
			offset = 14 + 40
		}
		return len(frame) >= offset+4 && bytes.Equal(frame[:6], mac) && bytes.Equal(frame[6:12], from) &&
			frame[offset+2] == 0 && frame[offset+3] == 80
	})
}

// families are the services on port 80.
var families = map[string]string{"IPv4": vip4 + ":80", "IPv6": "[" + vip6 + "]:80"}

func TestDirectorsThatAreRealServersLoopWithoutMarks(t *testing.T) {
	for name, address := range families {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			w.serve("")
			// The second director's turn is another than the first's from now on.
			w.activate(1, vip4, vip6)
			_, _ = w.client.Ask("tcp", "", address)
			w.activate(0, vip4, vip6)
			frames := w.sniff(1, w.hosts[0].MAC("eth0"))
			lost := 0
			for range 2 {
				if w.client.Refused("tcp", address) == nil {
					lost++
				}
			}
			if got := frames(); lost == 0 || got < 10 {
				t.Errorf("%d of 2 requests are lost, and %d frames go round: the loop that marks are for is not there", lost, got)
			}
		})
	}
}

func TestDirectorsServeTheirOwnMarkedServices(t *testing.T) {
	for name, address := range families {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			w.serve("marked ")
			w.answer(address)
			// Nothing of it is the agents' work.
			for _, k := range w.kernels {
				if err := k.Close(); err != nil {
					t.Fatal(err)
				}
			}
			w.answer(address)
		})
	}
}

// answer asks through each of the directors: both serve, and neither gets back
// what it has sent.
func (w *twins) answer(address string) {
	w.t.Helper()
	for i := range w.hosts {
		w.activate(i, vip4, vip6)
		back := w.sniff(i, w.hosts[1-i].MAC("eth0"))
		wantCounts(w.t, count(w.t, w.client, "tcp", address, 4), map[string]int{"d1": 2, "d2": 2})
		if got := back(); got != 0 {
			w.t.Errorf("director %d gets %d frames back", i+1, got)
		}
	}
	w.activate(0, vip4, vip6)
}

func TestVIPsOfDifferentDirectorsServeAtOnce(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	w.activate(0, vip4)
	w.activate(1, vip6)
	for range 4 {
		for _, address := range families {
			if _, err := w.client.Ask("tcp", "", address); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestADirectorsOwnProcessesReachMarkedServices(t *testing.T) {
	for name, address := range families {
		if name == "IPv6" {
			continue // A process has to bind the node's address there, marks or not.
		}
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			w.serve("marked ")
			for _, host := range w.hosts {
				wantCounts(t, count(t, host, "tcp", address, 4), map[string]int{"d1": 2, "d2": 2})
			}
		})
	}
}

// TestConnectionsToALocalServerOutliveTheRelay has a relay that would take what IPVS
// leaves for this node for what it does not know.
func TestConnectionsToALocalServerOutliveTheRelay(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	for i, k := range w.kernels {
		setRelay(t, k, kernel.Relay{
			Interface: "eth0",
			To:        map[netip.Addr]netip.Addr{netip.MustParseAddr(vip4): netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 3-i))},
			Directors: []net.HardwareAddr{w.hosts[1-i].MAC("eth0")},
		})
	}
	for range 4 {
		conn := w.client.Connect("tcp", vip4+":7")
		for range 3 {
			if got := conn.Echo("hello"); got != "hello" {
				t.Fatalf("the connection says %q", got)
			}
		}
	}
}

func TestNobodySeesTheMarksOfPacketsThatAreSentOn(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	counts := [2]func() (all, marked uint64){}
	for i, host := range w.hosts {
		counts[i] = countMarked(t, host)
	}
	w.answer(families["IPv4"])
	w.answer(families["IPv6"])
	for i := range w.hosts {
		all, marked := counts[i]()
		if all == 0 || marked != 0 {
			t.Errorf("director %d sends %d packets, %d of them with a mark", i+1, all, marked)
		}
	}
}

// countMarked counts what a host sends for port 80, and what of it has a mark.
func countMarked(t *testing.T, ns *netlab.NS) func() (all, marked uint64) {
	t.Helper()
	conn := dialNFT(t, ns)
	table := conn.AddTable(&nftables.Table{Name: "counts", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "output", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw,
	})
	port := []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(80)},
	}
	mark := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(slices.Clone(port), &expr.Counter{})})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(append(slices.Clone(port), mark...), &expr.Counter{})})
	flush(t, conn)
	return func() (uint64, uint64) {
		rules, err := conn.GetRules(table, chain)
		if err != nil {
			t.Fatal(err)
		}
		var counts []uint64
		for _, r := range rules {
			for _, e := range r.Exprs {
				if c, ok := e.(*expr.Counter); ok {
					counts = append(counts, c.Packets)
				}
			}
		}
		return counts[0], counts[1]
	}
}

func TestMarksAreRepairedWithTheGuard(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	for i, host := range w.hosts {
		conn := dialNFT(t, host)
		conn.FlushRuleset()
		flush(t, conn)
		// The guard is whole before the audit.
		prepare(t, w.kernels[i], guarded)
		holds(t, w.kernels[i], w.state(i, "marked "))
	}
	w.answer(families["IPv4"])
	w.answer(families["IPv6"])
}

func TestTheNextProcessFindsMarkedServices(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	for i, host := range w.hosts {
		next := open(t, host)
		prepare(t, next, guarded)
		w.answer(families["IPv4"])
		if _, err := next.Keys(t.Context()); err != nil {
			t.Fatal(err)
		}
		holds(t, next, w.state(i, "marked "))
		if err := next.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, key := range w.state(i, "").Keys() {
			if got, err := w.kernels[i].Observe(t.Context(), key); err != nil || len(got.Services) > 0 {
				t.Errorf("the kernel holds %v of %s, %v", got.Services, key, err)
			}
		}
		prepare(t, w.kernels[i], guarded)
		bring(t, w.kernels[i], w.state(i, "marked "))
	}
}

func TestRestoreFindsMarkedServicesThatTheGuardWasNotToldOf(t *testing.T) {
	w := newTwins(t)
	table, err := ipvs.New(w.hosts[0].Path())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	for _, mark := range []uint32{0x4c000007, 7} {
		for _, family := range []uint16{unix.AF_INET, unix.AF_INET6} {
			if err := table.NewService(&ipvs.Service{AddressFamily: family, FWMark: mark, Netmask: 128, SchedName: "rr"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.kernels[0].Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	services, err := table.GetServices()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if s.FWMark != 7 {
			t.Errorf("a service of mark %#x is left", s.FWMark)
		}
	}
	if len(services) != 2 {
		t.Errorf("%d services are left, want the two that are somebody else's", len(services))
	}
}

// TestServicesWithOneFirstMarkAreApart has ports whose hash is the same.
func TestServicesWithOneFirstMarkAreApart(t *testing.T) {
	a, b := collision(t)
	w := newTwins(t)
	var text strings.Builder
	text.WriteString("guard 192.0.2.100\naddress 192.0.2.100 dev dummy-lvs src 192.0.2.2\n")
	for i, port := range []uint16{a, b} {
		w.hosts[0].ServeTCP(fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf("p%d", i))
		fmt.Fprintf(&text, "guard TCP 192.0.2.100:%[1]d\nguard marked TCP 192.0.2.100:%[1]d\nservice marked TCP 192.0.2.100:%[1]d %[2]s\n"+
			"destination marked TCP 192.0.2.100:%[1]d 192.0.2.2:%[1]d DR weight 1\n", port, []string{"rr", "wrr"}[i])
	}
	want := kerneltest.Parse(t, text.String())
	bring(t, w.kernels[0], want)
	holds(t, w.kernels[0], want)
	for i, port := range []uint16{a, b} {
		wantCounts(t, count(t, w.client, "tcp", fmt.Sprintf("%s:%d", vip4, port), 1), map[string]int{fmt.Sprintf("p%d", i): 1})
	}
	next := open(t, w.hosts[0])
	prepare(t, next, guarded)
	holds(t, next, want)
}

// collision finds two ports of the VIP that have the same first mark.
func collision(t *testing.T) (a, b uint16) {
	t.Helper()
	seen := map[uint32]uint16{}
	for port := range uint16(65535) {
		mark := kernel.FirstMark(netip.MustParseAddr(vip4), netstate.TCP, port+1)
		if other, again := seen[mark]; again {
			return other, port + 1
		}
		seen[mark] = port + 1
	}
	t.Fatal("no two ports have the same mark")
	return 0, 0
}

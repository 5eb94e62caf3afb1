//go:build kernel

package kernel_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// sloppily prepares a director whose TCP services are all mh.
var sloppily = netstate.Node{Interface: "eth0", Guard: true, Sloppy: &netstate.Sloppy{TCP: true}}

// reach brings the kernel to what is wanted as a director does, order and all.
func reach(t *testing.T, k *kernel.Client, want netstate.State) {
	t.Helper()
	for _, key := range want.Keys() {
		seen, err := k.Observe(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range seen.Diff(want.Of(key)) {
			apply(t, k, op)
		}
	}
}

// farm is a client, servers 192.0.2.21 and up, and directors that each have a
// history.
type farm struct {
	t       *testing.T
	segment *netlab.Segment
	client  *netlab.NS
	servers []*netlab.NS
}

func newFarm(t *testing.T, servers int) *farm {
	f := &farm{t: t, segment: netlab.NewSegment(t)}
	f.client = f.segment.Host(client4+"/24", "2001:db8::10/64")
	for i := range servers {
		s := f.segment.Host(fmt.Sprintf("192.0.2.2%d/24", i+1), fmt.Sprintf("2001:db8::2%d/64", i+1))
		prepareServer(t, s)
		f.servers = append(f.servers, s)
	}
	return f
}

// director makes one, with the last byte of its address, that goes through
// all of history.
func (f *farm) director(last int, node netstate.Node, history ...string) (*netlab.NS, *kernel.Client) {
	f.t.Helper()
	ns := f.segment.Host(fmt.Sprintf("192.0.2.%d/24", last), fmt.Sprintf("2001:db8::%d/64", last))
	k := open(f.t, ns)
	prepare(f.t, k, node)
	for _, text := range history {
		reach(f.t, k, kerneltest.Parse(f.t, text))
	}
	return ns, k
}

// through makes the client send to a director from now on.
func (f *farm) through(director *netlab.NS) {
	f.client.Neighbor("eth0", vip4, director.MAC("eth0"))
	f.client.Neighbor("eth0", vip6, director.MAC("eth0"))
}

const flows = 3000

// servers4 is a service of UDP flows by mh and port, with servers "LAST weight N". It
// remembers no flow, so that each datagram tells of the table.
func servers4(servers ...string) string {
	text := "guard 192.0.2.100\nguard UDP 192.0.2.100:53\naddress 192.0.2.100 dev dummy-lvs\nservice UDP 192.0.2.100:53 mh flags 0x18 one-packet\n"
	for _, s := range servers {
		last, weight, _ := strings.Cut(s, " ")
		text += fmt.Sprintf("destination UDP 192.0.2.100:53 192.0.2.%s:53 DR %s\n", last, weight)
	}
	return text
}

// arrival is a datagram that came to a server.
type arrival struct {
	server int
	id     string
}

// receive hands on what comes to the servers' port 53, until the test ends.
func (f *farm) receive() <-chan arrival {
	f.t.Helper()
	arrivals := make(chan arrival, flows)
	for i, s := range f.servers {
		var conn net.PacketConn
		if err := s.Do(func() (err error) { conn, err = net.ListenPacket("udp", "0.0.0.0:53"); return err }); err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { _ = conn.Close() })
		go func() {
			for buf := make([]byte, 64); ; {
				size, _, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				arrivals <- arrival{i, string(buf[:size])}
			}
		}()
	}
	return arrivals
}

// hashed sends flows through a director and returns which server each went to.
func (f *farm) hashed(director *netlab.NS, arrivals <-chan arrival) map[string]int {
	f.t.Helper()
	f.through(director)
	to := map[string]int{}
	deadline := time.After(patience)
	for i := range flows {
		id := fmt.Sprint(20000 + i)
		if err := f.client.Do(func() error {
			dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(client4 + ":" + id))}
			conn, err := dialer.Dial("udp", vip4+":53")
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // it was only written to
			_, err = conn.Write([]byte(id))
			return err
		}); err != nil {
			f.t.Fatal(err)
		}
		select {
		case a := <-arrivals:
			to[a.id] = a.server
		case <-deadline:
			f.t.Fatalf("%d of %d flows came to a server", len(to), flows)
		}
	}
	return to
}

func differ(a, b map[string]int) int {
	n := 0
	for id, server := range a {
		if b[id] != server {
			n++
		}
	}
	return n
}

func TestDirectorsOfDifferentHistoriesHashAlike(t *testing.T) {
	f := newFarm(t, 5)
	now := servers4("21 weight 1", "22 weight 3", "23 weight 2", "24 weight 0 last 2", "25 weight 1")
	arrivals := f.receive()
	fresh, _ := f.director(2, guarded, now)
	long, k := f.director(3, guarded,
		servers4("25 weight 1", "23 weight 5"),
		servers4("21 weight 1", "23 weight 2", "24 weight 2", "25 weight 1"),
		servers4("21 weight 0 last 1", "22 weight 3", "23 weight 2", "24 weight 2", "25 weight 1"),
		now,
	)
	want := f.hashed(fresh, arrivals)
	if n := differ(want, f.hashed(long, arrivals)); n != 0 {
		t.Errorf("%d of %d flows go to another server through a director of another history", n, flows)
	}
	// The check can fail: the order and the weight of the one that is down count.
	state := kerneltest.Parse(t, now)
	backward := slices.SortedFunc(maps.Keys(state.Destinations), func(a, b netstate.DestinationKey) int { return b.Addr.Compare(a.Addr) })
	for _, d := range backward {
		apply(t, k, netstate.DestinationChange{Verb: netstate.Move, Entry: d, Value: state.Destinations[d]})
	}
	n := differ(want, f.hashed(long, arrivals))
	t.Logf("%d of %d flows differ when the order is another", n, flows)
	if n == 0 {
		t.Error("no flow goes to another server when the order is another")
	}
	unknown, _ := f.director(4, guarded, servers4("21 weight 1", "22 weight 3", "23 weight 2", "24 weight 0", "25 weight 1"))
	n = differ(want, f.hashed(unknown, arrivals))
	t.Logf("%d of %d flows differ where the one that is down never had a weight", n, flows)
	if n == 0 {
		t.Error("no flow goes to another server where the one that is down never had a weight")
	}
}

// named answers each word with the server's name, as long as the connection lives.
func named(t *testing.T, ns *netlab.NS, address, name string) {
	t.Helper()
	var listener net.Listener
	if err := ns.Do(func() (err error) { listener, err = net.Listen("tcp", address); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the client is gone
				for buf := make([]byte, 64); ; {
					if _, err := conn.Read(buf); err != nil {
						return
					}
					if _, err := conn.Write([]byte(name)); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// words serves port 7 of both VIPs by mh, with servers "LAST weight N".
func words(servers ...string) string {
	text := ""
	for _, vip := range []string{vip4, vip6} {
		at, prefix := vip+":7", "192.0.2."
		if vip == vip6 {
			at, prefix = "["+vip6+"]:7", "2001:db8::"
		}
		text += fmt.Sprintf("guard %[1]s\nguard TCP %[2]s\naddress %[1]s dev dummy-lvs\nservice TCP %[2]s mh flags 0x18\n", vip, at)
		for _, s := range servers {
			last, weight, _ := strings.Cut(s, " ")
			server := netip.AddrPortFrom(netip.MustParseAddr(prefix+last), 7)
			text += fmt.Sprintf("destination TCP %s %s DR %s\n", at, server, weight)
		}
	}
	return text
}

// opened are connections with the server that each is to.
type opened map[*netlab.Conn]string

// open20 opens connections through whatever director the client sends to.
func (f *farm) open20(address string) opened {
	f.t.Helper()
	conns := opened{}
	for range 20 {
		c := f.client.Connect("tcp", address)
		conns[c] = c.Echo("hi")
	}
	return conns
}

func (o opened) check(t *testing.T, when string) {
	t.Helper()
	lost := 0
	for c, server := range o {
		if got, err := c.Try("hi"); err != nil || got != server {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%s %d of %d connections are lost", when, lost, len(o))
	}
}

func TestOpenConnectionsGoOnThroughAnyDirector(t *testing.T) {
	for name, address := range map[string]string{"IPv4": vip4 + ":7", "IPv6": "[" + vip6 + "]:7"} {
		t.Run(name, func(t *testing.T) {
			f := newFarm(t, 3)
			for i, s := range f.servers {
				named(t, s, "[::]:7", fmt.Sprintf("s%d", i+1))
			}
			all := []string{"21 weight 1", "22 weight 1", "23 weight 2"}
			first, firstKernel := f.director(2, sloppily, words(all...))
			second, _ := f.director(3, sloppily, words(all[2]), words(all[0], all[2]), words(all...))
			f.through(first)
			conns, slow := f.open20(address), f.open20(address)
			servers := map[string]int{}
			for _, server := range conns {
				servers[server]++
			}
			if len(servers) < 2 {
				t.Fatalf("all connections are to one server: %v", servers)
			}
			f.through(second)
			conns.check(t, "through another director")
			conns.check(t, "when it knows them")

			// One server fails, and a director comes that has seen nothing of all this.
			failed := []string{"21 weight 0 last 1", "22 weight 1", "23 weight 2"}
			reach(t, firstKernel, kerneltest.Parse(t, words(failed...)))
			third, thirdKernel := f.director(4, sloppily, words(failed...))
			f.through(third)
			for _, these := range []opened{conns, slow} {
				for c, server := range these {
					if server == "s1" {
						delete(these, c)
					}
				}
			}
			conns.check(t, "of servers that are up, after one failed,")
			slow.check(t, "of servers that are up, idle since they were opened,")
			if got := f.client.Connect("tcp", address).Echo("hi"); got == "s1" {
				t.Error("a new connection went to the server that is down")
			}

			// Without the setting a director that does not know them resets them.
			prepare(t, thirdKernel, netstate.Node{Interface: "eth0", Guard: true, Sloppy: &netstate.Sloppy{}})
			f.through(first)
			fresh := f.open20(address)
			f.through(third)
			for c := range fresh {
				if _, err := c.Try("hi"); !errors.Is(err, syscall.ECONNRESET) {
					t.Fatalf("without sloppy_tcp: %v, want a reset", err)
				}
				break
			}
		})
	}
}

func TestConnectionsInUseLiveThroughMoves(t *testing.T) {
	f := newFarm(t, 3)
	for i, s := range f.servers {
		named(t, s, "[::]:7", fmt.Sprintf("s%d", i+1))
	}
	want := kerneltest.Parse(t, words("21 weight 1", "22 weight 1", "23 weight 1"))
	ns, k := f.director(2, sloppily, words("21 weight 1", "22 weight 1", "23 weight 1"))
	f.through(ns)
	conns := f.open20(vip4 + ":7")
	done := make(chan struct{})
	var talking sync.WaitGroup
	var mu sync.Mutex
	lost, said := []string{}, 0
	for c, server := range conns {
		talking.Go(func() {
			for {
				got, err := c.Try("hi")
				mu.Lock()
				if said++; err != nil || got != server {
					lost = append(lost, fmt.Sprintf("%s says %q, %v", server, got, err))
				}
				mu.Unlock()
				select {
				case <-done:
					return
				default:
				}
				if err != nil {
					return
				}
			}
		})
	}
	began := time.Now()
	const rounds = 30
	for range rounds {
		for d, v := range want.Destinations {
			if d.Addr.Is4() {
				apply(t, k, netstate.DestinationChange{Verb: netstate.Move, Entry: d, Value: v})
			}
		}
	}
	took := time.Since(began)
	close(done)
	talking.Wait()
	t.Logf("%d moves took %s; meanwhile %d words were answered", 3*rounds, took, said)
	if len(lost) > 0 {
		slices.Sort(lost)
		t.Errorf("%d of %d connections are lost: %v", len(lost), len(conns), slices.Compact(lost))
	}
	if got := ns.Sysctl("ipv4/vs/expire_nodest_conn"); got != "1" {
		t.Errorf("expire_nodest_conn is %s when all is done, want 1", got)
	}
	holds(t, k, want)

	// Connections to a destination that is only deleted do end.
	for c, server := range conns {
		if server != "s2" {
			continue
		}
		for d, v := range want.Destinations {
			if d.Addr.String() == "192.0.2.22" {
				apply(t, k, netstate.DestinationChange{Verb: netstate.Del, Entry: d, Value: v})
			}
		}
		if _, err := c.Try("hi"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("to a server that was deleted: %v, want a reset", err)
		}
		break
	}
}

func TestSloppySettingsAreRestored(t *testing.T) {
	names := []string{"ipv4/vs/sloppy_tcp", "ipv4/vs/sloppy_sctp", "ipv4/vs/drop_entry"}
	f := newFarm(t, 0)
	ns, k := f.director(2, guarded)
	settings := func() (values string) {
		for _, name := range names {
			values += ns.Sysctl(name)
		}
		return values
	}
	both := sloppily
	both.Sloppy = &netstate.Sloppy{TCP: true, SCTP: true}
	for _, step := range []struct {
		node netstate.Node
		want string
	}{
		{guarded, "000"},
		{sloppily, "101"},
		{both, "111"},
		{guarded, "111"},
		{netstate.Node{Interface: "eth0", Guard: true, Sloppy: &netstate.Sloppy{}}, "000"},
		{both, "111"},
	} {
		prepare(t, k, step.node)
		if got := settings(); got != step.want {
			t.Errorf("with %+v %v are %s, want %s", step.node.Sloppy, names, got, step.want)
		}
	}
	if err := k.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := settings(); got != "000" {
		t.Errorf("%v are %s in the end", names, got)
	}
}

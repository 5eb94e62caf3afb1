//go:build kernel

package kernel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestConnectionsWhenAServiceBecomesMarked(t *testing.T) {
	for name, order := range map[string][2]string{"marked": {"", "marked "}, "unmarked": {"marked ", ""}} {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			w.serve(order[0])
			conn := w.client.Connect("tcp", vip4+":7")
			conn.Echo("before")
			both := w.state(0, order[0])
			for _, op := range netstate.Diff(netstate.New(), w.state(0, order[1])) {
				both.Perform(op)
			}
			bring(t, w.kernels[0], both)
			// With both there it lives: IPVS finds a connection by its addresses.
			conn.Echo("between")
			for d, v := range both.Destinations {
				if d.Service.Marked == (order[0] != "") {
					v.Weight = 0
					both.Destinations[d] = v
				}
			}
			bring(t, w.kernels[0], both)
			conn.Echo("drained")
			w.serve(order[1])
			if got, err := conn.Try("after"); err == nil {
				t.Errorf("the connection lives on and says %q: there is no need any more to keep the old service", got)
			}
			conn = w.client.Connect("tcp", vip4+":7")
			conn.Echo("new")
		})
	}
}

// TestWhatServicesWereBeforeTheirMarksMakesNoLoop has each director keep its
// unmarked services, with itself as the only server, as plans do while connections
// drain.
func TestWhatServicesWereBeforeTheirMarksMakesNoLoop(t *testing.T) {
	for name, address := range families {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			for i, k := range w.kernels {
				state := w.state(i, "")
				for d, v := range state.Destinations {
					if d.Addr != netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+2)) && d.Addr != netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+2)) {
						v.Weight = 0
						state.Destinations[d] = v
					}
				}
				for _, op := range netstate.Diff(netstate.New(), w.state(i, "marked ")) {
					state.Perform(op)
				}
				bring(t, k, state)
				holds(t, k, state)
			}
			w.answer(address)
		})
	}
}

func TestLongDatagramsOfMarkedServicesPass(t *testing.T) {
	for name, vip := range map[string]string{"IPv4": vip4, "IPv6": vip6} {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			service := netip.AddrPortFrom(netip.MustParseAddr(vip), 53).String()
			prefix := map[string]string{"IPv4": "192.0.2.", "IPv6": "2001:db8::"}[name]
			for i, k := range w.kernels {
				var text strings.Builder
				fmt.Fprintf(&text, "guard %[1]s\nguard UDP %[2]s\nguard marked UDP %[2]s\naddress %[1]s dev dummy-lvs\nservice marked UDP %[2]s rr\n", vip, service)
				for host := range 2 {
					server := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("%s%d", prefix, host+2)), 53)
					fmt.Fprintf(&text, "destination marked UDP %s %s DR weight 1\n", service, server)
				}
				bring(t, k, kerneltest.Parse(t, text.String()))
				w.hosts[i].ServeUDP(service, fmt.Sprintf("d%d", i+1))
			}
			answers := map[string]int{}
			for range 4 {
				answer, err := w.client.AskLong(service, 4000)
				if err != nil {
					t.Fatalf("%v, so far %v", err, answers)
				}
				answers[answer]++
			}
			wantCounts(t, answers, map[string]int{"d1": 2, "d2": 2})
		})
	}
}

// TestSharedConnectionsDoNotLoop has IPVS's sync daemons tell each director the
// other's connections.
func TestSharedConnectionsDoNotLoop(t *testing.T) {
	w := newTwins(t)
	w.serve("marked ")
	for _, host := range w.hosts {
		// Whatever packet comes first, and again after 10 s.
		host.SetSysctl("ipv4/vs/sync_threshold", "0 0")
		host.SetSysctl("ipv4/vs/sync_refresh_period", "10")
		for state := range uint32(2) {
			startDaemon(t, host, state+1)
		}
	}
	conns := make([]*netlab.Conn, 0, 8)
	for range 8 {
		conn := w.client.Connect("tcp", vip4+":7")
		conn.Echo("before")
		conns = append(conns, conn)
	}
	// The daemon sends what it has every two seconds.
	deadline := time.Now().Add(patience)
	for len(conns) > 0 && connections(t, w.kernels[1], w.state(1, "marked ")) < len(conns) && time.Now().Before(deadline) {
		time.Sleep(100 * time.Millisecond)
	}
	if got := connections(t, w.kernels[1], w.state(1, "marked ")); got < len(conns) {
		t.Fatalf("the other director knows %d of %d connections", got, len(conns))
	}
	for i, conn := range conns {
		if got := conn.Echo("shared"); got != "shared" {
			t.Errorf("connection %d says %q", i, got)
		}
	}
	back := w.sniff(1, w.hosts[0].MAC("eth0"))
	w.activate(1, vip4, vip6)
	for i, conn := range conns {
		if got := conn.Echo("moved"); got != "moved" {
			t.Errorf("connection %d says %q", i, got)
		}
	}
	if got := back(); got != 0 {
		t.Errorf("director 2 gets %d frames back", got)
	}
	w.answer(families["IPv4"])
}

// connections counts what a kernel knows of the echo port's.
func connections(t *testing.T, k *kernel.Client, of netstate.State) int {
	t.Helper()
	total := 0
	for _, key := range of.Keys() {
		seen, err := k.Observe(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for d, n := range seen.Connections {
			if d.Port == 7 {
				total += int(n.Active + n.Inactive)
			}
		}
	}
	return total
}

// startDaemon starts a sync daemon: IPVS_CMD_NEW_DAEMON of linux/ip_vs.h, in the
// state master (1) or backup (2).
func startDaemon(t *testing.T, ns *netlab.NS, state uint32) {
	t.Helper()
	const (
		cmdNewDaemon, attrDaemon         = 9, 3
		attrState, attrInterface, attrID = 1, 2, 3
	)
	err := ns.Do(func() error {
		family, err := netlink.GenlFamilyGet("IPVS")
		if err != nil {
			return err
		}
		req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
		req.AddData(&nl.Genlmsg{Command: cmdNewDaemon, Version: 1})
		daemon := nl.NewRtAttr(attrDaemon|unix.NLA_F_NESTED, nil)
		daemon.AddRtAttr(attrState, nl.Uint32Attr(state))
		daemon.AddRtAttr(attrInterface, nl.ZeroTerminated("eth0"))
		daemon.AddRtAttr(attrID, nl.Uint32Attr(7))
		req.AddData(daemon)
		_, err = req.Execute(unix.NETLINK_GENERIC, 0)
		return err
	})
	if err != nil {
		t.Fatalf("starting the sync daemon: %v", err)
	}
}

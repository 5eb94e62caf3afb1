//go:build kernel

package announce

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// patience is how long a kernel may take for what it is sure to do.
const patience = 15 * time.Second

// segment is a bridge in a network namespace of its own, with stations in
// others.
type segment struct {
	t      *testing.T
	ns     netns.NsHandle
	nl     *netlink.Handle
	bridge netlink.Link
}

// station is a host on the segment.
type station struct {
	t    *testing.T
	ns   netns.NsHandle
	nl   *netlink.Handle
	link netlink.Link
	mac  MAC
}

func newSegment(t *testing.T) *segment {
	t.Helper()
	s := &segment{t: t}
	s.ns, s.nl = newNamespace(t)
	snooping := true
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snooping}
	must(t, s.nl.LinkAdd(bridge))
	s.bridge = linkOf(t, s.nl, "br0")
	must(t, s.nl.LinkSetUp(s.bridge))
	return s
}

// newNamespace makes a network namespace that lasts until the end of the test.
func newNamespace(t *testing.T) (netns.NsHandle, *netlink.Handle) {
	t.Helper()
	var ns netns.NsHandle
	var err error
	onThread(func() { ns, err = netns.New() })
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	handle, err := netlink.NewHandleAt(ns)
	must(t, err)
	t.Cleanup(handle.Close)
	return ns, handle
}

// onThread runs f on a thread that is thrown away afterwards.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// in runs f in a namespace.
func in(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	var err error
	onThread(func() {
		if err = netns.Set(ns); err == nil {
			err = f()
		}
	})
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func linkOf(t *testing.T, nl *netlink.Handle, name string) netlink.Link {
	t.Helper()
	link, err := nl.LinkByName(name)
	must(t, err)
	return link
}

// station adds a host with these addresses to the segment.
func (s *segment) station(name string, mac MAC, addrs ...string) *station {
	s.t.Helper()
	st := &station{t: s.t, mac: mac}
	st.ns, st.nl = newNamespace(s.t)
	s.plugIn(st, name)
	for _, addr := range addrs {
		st.addAddress(addr)
	}
	return st
}

// plugIn connects a host to the segment as its eth0.
func (s *segment) plugIn(st *station, name string) {
	s.t.Helper()
	veth := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: name, MasterIndex: s.bridge.Attrs().Index},
		PeerName:         "eth0",
		PeerHardwareAddr: st.mac[:],
		PeerNamespace:    netlink.NsFd(int(st.ns)),
	}
	must(s.t, s.nl.LinkAdd(veth))
	must(s.t, s.nl.LinkSetUp(linkOf(s.t, s.nl, name)))
	st.link = linkOf(s.t, st.nl, "eth0")
	// Unreachable is found out in a fifth of a second instead of three, and a
	// stale entry is probed without a wait.
	in(s.t, st.ns, func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			dir := "/proc/sys/net/" + family + "/neigh/eth0/"
			retransmit := os.WriteFile(dir+"retrans_time_ms", []byte("70"), 0)
			delay := os.WriteFile(dir+"delay_first_probe_time", []byte("0"), 0)
			if err := errors.Join(retransmit, delay); err != nil {
				return err
			}
		}
		return nil
	})
	must(s.t, st.nl.LinkSetUp(st.link))
	st.link = linkOf(s.t, st.nl, "eth0")
	// Both ends: until its own has been noticed the bridge forwards nothing.
	eventually(s.t, "carrier of "+name, func() bool {
		return linkOf(s.t, st.nl, "eth0").Attrs().OperState == netlink.OperUp &&
			linkOf(s.t, s.nl, name).Attrs().OperState == netlink.OperUp
	})
}

func (st *station) addAddress(addr string) {
	st.t.Helper()
	parsed, err := netlink.ParseAddr(addr)
	must(st.t, err)
	if parsed.IP.To4() == nil {
		parsed.Flags = unix.IFA_F_NODAD
	}
	must(st.t, st.nl.AddrAdd(st.link, parsed))
}

func (st *station) linkState() LinkState {
	attrs := linkOf(st.t, st.nl, "eth0").Attrs()
	mac, _ := MACFrom(attrs.HardwareAddr)
	return LinkState{Index: attrs.Index, MAC: mac, Up: attrs.OperState == netlink.OperUp}
}

// neighbour returns what the host's kernel knows of an address.
func (st *station) neighbour(addr netip.Addr) (MAC, int) {
	st.t.Helper()
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	neighbours, err := st.nl.NeighList(st.link.Attrs().Index, family)
	must(st.t, err)
	for _, n := range neighbours {
		if got, _ := netip.AddrFromSlice(n.IP); got.Unmap() == addr {
			mac, _ := MACFrom(n.HardwareAddr)
			return mac, n.State
		}
	}
	return MAC{}, netlink.NUD_NONE
}

// setNeighbour puts an entry into the host's neighbour table.
func (st *station) setNeighbour(addr netip.Addr, mac MAC, state int) {
	st.t.Helper()
	must(st.t, st.nl.NeighSet(&netlink.Neigh{
		LinkIndex: st.link.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: mac[:], State: state,
	}))
}

func (st *station) forget(addr netip.Addr) {
	st.t.Helper()
	must(st.t, st.nl.NeighDel(&netlink.Neigh{LinkIndex: st.link.Attrs().Index, IP: addr.AsSlice()}))
}

// knock sends a datagram to an address, which the kernel has to find for that.
func (st *station) knock(addr netip.Addr) {
	st.t.Helper()
	in(st.t, st.ns, func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("x"))
		return err
	})
}

// finds says whether the host's kernel finds an address, and where. It asks
// once, with the repetitions of the kernel.
func (st *station) finds(addr netip.Addr) (MAC, bool) {
	st.t.Helper()
	st.knock(addr)
	var mac MAC
	var state int
	eventually(st.t, "verdict on "+addr.String(), func() bool {
		mac, state = st.neighbour(addr)
		return state&(netlink.NUD_REACHABLE|netlink.NUD_FAILED) != 0
	})
	return mac, state == netlink.NUD_REACHABLE
}

// mustFind waits until the host's kernel finds an address where it is. A slow
// machine may stall the director for as long as a kernel asks.
func (st *station) mustFind(addr netip.Addr, at MAC) {
	st.t.Helper()
	eventually(st.t, addr.String()+" to be found at "+at.String(), func() bool {
		mac, ok := st.finds(addr)
		return ok && mac == at
	})
}

// listen opens a packet socket of the product's kind on the host.
func (st *station) listen(f family) port {
	st.t.Helper()
	var p port
	in(st.t, st.ns, func() error {
		opened, err := kernelNetwork{}.listen(st.link.Attrs().Index, f)
		p = opened
		return err
	})
	st.t.Cleanup(func() { must(st.t, p.close()) })
	return p
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("still waiting for: %s", what)
		}
	}
}

// snoop makes the bridge forward multicast only to who has asked for it by
// MLD. Bridges do so only while there is a querier, here themselves, and have
// waited for answers.
func (s *segment) snoop() {
	s.t.Helper()
	// A querier needs an address to ask from.
	eventually(s.t, "the bridge's address", func() bool {
		addrs, err := s.nl.AddrList(s.bridge, netlink.FAMILY_V6)
		must(s.t, err)
		return len(addrs) > 0 && addrs[0].Flags&unix.IFA_F_TENTATIVE == 0
	})
	const centiseconds = 50
	s.setBridge(nl.IFLA_BR_MCAST_QUERY_RESPONSE_INTVL, binary.NativeEndian.AppendUint64(nil, centiseconds))
	s.setBridge(nl.IFLA_BR_MCAST_STARTUP_QUERY_INTVL, binary.NativeEndian.AppendUint64(nil, centiseconds))
	s.setBridge(nl.IFLA_BR_MCAST_QUERIER, []byte{1})
}

func (s *segment) setBridge(attribute int, value []byte) {
	s.t.Helper()
	in(s.t, s.ns, func() error {
		request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		message := nl.NewIfInfomsg(unix.AF_UNSPEC)
		message.Index = int32(s.bridge.Attrs().Index)
		request.AddData(message)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(attribute, value)
		request.AddData(info)
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

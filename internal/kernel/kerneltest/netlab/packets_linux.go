package netlab

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// LocalRoutes lists the routes of an address in the table local.
func (n *NS) LocalRoutes(addr netip.Addr) []netlink.Route {
	n.t.Helper()
	routes, err := n.links.RouteListFiltered(netlink.FAMILY_ALL,
		&netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	n.must("listing local routes", err)
	return slices.DeleteFunc(routes, func(r netlink.Route) bool {
		return r.Dst == nil || !r.Dst.IP.Equal(net.IP(addr.AsSlice()))
	})
}

// DeleteLocalRoutes deletes them.
func (n *NS) DeleteLocalRoutes(addr netip.Addr) {
	n.t.Helper()
	for _, r := range n.LocalRoutes(addr) {
		n.must("deleting a local route", n.links.RouteDel(&r))
	}
}

// Ping asks for one echo.
func (n *NS) Ping(addr string) error { return n.ping(addr, patience) }

// Silent says that nobody answers for an address.
func (n *NS) Silent(addr string) error {
	if n.ping(addr, refusal) == nil {
		return fmt.Errorf("%s answers", addr)
	}
	return nil
}

func (n *NS) ping(addr string, limit time.Duration) error {
	to := netip.MustParseAddr(addr)
	network, proto, request, reply := "ip4:icmp", 1, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.Is6() {
		network, proto, request, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn net.PacketConn
	err := n.Do(func() error {
		var err error
		conn, err = net.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is written after the question
	question := icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: make([]byte, 16)}}
	data, err := question.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(data, &net.IPAddr{IP: net.IP(to.AsSlice())}); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	buf := make([]byte, 128)
	for {
		length, from, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoAnswer, err)
		}
		message, err := icmp.ParseMessage(proto, buf[:length])
		if err == nil && message.Type == reply && from.String() == addr {
			return nil
		}
	}
}

// ReceiveUDP listens on an address. The function that it returns waits for a
// datagram that says last and returns all that came, that one included.
func (n *NS) ReceiveUDP(address string) func(last string) []string {
	n.t.Helper()
	var conn net.PacketConn
	n.must("listening on "+address, n.Do(func() error {
		var err error
		conn, err = net.ListenPacket("udp", address)
		return err
	}))
	n.t.Cleanup(func() { _ = conn.Close() })
	return func(last string) []string {
		n.t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		var heard []string
		for buf := make([]byte, 64); ; {
			size, _, err := conn.ReadFrom(buf)
			n.must("waiting for "+last, err)
			heard = append(heard, string(buf[:size]))
			if string(buf[:size]) == last {
				return heard
			}
		}
	}
}

// SendUDP sends an IPv4 datagram as a frame from eth0, from any source.
func (n *NS) SendUDP(mac net.HardwareAddr, from, to, text string) {
	n.t.Helper()
	source, dest := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	const ipHeader, udpHeader = 20, 8
	packet := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(text))
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(ipHeader+udpHeader+len(text)))
	copy(packet[12:], source.Addr().AsSlice())
	copy(packet[16:], dest.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[10:], ^sum(packet[:ipHeader]))
	udp := packet[ipHeader:]
	binary.BigEndian.PutUint16(udp[0:], source.Port())
	binary.BigEndian.PutUint16(udp[2:], dest.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(text)))
	packet = append(packet, text...)

	link := n.Link("eth0").Attrs()
	frame := slices.Concat(mac, link.HardwareAddr, []byte{0x08, 0x00}, packet)
	n.must("sending a frame", n.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // the frame is out
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Halen: 6})
	}))
}

// sum is the Internet checksum's sum (RFC 1071), before it is inverted.
func sum(b []byte) uint16 {
	total := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

// Conn is a connection of a test.
type Conn struct {
	n    *NS
	conn net.Conn
}

// Connect opens a connection, or ends the test.
func (n *NS) Connect(network, address string) *Conn {
	n.t.Helper()
	c := &Conn{n: n}
	n.must("connecting to "+address, n.Do(func() error {
		var err error
		c.conn, err = net.DialTimeout(network, address, patience)
		return err
	}))
	n.t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// LocalPort is the client's port.
func (c *Conn) LocalPort() int {
	return int(netip.MustParseAddrPort(c.conn.LocalAddr().String()).Port())
}

// Echo says text and returns what comes back.
func (c *Conn) Echo(text string) string {
	c.n.t.Helper()
	answer, err := c.Try(text)
	c.n.must("saying "+text, err)
	return answer
}

// Try is Echo for a connection that may have been reset.
func (c *Conn) Try(text string) (string, error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write([]byte(text)); err != nil {
		return "", fmt.Errorf("writing: %w", err)
	}
	buf := make([]byte, len(text))
	size, err := c.conn.Read(buf)
	if err != nil {
		return "", fmt.Errorf("reading: %w", err)
	}
	return string(buf[:size]), nil
}

// ServeEcho sends back what each connection says, until the test ends.
func (n *NS) ServeEcho(address string) {
	n.t.Helper()
	var listener net.Listener
	n.must("listening on "+address, n.Do(func() error {
		var err error
		listener, err = net.Listen("tcp", address)
		return err
	}))
	n.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the client is gone
				buf := make([]byte, 64)
				for {
					size, err := conn.Read(buf)
					if err != nil {
						return
					}
					if _, err := conn.Write(buf[:size]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// LabelledAddress puts an address with a label on a link.
func (n *NS) LabelledAddress(link, prefix, label string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	n.must("parsing "+prefix, err)
	addr.Label = label
	n.must("adding "+prefix+" to "+link, n.links.AddrAdd(n.Link(link), addr))
}

// DeleteAddress takes an address off a link.
func (n *NS) DeleteAddress(link, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	n.must("parsing "+prefix, err)
	n.must("deleting "+prefix, n.links.AddrDel(n.Link(link), addr))
}

// Gateway makes a default route.
func (n *NS) Gateway(addr string) {
	n.t.Helper()
	n.must("adding a default route", n.links.RouteAdd(&netlink.Route{Gw: net.ParseIP(addr)}))
}

// Package netlab builds small networks of network namespaces for tests of
// packages that touch the kernel. It needs root and runs no program.
package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace, which lives as long as its test.
type NS struct {
	t      testing.TB
	handle netns.NsHandle
	links  *netlink.Handle
}

// New makes a namespace with lo up.
func New(t testing.TB) *NS {
	t.Helper()
	n := &NS{t: t}
	n.must("making a namespace", run(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		n.handle, err = netns.Get()
		return err
	}))
	var err error
	n.links, err = netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
	n.must("opening netlink", err)
	t.Cleanup(func() {
		n.links.Close()
		n.must("closing the namespace", n.handle.Close())
	})
	n.Up("lo")
	return n
}

// run calls fn on a thread of its own, which ends with it. The main thread would
// not, and is held while another one does it.
func run(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- run(fn)
			return
		}
		result <- fn()
	}()
	return <-result
}

func (n *NS) must(what string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

// Path names the namespace for setns.
func (n *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.handle)) }

// FD is the open namespace.
func (n *NS) FD() int { return int(n.handle) }

// Links speaks rtnetlink to the namespace.
func (n *NS) Links() *netlink.Handle { return n.links }

// Do calls fn in the namespace: sockets that it opens stay there.
func (n *NS) Do(fn func() error) error {
	return run(func() error {
		if err := unix.Setns(int(n.handle), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

// Link finds a link of the namespace.
func (n *NS) Link(name string) netlink.Link {
	n.t.Helper()
	link, err := n.links.LinkByName(name)
	n.must("finding "+name, err)
	return link
}

// MAC of a link.
func (n *NS) MAC(name string) net.HardwareAddr {
	n.t.Helper()
	return n.Link(name).Attrs().HardwareAddr
}

// Up sets a link up.
func (n *NS) Up(name string) {
	n.t.Helper()
	n.must("setting "+name+" up", n.links.LinkSetUp(n.Link(name)))
}

// Down sets a link down.
func (n *NS) Down(name string) {
	n.t.Helper()
	n.must("setting "+name+" down", n.links.LinkSetDown(n.Link(name)))
}

// Dummy adds a dummy link and sets it up.
func (n *NS) Dummy(name string) {
	n.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	n.must("adding "+name, n.links.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}))
	n.Up(name)
}

// Address puts an address on a link. An IPv6 one is there at once (nodad).
func (n *NS) Address(link, prefix string) {
	n.t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	n.must("parsing "+prefix, err)
	if addr.IP.To4() == nil {
		addr.Flags |= unix.IFA_F_NODAD
	}
	n.must("adding "+prefix+" to "+link, n.links.AddrAdd(n.Link(link), addr))
}

// Neighbor makes a permanent neighbour entry.
func (n *NS) Neighbor(link, addr string, mac net.HardwareAddr) {
	n.t.Helper()
	family := netlink.FAMILY_V4
	if netip.MustParseAddr(addr).Is6() {
		family = netlink.FAMILY_V6
	}
	n.must("adding neighbour "+addr, n.links.NeighSet(&netlink.Neigh{
		LinkIndex: n.Link(link).Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
		IP: net.ParseIP(addr), HardwareAddr: mac,
	}))
}

// Table reads a file of /proc/net.
func (n *NS) Table(name string) string {
	n.t.Helper()
	var text string
	n.must("reading "+name, n.Do(func() error {
		// The thread's own: /proc/net is that of the whole process.
		data, err := os.ReadFile(filepath.Join("/proc/thread-self/net", name))
		text = string(data)
		return err
	}))
	return text
}

// Sysctl reads a setting below /proc/sys/net.
func (n *NS) Sysctl(name string) string {
	n.t.Helper()
	var value string
	n.must("reading sysctl", n.Do(func() error {
		data, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
		value = strings.TrimSpace(string(data))
		return err
	}))
	return value
}

// SetSysctl writes a setting below /proc/sys/net.
func (n *NS) SetSysctl(name, value string) {
	n.t.Helper()
	n.must("writing sysctl", n.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
	}))
}

// Segment is an Ethernet segment: a bridge in a namespace of its own.
type Segment struct {
	*NS
	ports int
}

// NewSegment makes an empty segment.
func NewSegment(t testing.TB) *Segment {
	t.Helper()
	s := &Segment{NS: New(t)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	s.must("making a bridge", s.links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	s.Up("br0")
	return s
}

// Attach gives n a link on the segment, with addresses, and sets it up.
func (s *Segment) Attach(n *NS, name string, prefixes ...string) {
	s.t.Helper()
	s.ports++
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("port%d", s.ports)
	s.must("making a veth pair", s.links.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(n.FD()),
	}))
	s.must("adding a port", s.links.LinkSetMaster(s.Link(attrs.Name), s.Link("br0")))
	s.Up(attrs.Name)
	n.Up(name)
	for _, p := range prefixes {
		n.Address(name, p)
	}
}

// Host makes a namespace with eth0 on the segment.
func (s *Segment) Host(prefixes ...string) *NS {
	s.t.Helper()
	n := New(s.t)
	// A host that makes no link-local address of its own needs no time for it.
	n.SetSysctl("ipv6/conf/default/accept_dad", "0")
	s.Attach(n, "eth0", prefixes...)
	return n
}

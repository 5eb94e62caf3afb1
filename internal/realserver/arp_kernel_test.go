//go:build kernel

package realserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// The segment of these tests: a client .10, a host .135 and the VIP .200.
const (
	clientAddress = "192.168.11.10"
	hostAddress   = "192.168.11.135"
	vip           = "192.168.11.200"
)

type lab struct {
	client, host *netlab.NS
}

func newLab(t *testing.T) lab {
	segment := netlab.NewSegment(t)
	return lab{client: segment.Host(clientAddress + "/24"), host: segment.Host(hostAddress + "/24")}
}

func (l lab) open(t *testing.T) *kernel.RealServer {
	t.Helper()
	host, err := kernel.NewRealServer(kernel.Options{NetNS: l.host.Path(), StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host
}

// answersARP says whether the host answers the client's ARP requests for the
// VIP. The client asks for the host's own address until that is answered,
// which a new segment may take a moment for, then for the VIP, then for the host's
// own again: what was not answered before that is not answered at all. Its own
// address tells late answers to the first question from those to the last.
func (l lab) answersARP(t *testing.T) bool {
	t.Helper()
	answers := false
	err := l.client.Do(func() error {
		asker, err := newAsker(l.client.Link("eth0").Attrs())
		if err != nil {
			return err
		}
		defer unix.Close(asker.fd) //nolint:errcheck // nothing is left to be written
		if _, err := asker.untilAnswered(hostAddress, vip); err != nil {
			return err
		}
		asker.from = netip.MustParseAddr(clientAddress).Next()
		if err := asker.ask(vip); err != nil {
			return err
		}
		answers, err = asker.untilAnswered(hostAddress, vip)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// asker sends ARP requests.
type asker struct {
	fd   int
	at   *unix.SockaddrLinklayer
	mac  net.HardwareAddr
	from netip.Addr
}

func newAsker(link *netlink.LinkAttrs) (asker, error) {
	a := asker{
		at:   &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: link.Index},
		mac:  link.HardwareAddr,
		from: netip.MustParseAddr(clientAddress),
	}
	var err error
	a.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ARP)))
	if err != nil {
		return a, err
	}
	limit := unix.NsecToTimeval(int64(300 * time.Millisecond))
	return a, errors.Join(unix.Bind(a.fd, a.at), unix.SetsockoptTimeval(a.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
}

func (a asker) ask(addr string) error {
	return unix.Sendto(a.fd, arpRequest(a.mac, a.from, addr), 0, a.at)
}

// untilAnswered asks for an address until it is answered, and says whether the
// other one was answered before.
func (a asker) untilAnswered(addr, other string) (otherAnswered bool, err error) {
	const tries = 50
	frame := make([]byte, 128)
	for range tries {
		if err := a.ask(addr); err != nil {
			return false, err
		}
		for {
			n, _, err := unix.Recvfrom(a.fd, frame, 0)
			if err != nil {
				break
			}
			sender, ok := arpReply(frame[:n], a.from)
			if ok && sender == netip.MustParseAddr(addr) {
				return otherAnswered, nil
			}
			otherAnswered = otherAnswered || ok && sender == netip.MustParseAddr(other)
		}
	}
	return otherAnswered, fmt.Errorf("nobody answers for %s", addr)
}

// arpRequest is an Ethernet frame (RFC 826).
func arpRequest(mac net.HardwareAddr, from netip.Addr, target string) []byte {
	var frame bytes.Buffer
	frame.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	frame.Write(mac)
	frame.Write([]byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1})
	frame.Write(mac)
	frame.Write(from.AsSlice())
	frame.Write(make([]byte, 6))
	frame.Write(netip.MustParseAddr(target).AsSlice())
	return frame.Bytes()
}

// arpReply returns who answers, if a frame is an answer to a question of from.
func arpReply(frame []byte, from netip.Addr) (sender netip.Addr, ok bool) {
	if len(frame) < 42 || frame[21] != 2 || !bytes.Equal(frame[38:42], from.AsSlice()) {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(frame[28:32])
}

func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }

func TestHostAnswersNoARPForItsVIP(t *testing.T) {
	l := newLab(t)
	l.host.Address("lo", vip+"/32")
	if !l.answersARP(t) {
		t.Fatal("without the sysctls the host does not answer: this test could not fail")
	}
	host := l.open(t)
	keeper := realserver.Keeper{Host: host, VIPs: addrs(vip), Log: slog.New(slog.DiscardHandler)}
	if err := keeper.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.answersARP(t) {
		t.Error("the host answers ARP for the VIP")
	}
	if err := host.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.answersARP(t) {
		t.Error("the host, which had the VIP before, is not as it was found")
	}
}

// TestSettingsAgreeWithTheKernel checks for each value of arp_ignore that the
// host is left alone or given another value as the kernel answers or not.
func TestSettingsAgreeWithTheKernel(t *testing.T) {
	l := newLab(t)
	l.host.Address("lo", vip+"/32")
	host := l.open(t)
	for value := range 11 {
		l.host.SetSysctl("ipv4/conf/all/arp_ignore", strconv.Itoa(value))
		if value == 8 {
			// For the host's own address it answers as little.
			continue
		}
		answers := l.answersARP(t)
		state, err := host.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		changed := false
		for _, d := range realserver.Deviations(nil, state) {
			changed = changed || d.Subject == "net.ipv4.conf.all.arp_ignore"
		}
		if changed != answers {
			t.Errorf("arp_ignore %d: the host answers: %v; it is changed: %v", value, answers, changed)
		}
	}
}

func TestSetUpRefusesAnInterfaceThatWouldAnswer(t *testing.T) {
	l := newLab(t)
	l.host.SetSysctl("ipv4/conf/eth0/arp_ignore", "3")
	host := l.open(t)
	keeper := realserver.Keeper{Host: host, VIPs: addrs(vip), Log: slog.New(slog.DiscardHandler)}
	if err := keeper.SetUp(t.Context()); err == nil {
		t.Error("it is set up")
	}
	l.host.SetSysctl("ipv4/conf/all/arp_ignore", "1")
	l.host.Address("lo", vip+"/32")
	if !l.answersARP(t) {
		t.Error("and there was no reason to refuse: the host does not answer")
	}
}

func TestSetUpPutsNoVIPOnLoIfTheSysctlsCannotBeSet(t *testing.T) {
	l := newLab(t)
	host, err := kernel.NewRealServer(kernel.Options{NetNS: l.host.Path(), StateDir: t.TempDir(), Sysctls: unwritable(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	keeper := realserver.Keeper{Host: host, VIPs: addrs(vip), Log: slog.New(slog.DiscardHandler)}
	if err := keeper.SetUp(t.Context()); !errors.Is(err, unix.EACCES) {
		t.Fatalf("SetUp() = %v, want permission denied", err)
	}
	state, err := host.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range state.Addresses {
		if a.Addr == netip.MustParseAddr(vip) {
			t.Errorf("the VIP is on %s", a.Link)
		}
	}
	if len(state.Found) > 0 || len(state.Recorded) > 0 {
		t.Errorf("a record is left: %+v", state)
	}
}

// unwritable makes a directory like /proc/sys/net whose settings nobody, root
// neither, can write.
func unwritable(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, link := range []string{"all", "lo"} {
		dir := filepath.Join(root, "ipv4/conf", link)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{kernel.ARPIgnore, kernel.ARPAnnounce} {
			if err := os.Symlink("/proc/sys/kernel/ngroups_max", filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

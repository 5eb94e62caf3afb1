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

// answersARP says whether the host answers the client's ARP requests for an
// address. The client asks for that, then for the host's own address, which is
// answered: what was not answered before that is not answered at all.
func (l lab) answersARP(t *testing.T, addr string) bool {
	t.Helper()
	link := l.client.Link("eth0").Attrs()
	answers := false
	err := l.client.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bigEndian(unix.ETH_P_ARP)))
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing is left to be written
		at := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ARP), Ifindex: link.Index}
		if err := unix.Bind(fd, at); err != nil {
			return err
		}
		limit := unix.NsecToTimeval(int64(5 * time.Second))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		for _, target := range []string{addr, hostAddress} {
			if err := unix.Sendto(fd, arpRequest(link.HardwareAddr, target), 0, at); err != nil {
				return err
			}
		}
		frame := make([]byte, 128)
		for {
			n, _, err := unix.Recvfrom(fd, frame, 0)
			if err != nil {
				return fmt.Errorf("the host does not answer for its own address: %w", err)
			}
			sender, ok := arpReply(frame[:n])
			switch {
			case ok && sender == netip.MustParseAddr(addr):
				answers = true
			case ok && sender == netip.MustParseAddr(hostAddress):
				return nil
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// arpRequest is an Ethernet frame (RFC 826) from the client.
func arpRequest(mac net.HardwareAddr, target string) []byte {
	var frame bytes.Buffer
	frame.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	frame.Write(mac)
	frame.Write([]byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1})
	frame.Write(mac)
	frame.Write(netip.MustParseAddr(clientAddress).AsSlice())
	frame.Write(make([]byte, 6))
	frame.Write(netip.MustParseAddr(target).AsSlice())
	return frame.Bytes()
}

func arpReply(frame []byte) (sender netip.Addr, ok bool) {
	if len(frame) < 42 || frame[21] != 2 {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(frame[28:32])
}

func bigEndian(v uint16) uint16 { return v<<8 | v>>8 }

func TestHostAnswersNoARPForItsVIP(t *testing.T) {
	l := newLab(t)
	l.host.Address("lo", vip+"/32")
	if !l.answersARP(t, vip) {
		t.Fatal("without the sysctls the host does not answer: this test could not fail")
	}
	host := l.open(t)
	keeper := realserver.Keeper{Host: host, VIPs: addrs(vip), Log: slog.New(slog.DiscardHandler)}
	if err := keeper.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.answersARP(t, vip) {
		t.Error("the host answers ARP for the VIP")
	}
	if err := host.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.answersARP(t, vip) {
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
		answers := l.answersARP(t, vip)
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
	if !l.answersARP(t, vip) {
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

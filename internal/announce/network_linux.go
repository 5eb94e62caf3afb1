package announce

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// receiveBuffer is asked for each packet socket. It bounds what is waiting
// there after a stall, see drainLimit.
const receiveBuffer = 1 << 20

// kernelNetwork opens sockets in the network namespace of the calling thread.
type kernelNetwork struct{}

func (kernelNetwork) listen(index int, f family) (port, error) {
	protocol, program := unix.ETH_P_ARP, arpFilter()
	if f == ipv6 {
		protocol, program = unix.ETH_P_IPV6, ndpFilter()
	}
	filter, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assembling the filter: %w", err)
	}
	conn, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, protocol, &packet.Config{Filter: filter})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &packetPort{conn: conn, raw: raw}
	err = p.control(func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer))
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// packetPort is a port on a packet socket. It goes round the socket's own
// methods where those would wait for each other or for room.
type packetPort struct {
	conn *packet.Conn
	raw  syscall.RawConn
}

func (p *packetPort) wait() error {
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failed = os.NewSyscallError("poll", err)
		}
		return n > 0 || failed != nil
	})
	return errors.Join(err, failed)
}

func (p *packetPort) receive(buf []byte) (int, bool, error) {
	var n int
	err := p.control(func(fd int) error {
		read, err := unix.Read(fd, buf)
		n = read
		return err
	})
	switch {
	case err == nil:
		return n, true, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, false, nil
	case errors.Is(err, unix.ENETDOWN):
		// Told once when the interface goes down. The socket works again when it
		// comes up, and if it never does the consumer says so.
		return 0, false, nil
	default:
		return 0, false, fmt.Errorf("receiving: %w", err)
	}
}

func (p *packetPort) send(frame []byte) error {
	err := p.control(func(fd int) error {
		_, err := unix.Write(fd, frame)
		return err
	})
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

func (p *packetPort) close() error { return p.conn.Close() }

// control runs f with the socket's descriptor, beside a wait.
func (p *packetPort) control(f func(fd int) error) error {
	var failed error
	if err := p.raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (kernelNetwork) member(index int) (member, error) {
	// A packet socket's membership programs the network card alone. Only one of
	// an IPv6 socket is told to the segment by MLD, without which a snooping
	// switch keeps solicitations away. The socket has no port, so nothing can be
	// sent to it.
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &memberFD{fd: fd, index: index}, nil
}

// memberFD is a member on an IPv6 socket.
type memberFD struct{ fd, index int }

func (m *memberFD) join(group netip.Addr) error  { return m.option(unix.IPV6_JOIN_GROUP, group) }
func (m *memberFD) leave(group netip.Addr) error { return m.option(unix.IPV6_LEAVE_GROUP, group) }
func (m *memberFD) close() error                 { return os.NewSyscallError("close", unix.Close(m.fd)) }

func (m *memberFD) option(option int, group netip.Addr) error {
	request := unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(m.index)}
	return os.NewSyscallError("setsockopt", unix.SetsockoptIPv6Mreq(m.fd, unix.IPPROTO_IPV6, option, &request))
}

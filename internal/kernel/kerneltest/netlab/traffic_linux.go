package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for an answer that has to come; refusal how
// long for one that must not.
const (
	patience = 20 * time.Second
	refusal  = 700 * time.Millisecond
)

// ErrNoAnswer is what Ask returns when nothing came back in time.
var ErrNoAnswer = errors.New("no answer")

// ServeTCP answers each connection to address with name, until the test ends.
func (n *NS) ServeTCP(address, name string) {
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
			_, _ = conn.Write([]byte(name))
			_ = conn.Close()
		}
	}()
}

// ServeUDP answers each datagram to address with name, until the test ends.
// The answer's source is address, so that it must be a single one.
func (n *NS) ServeUDP(address, name string) {
	n.t.Helper()
	var conn net.PacketConn
	n.must("listening on "+address, n.Do(func() error {
		var err error
		conn, err = net.ListenPacket("udp", address)
		return err
	}))
	n.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo([]byte(name), from)
		}
	}()
}

// Ask connects (tcp, udp), optionally from a source address, and returns what
// the server says.
func (n *NS) Ask(network, source, address string) (string, error) {
	return n.ask(network, source, address, 1, patience)
}

// AskLong is Ask over UDP with a question of so many bytes: one that does not
// fit into a frame comes in fragments.
func (n *NS) AskLong(address string, size int) (string, error) {
	return n.ask("udp", "", address, size, patience)
}

// Refused says that address does not answer: by a refusal or by silence.
func (n *NS) Refused(network, address string) error {
	answer, err := n.ask(network, "", address, 1, refusal)
	if err == nil {
		return fmt.Errorf("%s answers %q", address, answer)
	}
	return nil
}

func (n *NS) ask(network, source, address string, size int, limit time.Duration) (string, error) {
	deadline := time.Now().Add(limit)
	dialer := net.Dialer{Deadline: deadline}
	if source != "" {
		if network == "udp" {
			dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(source)}
		} else {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
	}
	var conn net.Conn
	err := n.Do(func() error {
		var err error
		conn, err = dialer.DialContext(context.Background(), network, address)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written after the question
	_ = conn.SetDeadline(deadline)
	if network == "udp" {
		if _, err := conn.Write(make([]byte, size)); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 64)
	length, err := conn.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", ErrNoAnswer
	}
	return string(buf[:length]), err
}

// Sniff counts IPv4 and IPv6 frames that come in on a link and that match, until
// the function that it returns is called, which returns the count.
func (n *NS) Sniff(link string, match func(frame []byte) bool) func() int {
	n.t.Helper()
	var fd int
	n.must("sniffing", n.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: n.Link(link).Attrs().Index})
	}))
	return func() int {
		defer unix.Close(fd) //nolint:errcheck // it was only read
		count := 0
		buf := make([]byte, 2048)
		for {
			// What was captured is in the socket by now: read until it is empty.
			size, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			if err != nil {
				return count
			}
			if match(buf[:size]) {
				count++
			}
		}
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

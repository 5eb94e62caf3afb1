package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// TCPCheck passes if a TCP connection is established within the time of the
// try. It sends nothing and closes the connection in the ordinary way (FIN),
// as keepalived's TCP_CHECK does: a reset would spare the director a socket in
// TIME_WAIT, but servers log resets, and some count them against the client.
//
// The zero TCPCheck is ready for use.
type TCPCheck struct {
	// Dial replaces the dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Check implements Checker.
func (c TCPCheck) Check(ctx context.Context, target Target) error {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	conn, err := dial(ctx, "tcp", netip.AddrPortFrom(target.Addr, target.Port).String())
	if err != nil {
		return connectError(err)
	}
	// The connection was established, which is all that was asked.
	_ = conn.Close()
	return nil
}

// connectError replaces an error of a dialer by the words that users see.
func connectError(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return errors.New("timed out")
	case !errors.As(err, &errno):
		return err
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return errors.New("connection refused")
	case syscall.ETIMEDOUT:
		return errors.New("timed out")
	case syscall.ECONNRESET:
		return errors.New("connection reset")
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		return errors.New("host unreachable")
	case syscall.ENETUNREACH:
		return errors.New("network unreachable")
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL:
		// The director has run out of something. Every probe fails then, and
		// taking every server down for it would make an outage of a shortage.
		return fmt.Errorf("%w: %w", ErrInconclusive, errno)
	default:
		return errno
	}
}

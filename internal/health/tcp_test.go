package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// tryTCP performs one check of a loopback port.
func tryTCP(t *testing.T, address string, timeout time.Duration) error {
	t.Helper()
	at := netip.MustParseAddrPort(address)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return TCPCheck{}.Check(ctx, Target{Type: TCP, Addr: at.Addr(), Port: at.Port()})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestTCPCheckPassesOnAConnectionAndClosesItInOrder(t *testing.T) {
	l := listen(t)
	if err := tryTCP(t, l.Addr().String(), 5*time.Second); err != nil {
		t.Fatalf("check of a listener: %v", err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || err.Error() != "EOF" {
		t.Errorf("the server read %d bytes, %v; want an end in order", n, err)
	}
}

func TestTCPCheckNamesARefusal(t *testing.T) {
	l := listen(t)
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tryTCP(t, address, 5*time.Second); err == nil || err.Error() != "connection refused" {
		t.Errorf("check of a closed port: %v, want connection refused", err)
	}
}

// TestTCPCheckGivesUpAtTheTimeout fills the backlog of a listener that accepts
// nothing, whereupon the kernel drops SYNs.
func TestTCPCheckGivesUpAtTheTimeout(t *testing.T) {
	address := silent(t)
	began := time.Now()
	err := tryTCP(t, address, 150*time.Millisecond)
	if err == nil || err.Error() != "timed out" {
		t.Errorf("check of a full backlog: %v, want timed out", err)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %s, want about 150ms", took)
	}
}

// silent returns an address that answers no SYN.
func silent(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	inet, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatalf("the socket's name is %T", name)
	}
	address := fmt.Sprintf("127.0.0.1:%d", inet.Port)
	for range 16 {
		conn, err := net.DialTimeout("tcp4", address, 200*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("a listener with a backlog of 0 took 16 connections")
	return ""
}

func TestConnectErrors(t *testing.T) {
	wrapped := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	cases := map[string]struct {
		err              error
		want             string
		wantInconclusive bool
	}{
		"no route":              {err: wrapped(syscall.EHOSTUNREACH), want: "host unreachable"},
		"no network":            {err: wrapped(syscall.ENETUNREACH), want: "network unreachable"},
		"reset":                 {err: wrapped(syscall.ECONNRESET), want: "connection reset"},
		"the kernel's timeout":  {err: wrapped(syscall.ETIMEDOUT), want: "timed out"},
		"the dialer's timeout":  {err: &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, want: "timed out"},
		"the context's timeout": {err: context.DeadlineExceeded, want: "timed out"},
		"a firewall's refusal":  {err: wrapped(syscall.EPERM), want: "operation not permitted"},
		"no file descriptor":    {err: wrapped(syscall.EMFILE), want: "inconclusive: too many open files", wantInconclusive: true},
		"no local port": {
			err: wrapped(syscall.EADDRNOTAVAIL), want: "inconclusive: cannot assign requested address", wantInconclusive: true,
		},
		"anything else": {err: errors.New("odd"), want: "odd"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			check := TCPCheck{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, tc.err }}
			err := check.Check(t.Context(), target(1))
			if err == nil || err.Error() != tc.want {
				t.Errorf("Check() = %v, want %s", err, tc.want)
			}
			if got := errors.Is(err, ErrInconclusive); got != tc.wantInconclusive {
				t.Errorf("inconclusive: %t, want %t", got, tc.wantInconclusive)
			}
		})
	}
}

// TestStandardCheckersProbeForReal joins scheduler, state machine and check.
func TestStandardCheckersProbeForReal(t *testing.T) {
	l := listen(t)
	at := netip.MustParseAddrPort(l.Addr().String())
	changed := make(chan struct{}, 16)
	s := NewScheduler(Options{Checkers: Standard(), OnChange: func(string) { changed <- struct{}{} }})
	defer s.Close()
	quick := Schedule{
		Interval: 20 * time.Millisecond, Timeout: 5 * time.Second, RetryInterval: 10 * time.Millisecond,
		FailureThreshold: 2, SuccessThreshold: 2,
	}
	probe := Probe{Target{TCP, at.Addr(), at.Port()}, quick}
	s.SetFor("a", []Probe{probe})
	<-changed
	if got := s.Report(probe).Verdict; got != Up {
		t.Fatalf("verdict %s, want Up", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-changed
	if got := s.Report(probe); got.Verdict != Down || got.LastError != "connection refused" {
		t.Errorf("report %+v, want Down, connection refused", got)
	}
}

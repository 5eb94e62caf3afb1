package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// running is a server that a test has started, on ports of its own.
type running struct {
	tcp, udp4, udp6 netip.AddrPort
	leave, end      context.CancelFunc
	ended           <-chan error
}

func start(t *testing.T) *running {
	t.Helper()
	s, err := listen(t.Context(), "me", "0.0.0.0:0", ":0")
	if err != nil {
		t.Fatal(err)
	}
	leaving, leave := context.WithCancel(t.Context())
	over, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(leaving, over) }()
	t.Cleanup(func() { leave(); end() })
	port := func(address net.Addr) uint16 { return netip.MustParseAddrPort(address.String()).Port() }
	return &running{
		tcp:   netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port(s.listener.Addr())),
		udp4:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port(s.packets.v4.conn.LocalAddr())),
		udp6:  netip.AddrPortFrom(netip.IPv6Loopback(), port(s.packets.v6.conn.LocalAddr())),
		leave: leave, end: end, ended: ended,
	}
}

func (r *running) get(t *testing.T, client *http.Client, path string) (code int, body string) {
	t.Helper()
	response, err := client.Get("http://" + r.tcp.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// newConnections makes a client that connects for each request.
func newConnections() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func TestAnswersDatagramsFromTheAddressThatWasAsked(t *testing.T) {
	server := start(t)
	for _, address := range []netip.AddrPort{server.udp4, server.udp6} {
		conn, err := net.ListenUDP("udp", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if name, from := ask(t, conn, address); name != "me\n" || from != address {
			t.Errorf("asked %s, answer %q from %s", address, name, from)
		}
	}
}

func TestADatagramThatCannotBeAnsweredEndsNothing(t *testing.T) {
	server := start(t)
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	broadcast := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), server.udp4.Port())
	if err := allowBroadcast(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteToUDPAddrPort([]byte("?"), broadcast); err != nil {
		t.Fatal(err)
	}
	if name, from := ask(t, conn, server.udp4); name != "me\n" || from != server.udp4 {
		t.Errorf("answer %q from %s after a broadcast, want one from %s", name, from, server.udp4)
	}
}

// ask sends a datagram and returns the answer.
func ask(t *testing.T, conn *net.UDPConn, address netip.AddrPort) (string, netip.AddrPort) {
	t.Helper()
	if _, err := conn.WriteToUDPAddrPort([]byte("?"), address); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	n, from, err := conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n]), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func TestServesWhileItLeaves(t *testing.T) {
	server := start(t)
	open := &http.Client{Transport: &http.Transport{}}
	for _, path := range []string{"/", "/any/other"} {
		if code, body := server.get(t, open, path); code != http.StatusOK || body != "me\n" {
			t.Errorf("%s: %d %q, want the name", path, code, body)
		}
	}
	if code, _ := server.get(t, open, readyPath); code != http.StatusOK {
		t.Errorf("%s: %d, want it ready", readyPath, code)
	}
	server.leave()
	if code, _ := server.get(t, newConnections(), readyPath); code != http.StatusServiceUnavailable {
		t.Errorf("%s while it leaves: %d, want 503", readyPath, code)
	}
	for what, client := range map[string]*http.Client{"an open": open, "a new": newConnections()} {
		if code, body := server.get(t, client, "/"); code != http.StatusOK || body != "me\n" {
			t.Errorf("%s connection while it leaves: %d %q, want the name", what, code, body)
		}
	}
	server.end()
	if err := <-server.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := net.Dial("tcp", server.tcp.String()); err == nil {
		t.Error("takes connections after its end")
	}
}

func TestGraceStartsWithTheSignal(t *testing.T) {
	leaving, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	const grace = 200 * time.Millisecond
	go func() { ended <- run(leaving, "me", "127.0.0.1:0", ":0", grace) }()
	select {
	case err := <-ended:
		t.Fatalf("ended without a signal: %v", err)
	case <-time.After(2 * grace):
	}
	left := time.Now()
	leave()
	if err := <-ended; err != nil || time.Since(left) < grace {
		t.Errorf("ended with %v after %s, want %s", err, time.Since(left), grace)
	}
}

func allowBroadcast(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	})
	return errors.Join(err, failed)
}

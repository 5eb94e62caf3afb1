// Command responder is a real server for the lab: over HTTP and to each
// datagram it answers its own name, so that a test sees who served it.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// largestDatagram is all that UDP can carry.
const largestDatagram = 65535

func main() {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "responder"
	}
	flags := pflag.NewFlagSet("responder", pflag.ContinueOnError)
	name := flags.String("name", hostname, "what to answer")
	tcp := flags.String("tcp", ":80", "where to answer HTTP")
	udp := flags.String("udp", ":80", "where to answer datagrams")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = respond(ctx, *name, *tcp, *udp)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "responder:", err)
		os.Exit(1)
	}
}

// respond answers until ctx ends.
func respond(ctx context.Context, name, tcp, udp string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", tcp)
	if err != nil {
		return fmt.Errorf("listening for HTTP: %w", err)
	}
	packets, err := listenDatagrams(ctx, udp)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	body := []byte(name + "\n")
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(body)
		}),
	}
	failed := make(chan error, 3)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- packets.v4.answer(body) }()
	go func() { failed <- packets.v6.answer(body) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	return errors.Join(err, server.Close(), packets.v4.conn.Close(), packets.v6.conn.Close())
}

// datagrams are the sockets of both families. They are two, since a host that
// has its VIPs on lo must choose the source of an answer, and does so with the
// control messages of a family.
type datagrams struct {
	v4 inet4
	v6 inet6
}

type inet4 struct{ conn *ipv4.PacketConn }

type inet6 struct{ conn *ipv6.PacketConn }

func listenDatagrams(ctx context.Context, address string) (datagrams, error) {
	var config net.ListenConfig
	first, err := config.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return datagrams{}, fmt.Errorf("listening for datagrams of IPv4: %w", err)
	}
	second, err := config.ListenPacket(ctx, "udp6", address)
	if err != nil {
		return datagrams{}, errors.Join(fmt.Errorf("listening for datagrams of IPv6: %w", err), first.Close())
	}
	d := datagrams{v4: inet4{ipv4.NewPacketConn(first)}, v6: inet6{ipv6.NewPacketConn(second)}}
	if err := errors.Join(d.v4.conn.SetControlMessage(ipv4.FlagDst, true), d.v6.conn.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return datagrams{}, errors.Join(fmt.Errorf("asking for the address that was asked: %w", err), first.Close(), second.Close())
	}
	return d, nil
}

// answer answers each datagram from the address that it was sent to.
func (s inet4) answer(body []byte) error {
	buffer := make([]byte, largestDatagram)
	for {
		_, asked, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("reading datagrams: %w", err)
		}
		if _, err := s.conn.WriteTo(body, &ipv4.ControlMessage{Src: asked.Dst}, from); err != nil {
			return fmt.Errorf("answering a datagram: %w", err)
		}
	}
}

func (s inet6) answer(body []byte) error {
	buffer := make([]byte, largestDatagram)
	for {
		_, asked, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("reading datagrams: %w", err)
		}
		if _, err := s.conn.WriteTo(body, &ipv6.ControlMessage{Src: asked.Dst}, from); err != nil {
			return fmt.Errorf("answering a datagram: %w", err)
		}
	}
}

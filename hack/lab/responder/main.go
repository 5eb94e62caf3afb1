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
	packets, err := config.ListenPacket(ctx, "udp", udp)
	if err != nil {
		return errors.Join(fmt.Errorf("listening for datagrams: %w", err), listener.Close())
	}
	body := []byte(name + "\n")
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(body)
		}),
	}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(listener) }()
	go func() { failed <- answerDatagrams(packets, body) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	return errors.Join(err, server.Close(), packets.Close())
}

// answerDatagrams answers from the address that was asked only if the host
// has just one: with a VIP on lo the kernel would choose another source.
func answerDatagrams(conn net.PacketConn, body []byte) error {
	buffer := make([]byte, largestDatagram)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("reading datagrams: %w", err)
		}
		if _, err := conn.WriteTo(body, from); err != nil {
			return fmt.Errorf("answering a datagram: %w", err)
		}
	}
}

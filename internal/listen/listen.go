// Package listen serves metrics and health of a program on addresses of its
// command line.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Address returns what to listen on: a literal address and port, with or without
// brackets, an empty host for all addresses, or nothing for "0".
func Address(s string) (string, error) {
	if s == "0" {
		return "", nil
	}
	if port, all := strings.CutPrefix(s, ":"); all {
		s = "[::]:" + port
	}
	i := strings.LastIndex(s, ":")
	if i < 0 {
		return "", errors.New("has no port")
	}
	host, port := strings.Trim(s[:i], "[]"), s[i+1:]
	addr, err := netip.ParseAddrPort("[" + host + "]:" + port)
	if err != nil {
		if addr, err = netip.ParseAddrPort(host + ":" + port); err != nil {
			return "", errors.New("is no address and port")
		}
	}
	return addr.String(), nil
}

// Serve serves HTTP on an Address until ctx ends. One that can't be listened on is
// an error, and should end the program: if nobody can ask for its health it is
// killed for that later, and then again and again.
func Serve(ctx context.Context, address string, handler http.Handler) error {
	address, err := Address(address)
	if err != nil || address == "" {
		return err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", address, err)
	}
	return nil
}

// Health answers the kubelet's probes: /healthz by alive, /readyz by ready.
func Health(alive, ready func() error) http.Handler {
	mux := http.NewServeMux()
	answer := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux.HandleFunc("GET /healthz", answer(alive))
	mux.HandleFunc("GET /readyz", answer(ready))
	return mux
}

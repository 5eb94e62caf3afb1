package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	readyPath = "/readyz"
	// lastRequests is how long requests that are under way may take in the end.
	lastRequests = 5 * time.Second
)

// server answers its name to whoever asks.
type server struct {
	body     []byte
	listener net.Listener
	packets  datagrams
}

func listen(ctx context.Context, name, tcp, udp string) (*server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("listening for HTTP: %w", err)
	}
	packets, err := listenDatagrams(ctx, udp)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &server{body: []byte(name + "\n"), listener: listener, packets: packets}, nil
}

// serve answers until over ends. Once leaving has ended it says that it isn't
// ready, and answers all the same: new connections come until everyone who
// sends them knows.
func (s *server) serve(leaving, over context.Context) error {
	web := &http.Server{ReadHeaderTimeout: time.Minute, Handler: s.handler(leaving)}
	failed := make(chan error, 3)
	go func() { failed <- web.Serve(s.listener) }()
	go func() { failed <- s.packets.v4.answer(s.body) }()
	go func() { failed <- s.packets.v6.answer(s.body) }()
	var err error
	select {
	case err = <-failed:
	case <-over.Done():
		limited, cancel := context.WithTimeout(context.Background(), lastRequests)
		defer cancel()
		err = web.Shutdown(limited)
	}
	return errors.Join(err, web.Close(), s.packets.v4.conn.Close(), s.packets.v6.conn.Close())
}

func (s *server) handler(leaving context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(readyPath, func(w http.ResponseWriter, _ *http.Request) {
		if leaving.Err() != nil {
			http.Error(w, "leaving", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(s.body)
	})
	return mux
}

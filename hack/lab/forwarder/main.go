// Command forwarder takes connections on a socket that it inherits as
// descriptor 3 and connects each to one address. The lab opens the socket on
// the machine's loopback and starts the forwarder in a namespace, and so the
// API server can be reached without an address of the lab on the machine.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const dialLimit = 10 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: forwarder HOST:PORT")
		os.Exit(2)
	}
	if err := forward(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "forwarder:", err)
		os.Exit(1)
	}
}

func forward(to string) error {
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("using the inherited socket: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accepting a connection: %w", err)
		}
		go connect(conn, to)
	}
}

func connect(near net.Conn, to string) {
	defer near.Close()
	far, err := net.DialTimeout("tcp", to, dialLimit)
	if err != nil {
		return // the client sees the connection closed
	}
	defer far.Close()
	done := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, isTCP := to.(*net.TCPConn); isTCP {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pass(near, far)
	go pass(far, near)
	<-done
	<-done
}

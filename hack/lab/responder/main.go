// Command responder is a real server for the lab: over HTTP and to each
// datagram it answers its own name, so that a test sees who served it.
//
// It listens on all addresses, those that come later too, as a VIP on lo does,
// and answers from the one that it was asked at. As a good server it leaves in
// two steps: a SIGTERM makes /readyz fail and for the grace period nothing
// else, and then it takes nothing new and ends with the last request.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "responder"
	}
	flags := pflag.NewFlagSet("responder", pflag.ContinueOnError)
	name := flags.String("name", hostname, "what to answer")
	tcp := flags.String("tcp", ":80", "where to answer HTTP; "+readyPath+" says whether new requests are welcome")
	udp := flags.String("udp", ":80", "where to answer datagrams")
	grace := flags.Duration("grace", 0, "how long to go on serving after a SIGTERM, not ready")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, *name, *tcp, *udp, *grace)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "responder:", err)
		os.Exit(1)
	}
}

// run answers until leaving ends, and for the grace period after it.
func run(leaving context.Context, name, tcp, udp string, grace time.Duration) error {
	s, err := listen(leaving, name, tcp, udp)
	if err != nil {
		return err
	}
	over, end := context.WithCancel(context.Background())
	defer end()
	defer context.AfterFunc(leaving, func() { time.AfterFunc(grace, end) })()
	return s.serve(leaving, over)
}

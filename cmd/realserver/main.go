// Command realserver makes real servers for direct routing: it puts VIPs on lo and
// keeps the host from answering ARP for them. That is the host that it runs on,
// outside the cluster; realserver agent does it for pods of a node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/lvs-operator/lvs-operator/cmd/realserver/agent"
)

const usage = `realserver makes this host a real server for direct routing: VIPs are on lo, and
four sysctls keep the host from answering ARP for them.

Usage:
  realserver run --vip ADDRESS [--vip ADDRESS ...]   set up, repair, and put back at SIGTERM
  realserver run --once --vip ADDRESS ...            set up and leave it so
  realserver stop                                    put everything back as it was found
  realserver status                                  show what is set up
  realserver agent ...                               do it for the pods of a node of a cluster;
                                                     realserver agent --help says more

Exit status: 0 done; 1 failure; 2 misuse. Of status: 0 set up and complete; 3 not so;
4 unknown.

Flags:
`

// The exit status; those of `status` are the LSB's for init scripts.
const (
	exitDone    = 0
	exitFailure = 1
	exitMisuse  = 2
	exitNotSo   = 3
	exitUnknown = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "agent" {
		return agent.Run(ctx, args[1:], stdout, stderr)
	}
	options, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, usage, options.flags.FlagUsages())
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "realserver: %v\n", err)
		return exitMisuse
	}
	code := exitFailure
	switch options.command {
	case "run":
		err = keep(ctx, options, stderr)
	case "stop":
		err = putBack(ctx, options, stdout)
	case "status":
		return show(ctx, options, stdout, stderr)
	}
	if err == nil {
		code = exitDone
	}
	complain(stderr, err)
	return code
}

// complain prints an error on one line, also if it is several.
func complain(stderr io.Writer, err error) {
	if err != nil {
		fmt.Fprintf(stderr, "realserver: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// Command director runs a Linux Virtual Server director on a node: it programs
// IPVS, checks the health of real servers, takes part in the election of the
// directors of its pool and announces the VIPs that it is active for.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

const usage = `director runs a Linux Virtual Server director on this node.

Usage:
  director [flags]           serve the VIPs of the DirectorPool that selects the node
  director cleanup [flags]   take away all that directors left on the node: VIPs,
                             IPVS services, the nftables guard, changed sysctls
  director uninstall [flags] have all directors leave, and agents take VIPs off pods,
                             and wait until they have; needs the API server only

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status: 0, 1 for a failure, 2 for a misuse.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	options, err := parse(args, os.Getenv)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, usage, options.flags.FlagUsages())
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "director: %v\n", err)
		return 2
	case options.cleanup:
		err = cleanup(ctx, options, stdout)
	case options.uninstall:
		err = uninstallAll(ctx, options, stdout)
	default:
		err = serve(ctx, options, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "director: %v\n", err)
		return 1
	}
	return 0
}

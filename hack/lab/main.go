// Command lab runs a Kubernetes cluster on this machine whose nodes have IPVS,
// with hosts outside the cluster, to try, show and test the project in. It
// needs root, and gets everything else itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// usageError is a mistake in how the program was called.
type usageError struct{ error }

// exitError carries the exit code of a command that was run.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newCommand().ExecuteContext(ctx)
	stop()
	// A command's own exit is not ours to comment on.
	if _, isExit := errors.AsType[exitError](err); err != nil && !isExit {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if code, isExit := errors.AsType[exitError](err); isExit {
		return int(code)
	}
	if _, isUsage := errors.AsType[usageError](err); isUsage {
		return 2
	}
	return 1
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lab",
		Short: "A Kubernetes cluster with IPVS on this machine",
		Long: `A Kubernetes cluster on this machine: nodes are virtual machines with a kernel
that has IPVS, on a segment with hosts outside the cluster:

  director1.. 192.168.11.21..   worker1.. 192.168.11.31..   (management 10.99.0.x)
  pods of workers on the segment, if up is told so: from 192.168.11.140
  client 192.168.11.10   rs1 192.168.11.135   rs2 192.168.11.138
  router 192.168.11.1 and 192.168.12.1   far 192.168.12.10, behind the router`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              usage(cobra.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	name := root.PersistentFlags().String("name", "lvs", "the lab's `name`: several can be up on one machine")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		upCommand(name), downCommand(name), statusCommand(name), kubeconfigCommand(name), execCommand(name),
		killCommand(name), startCommand(name), stopCommand(name), cutCommand(name), healCommand(name),
		loadCommand(name), toolsCommand(),
	)
	return root
}

// usage makes a wrong number of arguments a usageError.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// Command runner plays the rounds of the takeover benchmark in its guest. The
// machine calls it three times a round: up, measure and down.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

const usage = `usage: runner up SYSTEM      build the network and start the system; returns when it serves
       runner measure EVENT  cause the event under load; writes what a client saw
       runner down           end and remove everything
       runner client EVENT   be the client: started by measure
       runner ask            ask a few times by the VIP: started by up
       runner hears          say whether this host's director hears the other: started by up`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "up":
		return up(ctx, plan.System(args[1]))
	case len(args) == 2 && args[0] == "measure":
		seen, err := measure(ctx, plan.Event(args[1]))
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(seen)
	case len(args) == 1 && args[0] == "down":
		return down(ctx)
	case len(args) == 2 && args[0] == "client":
		return beClient(ctx, plan.Event(args[1]), os.Stdin, os.Stdout)
	case len(args) == 1 && args[0] == "ask":
		return askOnce(ctx)
	case len(args) == 1 && args[0] == "hears":
		return hearsPeer(ctx)
	}
	return errors.New(usage)
}

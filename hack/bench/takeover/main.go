// Command takeover measures what clients see when a director or a real server
// fails: with keepalived from Debian, in the classic configuration and in a fast
// one, and with this project's directors, side by side in one guest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

const usage = `takeover compares takeovers of keepalived and of this project. It takes about
an hour for 5 rounds; a run that is interrupted goes on where it was when it is
started again. Every system has every event once before any has one twice.

Usage:
  takeover [flags]

Flags:
`

// options are the command line.
type options struct {
	systems    []plan.System
	events     []plan.Event
	schedulers []string
	rounds     int
	limit      time.Duration
	fresh      bool
	again      bool
	keep       bool
	name       string
	out        string
	logs       string
	docs       string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit status: 0, 1 for a failure, 2 for a misuse.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "takeover:", err)
		return 2
	}
	if err := compare(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "takeover:", err)
		return 1
	}
	return 0
}

func parse(args []string, help io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("takeover", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	systems := flags.StringSlice("systems", texts(plan.Systems()), "systems to compare")
	events := flags.StringSlice("events", texts(plan.Events()), "events to cause; steady-load too: ten minutes of nothing, ours alone, once")
	flags.StringSliceVar(&o.schedulers, "schedulers", []string{"wrr", "mh-port"}, "schedulers of ours, each a variant of its own; the first one for backend events too")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of each event and system")
	flags.DurationVar(&o.limit, "for", 0, "begin no round that may not end within this time from the start; 0 is no limit")
	flags.BoolVar(&o.fresh, "fresh", false, "forget what earlier runs have measured")
	flags.BoolVar(&o.again, "again", false, "play rounds again that could not be measured")
	flags.BoolVar(&o.keep, "keep", false, "leave the guest up at the end, to look around; the next run uses it")
	flags.StringVar(&o.name, "name", "bench", "name of the lab")
	flags.StringVar(&o.out, "out", "out/bench/takeover.json", "file for the results")
	flags.StringVar(&o.logs, "logs", "out/bench/logs", "folder for what the programs of each round wrote")
	flags.StringVar(&o.docs, "docs", "", "page that gets the table; none without")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprint(help, usage, flags.FlagUsages())
		}
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q; see --help", flags.Arg(0))
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("--rounds %d: use 1 or more", o.rounds)
	}
	if len(o.schedulers) == 0 {
		return o, errors.New("--schedulers names none")
	}
	var err error
	if o.systems, err = pick("systems", *systems, plan.Systems()); err != nil {
		return o, err
	}
	o.events, err = pick("events", *events, append(plan.Events(), plan.SteadyLoad))
	return o, err
}

func texts[T ~string](list []T) []string {
	all := make([]string, len(list))
	for i, item := range list {
		all[i] = string(item)
	}
	return all
}

// pick returns what the names name, in the order of all.
func pick[T ~string](flag string, names []string, all []T) ([]T, error) {
	for _, name := range names {
		if !slices.Contains(all, T(name)) {
			return nil, fmt.Errorf("--%s %q: there are %s", flag, name, strings.Join(texts(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(item T) bool { return !slices.Contains(names, string(item)) }), nil
}

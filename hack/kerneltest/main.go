// Command kerneltest runs the tests of packages that need a kernel with IPVS
// and root: in a guest with Debian's kernel, or, where this machine's own
// kernel has IPVS and we are root, right here.
//
//	go run ./hack/kerneltest [-run REGEXP] [-v] PACKAGE...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
)

// errTests says that tests failed; the report tells which.
var errTests = errors.New("tests failed")

type options struct {
	packages    []string
	run         string
	verbose     bool
	race        bool
	count       int
	where       string
	accelerator guest.Accelerator
	memoryMiB   int
	cpus        int
	timeout     time.Duration
}

func main() {
	opts, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opts, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kerneltest:", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("kerneltest", flag.ContinueOnError)
	// The flag package would print its own message and the whole usage.
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.run, "run", "", "run only the tests that match this `regexp`")
	flags.BoolVar(&opts.verbose, "v", false, "show the output of tests that pass, and at once")
	flags.BoolVar(&opts.race, "race", false, "look for data races (links with cgo, statically)")
	flags.IntVar(&opts.count, "count", 1, "run each test this `often`")
	flags.StringVar(&opts.where, "in", "auto", "where to run: guest, host, or auto, which takes host if its kernel has IPVS and we are root")
	accelerator := flags.String("accelerator", string(guest.Auto), "how the guest runs: kvm, tcg, or auto, which tries")
	flags.IntVar(&opts.memoryMiB, "memory", 1024, "the guest's memory in `MiB`")
	flags.IntVar(&opts.cpus, "cpus", 0, "how many CPUs the guest has; 0 for what is fastest")
	flags.DurationVar(&opts.timeout, "timeout", 10*time.Minute, "end the guest after this time")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(usage, "usage: kerneltest [flags] PACKAGE...")
		flags.SetOutput(usage)
		flags.PrintDefaults()
		return opts, err
	}
	if err != nil {
		return opts, err
	}
	opts.packages = flags.Args()
	if len(opts.packages) == 0 {
		return opts, errors.New("name the packages to test, such as ./internal/kernel")
	}
	if opts.where != "auto" && opts.where != "guest" && opts.where != "host" {
		return opts, fmt.Errorf("-in %q: use auto, guest or host", opts.where)
	}
	opts.accelerator, err = guest.ParseAccelerator(*accelerator)
	return opts, err
}

func run(ctx context.Context, opts options, out io.Writer) error {
	scratch, err := os.MkdirTemp("", "lvs-kerneltest-")
	if err != nil {
		return fmt.Errorf("making a scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	binaries, err := compile(ctx, opts, scratch)
	if err != nil {
		return err
	}
	results := newResults(binaries, opts, out)
	if useHost(opts.where) {
		fmt.Fprintln(out, "kerneltest: this machine's kernel has IPVS: running in network namespaces of this machine")
		err = runHere(ctx, binaries, results)
	} else {
		err = runInGuest(ctx, opts, binaries, scratch, results)
	}
	return errors.Join(err, results.close())
}

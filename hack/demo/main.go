// Command demo runs the classic LVS set-up on a real cluster in the lab, and
// shows what a client sees when real servers and directors fail and come back.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/lvs-operator/lvs-operator/hack/deploy"
	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// options are the command line.
type options struct {
	keep      bool
	name      string
	out       string
	agreement string
}

func run(ctx context.Context, args []string) int {
	var o options
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.BoolVar(&o.keep, "keep", false, "leave the lab up at the end, to look around")
	flags.StringVar(&o.name, "name", "lvs", "name of the lab")
	flags.StringVar(&o.out, "out", "out/demo.json", "file for the measured numbers")
	flags.StringVar(&o.agreement, "agreement", "out/demo-agreement.json", "file for whether what kubectl shows agreed")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 2
	}
	if err := show(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// show runs the whole demo. The lab goes down at the end, however it ends,
// unless it is to be kept.
func show(ctx context.Context, o options, out io.Writer) (err error) {
	config := cluster.Defaults(o.name)
	// Pods on the directors' segment.
	config.Directors, config.Workers, config.Pods = 2, 1, []cluster.PodNetwork{cluster.PodsMacvlan}
	lab, err := cluster.Up(ctx, config, out)
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			return
		}
		fmt.Fprintln(out, "\nTaking the lab down (KEEP=1 keeps it).")
		err = errors.Join(err, cluster.Down(context.WithoutCancel(ctx), o.name))
	}()
	d, err := deploy.New(ctx, lab, out)
	if err != nil {
		return err
	}
	s, err := newStage(ctx, d, out)
	if err != nil {
		return err
	}
	agreed := s.watchAgreement(ctx)
	steps, err := s.play(ctx)
	shown := agreed()
	if len(steps) > 0 {
		err = errors.Join(err, write(o.out, steps), write(o.agreement, shown))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s.\n", shown)
	s.lookAround(lab.Kubeconfig())
	fmt.Fprintf(out, "\nThe numbers are in %s and %s.\n", o.out, o.agreement)
	if err := shown.Err(); err != nil {
		return fmt.Errorf("what kubectl shows did not agree throughout: %w", err)
	}
	return nil
}

// write stores what was measured.
func write(path string, measured any) error {
	text, err := json.MarshalIndent(measured, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the numbers: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// milliseconds is a duration as the numbers have it.
func milliseconds(d time.Duration) *int64 {
	ms := d.Milliseconds()
	return &ms
}

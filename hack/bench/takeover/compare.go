package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
)

const (
	// roundLimit is many times what a round takes besides its event.
	roundLimit = 8 * time.Minute
	// cleanLimit bounds what is done at the end of an interrupted run.
	cleanLimit = 2 * time.Minute
	// memoryMiB is the guest's.
	memoryMiB = 1536
)

// compare plays what is left to play and writes the results, those of an interrupted
// run too. A round that could not be measured is a row too, and an error in the end.
func compare(ctx context.Context, o options, out io.Writer) error {
	results, err := openResults(o.out, o.fresh)
	if err != nil {
		return err
	}
	var left []round
	all := schedule(o)
	for _, one := range all {
		if !results.has(one, o.again) {
			left = append(left, one)
		}
	}
	fmt.Fprintf(out, "%d rounds, %d of them left to play.\n", len(all), len(left))
	if len(left) > 0 {
		err = playAll(ctx, o, left, results, out)
	}
	if len(results.rows) == 0 {
		return err
	}
	fmt.Fprintf(out, "\n%s", section(results.rows))
	if o.docs != "" {
		err = errors.Join(err, writeSection(o.docs, section(results.rows)))
	}
	fmt.Fprintf(out, "\nThe numbers are in %s.\n", o.out)
	return errors.Join(err, failures(results.rows))
}

// failures says how many rounds could not be measured.
func failures(rows []row) error {
	failed := 0
	for _, r := range rows {
		if r.Error != "" {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d rounds could not be measured; --again plays them again", failed)
	}
	return nil
}

// playAll plays rounds in a guest, which goes down at the end, however it ends,
// unless it is to be kept.
func playAll(ctx context.Context, o options, rounds []round, results *results, out io.Writer) (err error) {
	begin, costs := time.Now(), budget{}
	config := cluster.Defaults(o.name)
	config.Directors, config.Workers, config.Bare, config.MemoryMiB = 0, 1, true, memoryMiB
	lab, err := cluster.Up(ctx, config, out)
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			return
		}
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
		defer cancel()
		err = errors.Join(err, cluster.Down(clean, o.name))
	}()
	s, err := newStage(ctx, lab, o.logs, out)
	if err != nil {
		return err
	}
	for i, one := range rounds {
		began := time.Now()
		if o.limit > 0 && began.Sub(begin)+costs.of(one) > o.limit {
			fmt.Fprintf(out, "The time is up; %d rounds are left for another run.\n", len(rounds)-i)
			return nil
		}
		r := row{round: one, At: began.Format(time.RFC3339), Commit: s.commit, Machine: s.machine}
		limited, cancel := context.WithTimeout(ctx, roundLimit+one.Event.After())
		var spent laps
		r.Seen, spent, err = s.play(limited, one)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted in %s: %w", one, ctx.Err())
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := results.add(r); err != nil {
			return err
		}
		costs.note(one, time.Since(began))
		fmt.Fprintf(out, "%3d/%d  %-44s %s  (%s)\n", i+1, len(rounds), one, outcome(r), spent)
	}
	return nil
}

func outcome(r row) string {
	if r.Error != "" {
		return "NOT MEASURED: " + r.Error
	}
	return fmt.Sprintf("outage %5d ms, %3d of %d failed, %2d of %d open connections lived",
		r.OutageMs, r.Failed, r.Requests, r.Survived, r.OpenConnections)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

// round is one to play, and names its row.
type round struct {
	System plan.System `json:"system"`
	// Variant is the scheduler, for ours, with its flags behind hyphens as ipvsadm
	// has them; keepalived's is always the classic wrr.
	Variant string     `json:"variant,omitempty"`
	Event   plan.Event `json:"event"`
	Round   int        `json:"round"`
}

func (r round) String() string {
	name := string(r.System)
	if r.Variant != "" {
		name += " " + r.Variant
	}
	return fmt.Sprintf("%s, %s, round %d", name, r.Event, r.Round)
}

// cause is what happens in the round: to whom does not use the API server, it makes
// no difference whether that is away.
func (r round) cause() plan.Event {
	if r.Event == plan.APIAwayCrash && r.System != plan.Ours {
		return plan.NodeCrash
	}
	return r.Event
}

// row is a line of out/bench/takeover.json.
type row struct {
	round
	plan.Seen
	// Error says why the round could not be measured: its numbers mean nothing.
	Error string `json:"error,omitempty"`
	// At is when it was measured, in the format of RFC 3339, Commit what of and
	// Machine what on.
	At      string `json:"at"`
	Commit  string `json:"commit"`
	Machine string `json:"machine"`
}

// results are the rows of a file, which has each as soon as it is there: a run
// that is interrupted loses the round that it was in, and no other.
type results struct {
	file string
	rows []row
}

// openResults reads what earlier runs have measured, unless it is to begin anew.
func openResults(file string, fresh bool) (*results, error) {
	r := &results{file: file}
	if fresh {
		return r, nil
	}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &r.rows)
	}
	if err != nil {
		return nil, fmt.Errorf("reading earlier results (--fresh begins anew): %w", err)
	}
	return r, nil
}

// has says whether a round was played, with whatever result; one that could not be
// measured only if failed rounds are not to be played again.
func (r *results) has(one round, again bool) bool {
	return slices.ContainsFunc(r.rows, func(done row) bool {
		return done.round == one && (done.Error == "" || !again)
	})
}

// add stores a row, in place of an earlier one of the round.
func (r *results) add(one row) error {
	r.rows = slices.DeleteFunc(r.rows, func(done row) bool { return done.round == one.round })
	r.rows = append(r.rows, one)
	text, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.file), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", r.file, err)
	}
	draft := r.file + ".draft"
	if err := os.WriteFile(draft, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.Rename(draft, r.file); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

// schedule lists all rounds in the order in which they are played: side by side,
// so that whatever changes on the machine meanwhile changes for all systems.
func schedule(o options) []round {
	var all []round
	for number := range o.rounds {
		for _, event := range o.events {
			for _, system := range o.systems {
				for _, variant := range variants(o, event, system, number) {
					all = append(all, round{System: system, Variant: variant, Event: event, Round: number + 1})
				}
			}
		}
	}
	return all
}

// variants lists those in which a system plays a round of an event; none if it
// does not.
func variants(o options, event plan.Event, system plan.System, number int) []string {
	switch {
	case event == plan.SteadyLoad && (number > 0 || system != plan.Ours):
		return nil
	case system != plan.Ours:
		return []string{""}
	case event.Backend():
		// How fast a real server is taken out is not the scheduler's doing.
		return o.schedulers[:1]
	default:
		return o.schedulers
	}
}

// Package agreement watches whether all that kubectl shows of who serves says
// the same: the Lease, the column DIRECTOR of a VirtualServer, and the column
// ACTIVE of the Directors.
package agreement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Grace is how long after a change of role they may differ.
const Grace = 3 * time.Second

// Sample is what they showed at one time.
type Sample struct {
	// Began and Ended are when it was read; the Lease was read last, since all
	// else follows it.
	Began, Ended time.Time
	// Holder is the Lease's, empty if it has none.
	Holder string
	// Shown are the directors that the VirtualServer names.
	Shown []string
	// Active are the Directors that are alive and show that they are active.
	Active []string
}

// agrees says whether all name the same director, and no other.
func (s Sample) agrees() bool {
	only := []string{s.Holder}
	return s.Holder != "" && slices.Equal(s.Shown, only) && slices.Equal(s.Active, only)
}

// Disagreement is a sample that differs too long after a change of role.
type Disagreement struct {
	At time.Time `json:"at"`
	// SinceChangeMs is how long before it the Lease's holder was last seen to
	// change.
	SinceChangeMs int64    `json:"sinceChangeMs"`
	Holder        string   `json:"holder"`
	Director      []string `json:"director"`
	Active        []string `json:"active"`
}

// Report is what became of the samples.
type Report struct {
	Samples int `json:"samples"`
	// Judged are those that were taken late enough after a change of role.
	Judged int `json:"judged"`
	// Missed could not be taken, since the API server did not answer.
	Missed        int            `json:"missed"`
	Disagreements []Disagreement `json:"disagreements"`
}

// Judge looks at samples in the order of their times. A change of role is any
// change of the Lease's holder from one to the next. What was before the first
// nobody knows, so it counts as one.
func Judge(samples []Sample) Report {
	report := Report{Samples: len(samples), Disagreements: []Disagreement{}}
	var changed time.Time
	for i, sample := range samples {
		if i == 0 || sample.Holder != samples[i-1].Holder {
			changed = sample.Ended
		}
		since := sample.Began.Sub(changed)
		if since <= Grace {
			continue
		}
		report.Judged++
		if !sample.agrees() {
			report.Disagreements = append(report.Disagreements, Disagreement{
				At: sample.Began, SinceChangeMs: since.Milliseconds(),
				Holder: sample.Holder, Director: sample.Shown, Active: sample.Active,
			})
		}
	}
	return report
}

// Err returns the first disagreement, or that nothing was judged; nil if all
// agree.
func (r Report) Err() error {
	if len(r.Disagreements) > 0 {
		d := r.Disagreements[0]
		return fmt.Errorf("%d of %d samples disagree; at %s, %d ms after the last change of role, the Lease was %q's, DIRECTOR was %q and ACTIVE %q",
			len(r.Disagreements), r.Judged, d.At.Format(time.TimeOnly), d.SinceChangeMs, d.Holder, strings.Join(d.Director, ","), strings.Join(d.Active, ","))
	}
	if r.Judged == 0 {
		return errors.New("no sample was late enough after a change of role to be judged")
	}
	return nil
}

// String is the report in one line.
func (r Report) String() string {
	return fmt.Sprintf("Lease, DIRECTOR and ACTIVE: %d samples, %d of them later than %s after a change of role, %d disagreements, %d missed",
		r.Samples, r.Judged, Grace, len(r.Disagreements), r.Missed)
}

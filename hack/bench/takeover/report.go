package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/bench/takeover/plan"
)

// The table's place in a page: what is between is replaced.
const (
	tableBegin = "<!-- takeover: written by make bench-takeover -->"
	tableEnd   = "<!-- takeover: end -->"
)

// statistics are the median, the smallest and the largest of some numbers.
type statistics struct{ median, least, most int64 }

// statisticsOf counts numbers, at least one; of an even number of them the median
// is the mean of the two in the middle.
func statisticsOf(numbers []int64) statistics {
	sorted := slices.Sorted(slices.Values(numbers))
	n := len(sorted)
	return statistics{median: (sorted[(n-1)/2] + sorted[n/2]) / 2, least: sorted[0], most: sorted[n-1]}
}

// String is the median, with the range if there is one.
func (s statistics) String() string {
	if s.least == s.most {
		return fmt.Sprint(s.median)
	}
	return fmt.Sprintf("%d (%d to %d)", s.median, s.least, s.most)
}

// series are the rounds of a system and an event.
type series struct {
	name   string
	event  plan.Event
	rows   []row
	failed int
}

// group sorts rows into series, in the order of events and systems.
func group(rows []row) []series {
	var all []series
	for _, event := range append(plan.Events(), plan.SteadyLoad) {
		for _, system := range plan.Systems() {
			for _, variant := range variantsOf(rows, system) {
				if s := seriesOf(rows, event, system, variant); len(s.rows)+s.failed > 0 {
					all = append(all, s)
				}
			}
		}
	}
	return all
}

func seriesOf(rows []row, event plan.Event, system plan.System, variant string) series {
	s := series{name: string(system), event: event}
	if variant != "" {
		s.name += ", " + variant
	}
	for _, r := range rows {
		switch {
		case r.Event != event || r.System != system || r.Variant != variant:
		case r.Error != "":
			s.failed++
		default:
			s.rows = append(s.rows, r)
		}
	}
	return s
}

// variantsOf lists a system's variants in the order in which they came first.
func variantsOf(rows []row, system plan.System) []string {
	var variants []string
	for _, r := range rows {
		if r.System == system && !slices.Contains(variants, r.Variant) {
			variants = append(variants, r.Variant)
		}
	}
	return variants
}

// values takes a number from each row.
func (s series) values(of func(row) int64) statistics {
	numbers := make([]int64, len(s.rows))
	for i, r := range s.rows {
		numbers[i] = of(r)
	}
	return statisticsOf(numbers)
}

// table is the rows in Markdown: medians and ranges.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| event | system | rounds | outage, ms | failing, ms | failed of requests | open connections that lived | moves |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, s := range group(rows) {
		rounds := fmt.Sprint(len(s.rows))
		if s.failed > 0 {
			rounds += fmt.Sprintf(", and %d that could not be measured", s.failed)
		}
		if len(s.rows) == 0 {
			fmt.Fprintf(&b, "| %s | %s | %s | | | | | |\n", s.event, s.name, rounds)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s of %d | %s of %d | %s |\n", s.event, s.name, rounds,
			s.values(func(r row) int64 { return r.OutageMs }),
			s.values(func(r row) int64 { return r.FailingMs }),
			s.values(func(r row) int64 { return int64(r.Failed) }),
			s.values(func(r row) int64 { return int64(r.Requests) }).median,
			s.values(func(r row) int64 { return int64(r.Survived) }), plan.Open,
			s.values(func(r row) int64 { return int64(r.Moves) }))
	}
	return b.String()
}

// section is the table with where, when and of what it was measured.
func section(rows []row) string {
	var machines, commits, days []string
	for _, r := range rows {
		day, _, _ := strings.Cut(r.At, "T")
		machines, commits, days = include(machines, r.Machine), include(commits, r.Commit), include(days, day)
	}
	slices.Sort(days)
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, of commit %s, on: %s.\n", strings.Join(days, ", "), strings.Join(commits, ", "), strings.Join(machines, "; "))
	if len(commits) > 1 || len(machines) > 1 {
		b.WriteString("**Rounds of several commits or machines are mixed here.**\n")
	}
	if starved := starvedOf(rows); starved > 0 {
		fmt.Fprintf(&b, "**In %d rounds the client had no time for all of its requests: the machine was busy, and the numbers are not good.**\n", starved)
	}
	b.WriteString("\n" + table(rows))
	for _, r := range rows {
		if r.MovedBefore > 0 && r.Error == "" {
			fmt.Fprintf(&b, "\nMoved %d times for no reason, before the event: %s\n", r.MovedBefore, r.round)
		}
		if r.Error != "" {
			fmt.Fprintf(&b, "\nNot measured: %s: %s\n", r.round, strings.ReplaceAll(r.Error, "\n", " "))
		}
	}
	return b.String()
}

// starvedOf counts the rounds with less than nine tenths of the requests that the
// client was to make.
func starvedOf(rows []row) int {
	starved := 0
	for _, r := range rows {
		if r.Error == "" && r.Starved() {
			starved++
		}
	}
	return starved
}

// include adds what is not there yet.
func include(list []string, item string) []string {
	if slices.Contains(list, item) {
		return list
	}
	return append(list, item)
}

// writeSection replaces the section of a page. A page without its marks gets them
// at its end, and one that is not there is made.
func writeSection(file, text string) error {
	content, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	page, err := replaceSection(string(content), text)
	if err != nil {
		return fmt.Errorf("writing the table into %s: %w", file, err)
	}
	if err := os.WriteFile(file, []byte(page), 0o644); err != nil {
		return fmt.Errorf("writing the table: %w", err)
	}
	return nil
}

func replaceSection(page, text string) (string, error) {
	before, rest, found := strings.Cut(page, tableBegin)
	if !found {
		return page + tableBegin + "\n" + text + tableEnd + "\n", nil
	}
	_, after, found := strings.Cut(rest, tableEnd)
	if !found {
		return "", fmt.Errorf("%q has no end", tableBegin)
	}
	return before + tableBegin + "\n" + text + tableEnd + after, nil
}

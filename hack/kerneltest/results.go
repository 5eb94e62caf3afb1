package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/lvs-operator/lvs-operator/hack/kerneltest/plan"
)

// results judges the runner's events and prints them the way go test does.
type results struct {
	binaries []testBinary
	verbose  bool
	// filtered is set if the user asked for some tests only: then a package
	// without a match is no fault, as long as another has one.
	filtered bool
	out      io.Writer
	states   []state
}

type state struct {
	output                  bytes.Buffer
	passed, failed, skipped int
	partial                 []byte
	done                    bool
	exit                    int
}

func newResults(binaries []testBinary, opts options, out io.Writer) *results {
	return &results{
		binaries: binaries, verbose: opts.verbose, filtered: opts.run != "", out: out,
		states: make([]state, len(binaries)),
	}
}

// take handles one event.
func (r *results) take(event plan.Event) {
	if event.Binary < 0 || event.Binary >= len(r.states) {
		return
	}
	s := &r.states[event.Binary]
	s.count(event.Output)
	if r.verbose {
		_, _ = r.out.Write(event.Output)
	} else {
		s.output.Write(event.Output)
	}
	if !event.Done {
		return
	}
	s.done, s.exit = true, event.Exit
	if verdict := s.verdict(r.filtered); verdict != "" {
		_, _ = r.out.Write(s.output.Bytes())
		fmt.Fprintf(r.out, "FAIL\t%s\t%.3fs\t%s\n", r.binaries[event.Binary].importPath, event.Seconds, verdict)
	} else {
		fmt.Fprintf(r.out, "ok  \t%s\t%.3fs\t%d passed, %d skipped\n",
			r.binaries[event.Binary].importPath, event.Seconds, s.passed, s.skipped)
	}
	s.output.Reset()
}

// verdict is why the binary failed, or nothing.
func (s *state) verdict(filtered bool) string {
	switch {
	case s.exit != 0:
		return fmt.Sprintf("exit status %d, %d passed, %d failed", s.exit, s.passed, s.failed)
	case s.passed+s.failed == 0 && s.skipped > 0:
		return "ran no test: all were skipped"
	case s.passed+s.failed == 0 && !filtered:
		return "ran no test"
	}
	return ""
}

// count looks for the lines that -test.v ends each top-level test with.
func (s *state) count(output []byte) {
	s.partial = append(s.partial, output...)
	for {
		line, rest, found := bytes.Cut(s.partial, []byte("\n"))
		if !found {
			return
		}
		s.partial = rest
		switch {
		case bytes.HasPrefix(line, []byte("--- PASS:")):
			s.passed++
		case bytes.HasPrefix(line, []byte("--- FAIL:")):
			s.failed++
		case bytes.HasPrefix(line, []byte("--- SKIP:")):
			s.skipped++
		}
	}
}

// close prints what is left, sums up and returns errTests unless all is well.
func (r *results) close() error {
	var passed, failed, skipped int
	var bad []string
	for i := range r.states {
		s := &r.states[i]
		passed, failed, skipped = passed+s.passed, failed+s.failed, skipped+s.skipped
		name := r.binaries[i].importPath
		if !s.done {
			_, _ = r.out.Write(s.output.Bytes())
			fmt.Fprintf(r.out, "FAIL\t%s\tdid not finish\n", name)
			bad = append(bad, name)
		} else if s.verdict(r.filtered) != "" {
			bad = append(bad, name)
		}
	}
	if passed+failed == 0 {
		fmt.Fprintln(r.out, "FAIL\tno test was run")
		bad = append(bad, "")
	}
	if len(bad) > 0 && failed == 0 {
		failed = 1
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if len(bad) > 0 {
		fmt.Fprintf(r.out, "FAIL %s\n", strings.TrimSpace(strings.Join(bad, " ")))
		return errTests
	}
	return nil
}

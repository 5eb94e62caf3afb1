package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lvs-operator/lvs-operator/hack/kerneltest/plan"
)

func TestVerdicts(t *testing.T) {
	pass := plan.Event{Output: []byte("=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n")}
	done := plan.Event{Done: true}
	cases := map[string]struct {
		events   []plan.Event
		filtered bool
		wantOK   bool
		want     string
	}{
		"a pass":               {events: []plan.Event{pass, done}, wantOK: true, want: "1 passed, 0 failed, 0 skipped"},
		"a subtest is no test": {events: []plan.Event{{Output: []byte("    --- PASS: TestA/b (0.00s)\n")}, done}, want: "ran no test"},
		"a failure": {
			events: []plan.Event{{Output: []byte("--- FAIL: TestA (0.00s)\nFAIL\n")}, {Done: true, Exit: 1}},
			want:   "0 passed, 1 failed, 0 skipped",
		},
		"a panic after a pass":       {events: []plan.Event{pass, {Done: true, Exit: 2}}, want: "exit status 2"},
		"a guest that died":          {events: []plan.Event{pass}, want: "did not finish"},
		"no test":                    {events: []plan.Event{{Output: []byte("PASS\n")}, done}, want: "ran no test"},
		"all skipped":                {events: []plan.Event{{Output: []byte("--- SKIP: TestA (0.00s)\nPASS\n")}, done}, want: "all were skipped"},
		"nothing matches the filter": {events: []plan.Event{{Output: []byte("PASS\n")}, done}, filtered: true, want: "no test was run"},
		"a line in two pieces": {
			events: []plan.Event{{Output: []byte("--- PA")}, {Output: []byte("SS: TestA (0.00s)\n")}, done},
			wantOK: true, want: "1 passed",
		},
		"an event of no binary": {events: []plan.Event{{Binary: 7}, pass, done}, wantOK: true, want: "1 passed"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			opts := options{}
			if tc.filtered {
				opts.run = "X"
			}
			results := newResults([]testBinary{{importPath: "example.org/a"}}, opts, &out)
			for _, event := range tc.events {
				results.take(event)
			}
			err := results.close()
			if (err == nil) != tc.wantOK || (err != nil && !errors.Is(err, errTests)) {
				t.Errorf("close() = %v, want ok: %t", err, tc.wantOK)
			}
			if !strings.Contains(out.String(), tc.want) {
				t.Errorf("output %q, want %q in it", out.String(), tc.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	opts, err := parse([]string{"-run", "TestA", "-v", "-race=false", "./x"}, io.Discard)
	if err != nil || opts.run != "TestA" || !opts.verbose || opts.race || len(opts.packages) != 1 {
		t.Errorf("parse() = %+v, %v", opts, err)
	}
	for _, args := range [][]string{{}, {"-wrong", "x"}, {"-in", "space", "x"}, {"-accelerator", "steam", "x"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("parse(%q) = nil, want an error", args)
		}
	}
}

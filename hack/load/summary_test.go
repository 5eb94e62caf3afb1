package load

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummarize(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	refused := errors.New("refused")
	at := func(ms int, server string, err error) Result {
		return Result{Start: noon.Add(time.Duration(ms) * time.Millisecond), Server: server, Err: err}
	}
	cases := map[string]struct {
		results []Result
		want    Summary
	}{
		"nothing": {want: Summary{PerServer: map[string]int{}}},
		"answers are counted by server": {
			results: []Result{at(0, "rs1", nil), at(20, "rs2", nil), at(40, "rs2", nil)},
			want:    Summary{Requests: 3, PerServer: map[string]int{"rs1": 1, "rs2": 2}},
		},
		"an outage lasts from the first failure to the next success, whatever the order of results": {
			results: []Result{at(300, "rs1", nil), at(100, "", refused), at(0, "rs1", nil), at(200, "", refused)},
			want: Summary{
				Requests: 4, Failed: 2, PerServer: map[string]int{"rs1": 2},
				Outage: 200 * time.Millisecond, Failing: 200 * time.Millisecond, Errors: []string{"refused"},
			},
		},
		"the longest outage counts, and from the first to the last failure it fails": {
			results: []Result{at(0, "", refused), at(20, "rs1", nil), at(40, "", refused), at(90, "rs1", nil)},
			want: Summary{
				Requests: 4, Failed: 2, PerServer: map[string]int{"rs1": 2},
				Outage: 50 * time.Millisecond, Failing: 90 * time.Millisecond, Errors: []string{"refused"},
			},
		},
		"an outage that does not end lasts to the last request": {
			results: []Result{at(0, "rs1", nil), at(20, "", refused), at(140, "", refused)},
			want: Summary{
				Requests: 3, Failed: 2, PerServer: map[string]int{"rs1": 1},
				Outage: 120 * time.Millisecond, Failing: 120 * time.Millisecond, Errors: []string{"refused"},
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Summarize(tc.results)); diff != "" {
				t.Errorf("Summarize() (-want +got):\n%s", diff)
			}
		})
	}
}

package agreement

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	// A sample's second, holder, DIRECTOR and ACTIVE.
	at := func(second int, holder string, shown, active []string) Sample {
		began := noon.Add(time.Duration(second) * time.Second)
		return Sample{Began: began, Ended: began.Add(10 * time.Millisecond), Holder: holder, Shown: shown, Active: active}
	}
	a, b, both := []string{"a"}, []string{"b"}, []string{"a", "b"}
	all := func(from, to int, name string) (samples []Sample) {
		for second := from; second < to; second++ {
			samples = append(samples, at(second, name, []string{name}, []string{name}))
		}
		return samples
	}
	join := func(parts ...[]Sample) (samples []Sample) {
		for _, part := range parts {
			samples = append(samples, part...)
		}
		return samples
	}
	wrong := func(samples []Sample, i int, sinceMs int64) Disagreement {
		s := samples[i]
		return Disagreement{At: s.Began, SinceChangeMs: sinceMs, Holder: s.Holder, Director: s.Shown, Active: s.Active}
	}
	takeover := join(all(0, 6, "a"), []Sample{at(6, "b", a, a), at(7, "b", a, both), at(8, "b", b, both), at(9, "b", b, both)}, all(10, 12, "b"))
	slow := join(all(0, 6, "a"), []Sample{at(6, "b", a, a), at(7, "b", a, a), at(8, "b", a, a), at(9, "b", a, a), at(10, "b", b, both)})
	nobody := join(all(0, 5, "a"), []Sample{at(5, "a", a, nil)})
	unheld := join(all(0, 2, "a"), []Sample{at(2, "", a, a), at(3, "", nil, nil), at(4, "", nil, nil), at(5, "", nil, nil), at(6, "", nil, nil)})
	unshown := join(all(0, 5, "a"), []Sample{at(5, "a", nil, a)})
	second := join(all(0, 5, "a"), []Sample{at(5, "a", a, both)})
	for name, tc := range map[string]struct {
		samples    []Sample
		wantJudged int
		want       []Disagreement
	}{
		"nothing":                      {nil, 0, []Disagreement{}},
		"all agree":                    {all(0, 10, "a"), 6, []Disagreement{}},
		"the first ones are not known": {[]Sample{at(0, "a", nil, nil), at(3, "a", nil, nil)}, 0, []Disagreement{}},
		"all follow in time":           {takeover, 2 + 2, []Disagreement{}},
		"the displays are slow":        {slow, 2 + 1, []Disagreement{wrong(slow, 10, 3990)}},
		"no director is active":        {nobody, 2, []Disagreement{wrong(nobody, 5, 4990)}},
		"two directors are active":     {second, 2, []Disagreement{wrong(second, 5, 4990)}},
		"DIRECTOR is empty":            {unshown, 2, []Disagreement{wrong(unshown, 5, 4990)}},
		"nobody holds the Lease":       {unheld, 1, []Disagreement{wrong(unheld, 6, 3990)}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge(tc.samples)
			want := Report{Samples: len(tc.samples), Judged: tc.wantJudged, Disagreements: tc.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if fails := got.Err() != nil; fails != (len(tc.want) > 0 || tc.wantJudged == 0) {
				t.Errorf("err = %v", got.Err())
			}
		})
	}
}

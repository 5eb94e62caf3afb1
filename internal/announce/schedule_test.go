package announce

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const refresh = time.Minute

// moments takes all that is due until the end, each the moment it is.
func moments(t *timetable, end time.Time) map[netip.Addr][]time.Duration {
	out := map[netip.Addr][]time.Duration{}
	for due, ok := t.next(); ok && due.Before(end); due, ok = t.next() {
		vip, _ := t.take(due)
		out[vip] = append(out[vip], due.Sub(epoch))
	}
	return out
}

func TestVIPIsAnnouncedInABurstAndThenRefreshed(t *testing.T) {
	table := newTimetable(refresh)
	table.start(vip4, epoch)
	table.start(vip6, epoch.Add(30*time.Millisecond))

	const ms, s = time.Millisecond, time.Second
	want := []time.Duration{
		0, 50 * ms, 150 * ms, 400 * ms, 1 * s, 2 * s, 5 * s, 10 * s, 20 * s, 40 * s, 100 * s, 160 * s,
	}
	var later []time.Duration
	for _, at := range want {
		later = append(later, at+30*ms)
	}
	got := moments(table, epoch.Add(200*s))
	if diff := cmp.Diff(map[netip.Addr][]time.Duration{vip4: want, vip6: later}, got, compareAddrs); diff != "" {
		t.Errorf("announcements (-want +got):\n%s", diff)
	}
}

func TestRestartBeginsTheScheduleAgain(t *testing.T) {
	table := newTimetable(refresh)
	table.start(vip4, epoch)
	moments(table, epoch.Add(time.Hour))
	now := epoch.Add(time.Hour)
	table.start(vip4, now)
	got := moments(table, now.Add(100*time.Millisecond))[vip4]
	want := []time.Duration{time.Hour, time.Hour + 50*time.Millisecond}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("announcements (-want +got):\n%s", diff)
	}
}

func TestStoppedVIPIsNotAnnounced(t *testing.T) {
	table := newTimetable(refresh)
	table.start(vip4, epoch)
	table.start(vip4b, epoch)
	table.stop(vip4)
	table.stop(vip6)
	if got := moments(table, epoch.Add(time.Hour)); len(got) != 1 || len(got[vip4b]) == 0 {
		t.Errorf("announced %v, want %s alone", got, vip4b)
	}
}

func TestOverdueAnnouncementsAreMadeUpForByOne(t *testing.T) {
	table := newTimetable(refresh)
	table.start(vip4, epoch)
	table.take(epoch)
	late := epoch.Add(1200 * time.Millisecond)
	if _, ok := table.take(late); !ok {
		t.Fatal("nothing is due after a pause")
	}
	if vip, ok := table.take(late); ok {
		t.Errorf("%s is due twice after a pause", vip)
	}
	if due, _ := table.next(); due != epoch.Add(2*time.Second) {
		t.Errorf("next at %s, want 2s", due.Sub(epoch))
	}
}

// With thousands of VIPs the first round takes longer than the repetitions of
// the first VIPs wait.
func TestFirstAnnouncementsGoBeforeRepetitions(t *testing.T) {
	table := newTimetable(refresh)
	const count = 1000
	first := netip.MustParseAddr("198.51.100.0")
	for range count {
		table.start(first, epoch)
		first = first.Next()
	}
	seen := map[netip.Addr]bool{}
	now := epoch
	for range count {
		vip, ok := table.take(now)
		if !ok || seen[vip] {
			t.Fatalf("%s, %v: a repetition after %d first announcements", vip, ok, len(seen))
		}
		seen[vip] = true
		now = now.Add(time.Millisecond)
	}
	// All that have a schedule are overdue by now.
	table.start(vip6, now)
	if vip, _ := table.take(now); vip != vip6 {
		t.Errorf("%s goes before a VIP that was never announced", vip)
	}
}

func TestTimetableNeverForgetsAVIP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, now := newTimetable(refresh), epoch
		last := map[netip.Addr]time.Time{} // The last announcement or start.
		addr := rapid.SampledFrom([]netip.Addr{vip4, vip4b, vip6, vip6b})
		t.Repeat(map[string]func(*rapid.T){
			"start": func(t *rapid.T) {
				vip := addr.Draw(t, "vip")
				table.start(vip, now)
				last[vip] = now
			},
			"stop": func(t *rapid.T) {
				vip := addr.Draw(t, "vip")
				table.stop(vip)
				delete(last, vip)
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 90_000).Draw(t, "ms")) * time.Millisecond)
				taken := map[netip.Addr]bool{}
				for vip, ok := table.take(now); ok; vip, ok = table.take(now) {
					if _, started := last[vip]; !started || taken[vip] {
						t.Fatalf("%s: started %v, taken before %v", vip, started, taken[vip])
					}
					taken[vip], last[vip] = true, now
				}
			},
			"": func(t *rapid.T) {
				if len(table.slots) != len(last) || len(table.queue) != len(last) {
					t.Fatalf("%d slots, %d queued, want %d", len(table.slots), len(table.queue), len(last))
				}
				for vip, at := range last {
					if due := table.slots[vip].due; due.Sub(at) > refresh {
						t.Fatalf("%s waits until %s, last announced %s", vip, due, at)
					}
				}
			},
		})
	})
}

func TestPacerLetsAFewPassAndSpreadsMany(t *testing.T) {
	p := pacer{spacing: time.Millisecond}
	now := epoch
	send := func(count int) {
		for range count {
			now = now.Add(p.delay(now))
			p.spend(now)
		}
	}
	send(pacerBurst)
	if now != epoch {
		t.Errorf("the first %d took %s", pacerBurst, now.Sub(epoch))
	}
	send(1000)
	if got := now.Sub(epoch); got != time.Second {
		t.Errorf("1000 more took %s, want 1s", got)
	}
	now = now.Add(time.Hour)
	rested := now
	send(pacerBurst + 1)
	if got := now.Sub(rested); got != time.Millisecond {
		t.Errorf("after an hour %d took %s, want 1ms", pacerBurst+1, got)
	}
}

func TestRecentKeepsTheNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 4
		r := newRecent[int, string](limit)
		var model []int // Oldest first.
		values := map[int]string{}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				k, v := rapid.IntRange(0, 7).Draw(t, "key"), rapid.String().Draw(t, "value")
				r.set(k, v)
				model = append(slices.DeleteFunc(model, func(m int) bool { return m == k }), k)
				model = model[max(0, len(model)-limit):]
				values[k] = v
			},
			"remove": func(t *rapid.T) {
				below := rapid.IntRange(0, 7).Draw(t, "below")
				gone := func(k int) bool { return k < below }
				r.removeFunc(gone)
				model = slices.DeleteFunc(model, gone)
			},
			"": func(t *rapid.T) {
				var keys []int
				r.all(func(k int, v string) bool {
					if got, ok := r.get(k); !ok || got != v || v != values[k] {
						t.Fatalf("%d is %q, %v and %q, want %q", k, got, ok, v, values[k])
					}
					keys = append(keys, k)
					return true
				})
				if !slices.Equal(keys, model) {
					t.Fatalf("keys %v, want %v", keys, model)
				}
			},
		})
	})
}

func TestClaimsOfOnePairAreBounded(t *testing.T) {
	w := newWatch()
	steps := []struct {
		after time.Duration
		vip   netip.Addr
		mac   MAC
		want  bool
	}{
		{0, vip4, peer, true},
		{0, vip4, peer, false},
		{0, vip4, client, true},
		{0, vip6, peer, true},
		{99 * time.Millisecond, vip4, peer, false},
		{100 * time.Millisecond, vip4, peer, true},
	}
	for i, step := range steps {
		if got := w.reports(step.vip, step.mac, epoch.Add(step.after)); got != step.want {
			t.Errorf("step %d: reported %v, want %v", i, got, step.want)
		}
	}
}

func TestFence(t *testing.T) {
	const ms = time.Millisecond
	type beat struct{ now, since time.Duration }
	tests := map[string]struct {
		beats     []beat
		now       time.Duration
		wantFresh bool
		wantGaps  uint64
	}{
		"before the first decision":           {nil, 0, false, 0},
		"right after it":                      {[]beat{{0, 0}}, 0, true, 1},
		"at the limit":                        {[]beat{{0, 0}}, 150 * ms, true, 1},
		"past the limit":                      {[]beat{{0, 0}}, 151 * ms, false, 1},
		"kept up":                             {[]beat{{0, 0}, {100 * ms, 100 * ms}, {250 * ms, 250 * ms}}, 300 * ms, true, 1},
		"decided again after a stall":         {[]beat{{0, 0}, {5000 * ms, 5000 * ms}}, 5001 * ms, true, 2},
		"stalled between deciding and beat":   {[]beat{{0, 0}, {5000 * ms, 50 * ms}}, 5000 * ms, false, 2},
		"an older beat does not turn it back": {[]beat{{0, 0}, {100 * ms, 100 * ms}, {110 * ms, 20 * ms}}, 240 * ms, true, 1},
		// Beats in time whose decisions took long: nothing was decided for more
		// than the limit at one moment, and whoever waits must hear of the end.
		"slow decisions": {[]beat{{0, 0}, {100 * ms, 0}, {160 * ms, 100 * ms}}, 170 * ms, true, 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var now time.Duration
			f := NewFence(func() time.Duration { return now })
			for _, b := range tc.beats {
				now = b.now
				gap := f.afterGap()
				_, before := f.state()
				f.Beat(b.since)
				select {
				case <-gap:
					if _, after := f.state(); after == before {
						t.Errorf("beat at %s told of a gap that it did not count", b.now)
					}
				default:
					if _, after := f.state(); after != before {
						t.Errorf("beat at %s did not tell of a gap", b.now)
					}
				}
			}
			now = tc.now
			if fresh, gaps := f.state(); fresh != tc.wantFresh || gaps != tc.wantGaps || f.Fresh() != fresh {
				t.Errorf("fresh %v after %d gaps, want %v after %d", fresh, gaps, tc.wantFresh, tc.wantGaps)
			}
		})
	}
}

func TestBoottimeGoesForward(t *testing.T) {
	f := NewFence(nil)
	before := f.Now()
	f.Beat(before)
	if before <= 0 || f.Now() < before || !f.Fresh() {
		t.Errorf("at %s, then %s, fresh %v", before, f.Now(), f.Fresh())
	}
}

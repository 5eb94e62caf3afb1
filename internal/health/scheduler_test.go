package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script is a Checker under a test's control.
type script struct {
	mu      sync.Mutex
	fails   map[Target]error
	takes   time.Duration
	starts  map[Target][]time.Time
	running map[Target]int
	overlap bool
	most    int
	total   int
}

func newScript() *script {
	return &script{
		fails: map[Target]error{}, starts: map[Target][]time.Time{}, running: map[Target]int{},
	}
}

func (s *script) Check(ctx context.Context, target Target) error {
	s.mu.Lock()
	s.starts[target] = append(s.starts[target], time.Now())
	s.running[target]++
	s.total++
	s.overlap = s.overlap || s.running[target] > 1
	s.most = max(s.most, s.total)
	takes, err := s.takes, s.fails[target]
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running[target]--
		s.total--
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(takes):
		return err
	}
}

func (s *script) set(target Target, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[target] = err
}

func (s *script) startsOf(target Target) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts[target]
}

// concurrency says whether tries of one target overlapped, and how many of all
// targets ran at once at most.
func (s *script) concurrency() (overlap bool, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overlap, s.most
}

func (s *script) slow(takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
}

// told counts the notifications of each owner.
type told struct {
	mu     sync.Mutex
	counts map[string]int
}

func (n *told) change(owner string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.counts == nil {
		n.counts = map[string]int{}
	}
	n.counts[owner]++
}

func (n *told) get() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	copied := map[string]int{}
	for owner, count := range n.counts {
		copied[owner] = count
	}
	return copied
}

func target(last byte) Target {
	return Target{Type: TCP, Addr: netip.AddrFrom4([4]byte{192, 0, 2, last}), Port: 80}
}

// still is a Jitter that makes everything as late as it may be, for exact times.
func still() float64 { return 0 }

var errRefused = errors.New("connection refused")

func TestIdenticalProbesRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker, owners := newScript(), &told{}
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, OnChange: owners.change, Jitter: still})
		defer s.Close()
		probe := Probe{target(1), schedule}
		s.SetFor("a", []Probe{probe, probe})
		s.SetFor("b", []Probe{probe})
		time.Sleep(7 * time.Second)

		if got := len(checker.startsOf(probe.Target)); got != 4 {
			t.Errorf("%d tries in 7 s, want 4", got)
		}
		if got := s.Report(probe).Verdict; got != Up {
			t.Errorf("verdict %s, want Up", got)
		}
		if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, owners.get()); diff != "" {
			t.Errorf("notifications (-want +got):\n%s", diff)
		}
	})
}

func TestOneTargetWithTwoSchedulesRunsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
		defer s.Close()
		lenient := schedule
		lenient.FailureThreshold = 100
		strict, tolerant := Probe{target(1), schedule}, Probe{target(1), lenient}
		checker.set(target(1), errRefused)
		s.SetFor("a", []Probe{strict})
		s.SetFor("b", []Probe{tolerant})
		time.Sleep(10 * time.Second)

		want := map[Probe]Verdict{strict: Down, tolerant: Unknown}
		got := map[Probe]Verdict{strict: s.Report(strict).Verdict, tolerant: s.Report(tolerant).Verdict}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
	})
}

func TestReportTellsVerdictReasonAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		checker.slow(40 * time.Millisecond)
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
		defer s.Close()
		probe, begin := Probe{target(1), schedule}, time.Now()
		s.SetFor("a", []Probe{probe})
		if diff := cmp.Diff(Report{Since: begin}, s.Report(probe)); diff != "" {
			t.Errorf("before the first try (-want +got):\n%s", diff)
		}

		time.Sleep(3 * time.Second) // Up at 2.04 s.
		checker.set(probe.Target, errRefused)
		time.Sleep(2100 * time.Millisecond) // Failures at 4, 4.5 and 5 s.
		want := Report{
			Verdict: Down, Since: begin.Add(5040 * time.Millisecond), LastError: "connection refused",
			LastDuration: 40 * time.Millisecond, LastTry: begin.Add(5 * time.Second),
		}
		if diff := cmp.Diff(want, s.Report(probe)); diff != "" {
			t.Errorf("down (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[Probe]Report{probe: want}, s.Reports("a"),
			cmp.Comparer(func(a, b Probe) bool { return a == b })); diff != "" {
			t.Errorf("Reports (-want +got):\n%s", diff)
		}
	})
}

func TestAChangedScheduleKeepsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker, owners := newScript(), &told{}
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, OnChange: owners.change, Jitter: still})
		defer s.Close()
		before := Probe{target(1), schedule}
		s.SetFor("a", []Probe{before})
		s.SetFor("b", []Probe{before})
		time.Sleep(5 * time.Second)
		since := s.Report(before).Since

		slower := schedule
		slower.Interval, slower.SuccessThreshold = time.Minute, 5
		after := Probe{target(1), slower}
		s.SetFor("a", []Probe{after})
		if got := s.Report(after); got.Verdict != Up || !got.Since.Equal(since) {
			t.Errorf("right after the change: %+v, want Up since %s", got, since)
		}
		if got := s.Report(before).Verdict; got != Up {
			t.Errorf("the other owner's probe is %s, want Up", got)
		}
		s.SetFor("b", nil)
		if diff := cmp.Diff(Report{}, s.Report(before)); diff != "" {
			t.Errorf("a probe that nobody wants (-want +got):\n%s", diff)
		}
		time.Sleep(time.Minute)
		if diff := cmp.Diff(map[string]int{"a": 1, "b": 1}, owners.get()); diff != "" {
			t.Errorf("notifications (-want +got):\n%s", diff)
		}
	})
}

func TestTriesNeverOverlapAndAreNotMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		slow := schedule
		slow.Timeout = 5 * time.Second
		checker.slow(3 * time.Second)
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
		defer s.Close()
		s.SetFor("a", []Probe{{target(1), slow}})
		begin := time.Now()
		time.Sleep(10 * time.Second)
		checker.slow(0)
		time.Sleep(5 * time.Second)

		var got []time.Duration
		for _, start := range checker.startsOf(target(1)) {
			got = append(got, start.Sub(begin))
		}
		want := []time.Duration{0, 3 * time.Second, 6 * time.Second, 9 * time.Second, 12 * time.Second, 14 * time.Second}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
		if overlap, _ := checker.concurrency(); overlap {
			t.Error("two tries of one probe ran at once")
		}
	})
}

func TestATimeoutIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		checker.slow(time.Hour)
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
		defer s.Close()
		probe := Probe{target(1), schedule}
		s.SetFor("a", []Probe{probe})
		time.Sleep(3100 * time.Millisecond) // Three timeouts of a second, back to back.
		if got := s.Report(probe); got.Verdict != Down || got.LastError != "timed out" {
			t.Errorf("report %+v, want Down, timed out", got)
		}
	})
}

// sleeper is a checker whose process is stopped while it waits.
type sleeper struct {
	mu      sync.Mutex
	wakesIn time.Duration
}

func (s *sleeper) set(wakesIn time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakesIn = wakesIn
}

func (s *sleeper) Check(ctx context.Context, _ Target) error {
	s.mu.Lock()
	wakesIn := s.wakesIn
	s.mu.Unlock()
	if wakesIn == 0 {
		return nil
	}
	time.Sleep(wakesIn)
	return ctx.Err()
}

func TestADirectorThatStoodStillTakesNoServerDown(t *testing.T) {
	impatient := schedule
	impatient.FailureThreshold = 1
	for name, tc := range map[string]struct {
		// wakesIn is how long a try takes that has a timeout of a second.
		wakesIn time.Duration
		tries   int
		want    Verdict
	}{
		"stopped once":                  {10 * time.Second, 1, Up},
		"a timeout in time":             {1001 * time.Millisecond, 1, Down},
		"a machine that is always late": {2 * time.Second, 2, Down},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				checker := &sleeper{}
				s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
				defer s.Close()
				probe := Probe{target(1), impatient}
				s.SetFor("a", []Probe{probe})
				time.Sleep(4100 * time.Millisecond)
				if got := s.Report(probe); got.Verdict != Up {
					t.Fatalf("report %+v, want Up", got)
				}
				checker.set(tc.wakesIn)
				for range tc.tries {
					before := s.Report(probe).LastTry
					for s.Report(probe).LastTry.Equal(before) {
						time.Sleep(time.Millisecond)
					}
				}
				if got := s.Report(probe); got.Verdict != tc.want || got.LastError == "" {
					t.Errorf("report %+v, want %s with an error", got, tc.want)
				}
			})
		})
	}
}

func TestJitterOnlyShortensIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: func() float64 { return 0.5 }})
		defer s.Close()
		begin := time.Now()
		s.SetFor("a", []Probe{{target(1), schedule}})
		time.Sleep(4 * time.Second)
		checker.set(target(1), errRefused)
		time.Sleep(4 * time.Second)
		var got []time.Duration
		for _, start := range checker.startsOf(target(1)) {
			got = append(got, start.Sub(begin))
		}
		const ms = time.Millisecond
		// Within a second, then 1.9 s each; retries are exact; down, 1.9 s again.
		want := []time.Duration{500 * ms, 2400 * ms, 4300 * ms, 4800 * ms, 5300 * ms, 7200 * ms}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("starts (-want +got):\n%s", diff)
		}
	})
}

func TestAShortageOfTheDirectorTakesNoServerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still})
		defer s.Close()
		probe := Probe{target(1), schedule}
		s.SetFor("a", []Probe{probe})
		time.Sleep(5 * time.Second)
		checker.set(probe.Target, fmt.Errorf("%w: too many open files", ErrInconclusive))
		time.Sleep(time.Minute)
		if got := s.Report(probe); got.Verdict != Up || got.LastError == "" {
			t.Errorf("report %+v, want Up with an error", got)
		}
	})
}

func TestAnUnknownTypeStaysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Checkers: Checkers{}, Jitter: still})
		defer s.Close()
		probe := Probe{Target{Type: "FTP", Addr: target(1).Addr, Port: 21}, schedule}
		s.SetFor("a", []Probe{probe})
		time.Sleep(time.Minute)
		if got := s.Report(probe); got.Verdict != Unknown || got.LastError != "inconclusive: no check of type FTP" {
			t.Errorf("report %+v", got)
		}
	})
}

func TestTriesAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker, owners := newScript(), &told{}
		checker.slow(100 * time.Millisecond)
		s := NewScheduler(Options{
			Checkers: Checkers{TCP: checker}, OnChange: owners.change, Jitter: still, MaxInFlight: 5,
		})
		defer s.Close()
		var probes []Probe
		for port := range uint16(90) {
			probes = append(probes, Probe{Target{TCP, target(1).Addr, port + 1}, schedule})
		}
		s.SetFor("a", probes)
		time.Sleep(5 * time.Second)
		if _, most := checker.concurrency(); most != 5 {
			t.Errorf("%d tries at once, want 5", most)
		}
		for probe, report := range s.Reports("a") {
			if report.Verdict != Up {
				t.Fatalf("%v is %s, want Up", probe.Target, report.Verdict)
			}
		}
		if got := owners.get()["a"]; got != 90 {
			t.Errorf("%d notifications, want 90", got)
		}
	})
}

func TestCloseEndsProbesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker, owners := newScript(), &told{}
		checker.slow(time.Hour)
		s := NewScheduler(Options{Checkers: Checkers{TCP: checker}, OnChange: owners.change, Jitter: still})
		eager := schedule
		eager.FailureThreshold = 1
		s.SetFor("a", []Probe{{target(1), eager}})
		time.Sleep(500 * time.Millisecond)
		s.Close()
		s.SetFor("a", []Probe{{target(2), eager}})
		time.Sleep(time.Minute)
		if got := len(checker.startsOf(target(2))); got != 0 {
			t.Error("a closed scheduler started a probe")
		}
		if diff := cmp.Diff(map[string]int{}, owners.get()); diff != "" {
			t.Errorf("a try that was cut off counted (-want +got):\n%s", diff)
		}
	})
}

// TestNotificationsSeeWhatTheyAnnounce also has the callback use the Scheduler.
func TestNotificationsSeeWhatTheyAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checker := newScript()
		probe := Probe{target(1), schedule}
		seen := make(chan Verdict, 10)
		var s *Scheduler
		s = NewScheduler(Options{Checkers: Checkers{TCP: checker}, Jitter: still, OnChange: func(owner string) {
			seen <- s.Report(probe).Verdict
			s.SetFor(owner, []Probe{probe})
		}})
		s.SetFor("a", []Probe{probe})
		time.Sleep(5 * time.Second)
		checker.set(probe.Target, errRefused)
		time.Sleep(5 * time.Second)
		checker.set(probe.Target, nil)
		time.Sleep(5 * time.Second)
		s.Close() // Nobody sends any more.
		close(seen)
		var got []Verdict
		for verdict := range seen {
			got = append(got, verdict)
		}
		if diff := cmp.Diff([]Verdict{Up, Down, Up}, got); diff != "" {
			t.Errorf("verdicts (-want +got):\n%s", diff)
		}
	})
}

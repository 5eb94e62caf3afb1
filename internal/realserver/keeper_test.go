package realserver_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

var errBroken = errors.New("broken")

// fakeHost is a host in memory. A test that keeps holds its lock, and gives it up
// for as long as it lets time pass.
type fakeHost struct {
	mu      sync.Mutex
	state   kernel.RealServerState
	calls   []string
	broken  string // the call that fails
	changes chan kernel.Link
	watches int
}

func newFakeHost() *fakeHost {
	return &fakeHost{state: kernel.RealServerState{Settings: slices.Clone(fresh)}}
}

// called notes a call; the lock is held.
func (h *fakeHost) called(name string) error {
	h.calls = append(h.calls, name)
	if h.broken == name {
		return errBroken
	}
	return nil
}

func (h *fakeHost) Observe(context.Context) (kernel.RealServerState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.state
	state.Settings, state.Addresses = slices.Clone(state.Settings), slices.Clone(state.Addresses)
	return state, nil
}

func (h *fakeHost) Configure(_ context.Context, settings []kernel.Setting) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.called("configure"); err != nil {
		return err
	}
	for _, s := range settings {
		h.set(s)
	}
	return nil
}

func (h *fakeHost) set(s kernel.Setting) {
	for i := range h.state.Settings {
		if h.state.Settings[i].Path() == s.Path() {
			h.state.Settings[i] = s
		}
	}
}

func (h *fakeHost) Prepare(_ context.Context, vips []netip.Addr) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.called("prepare"); err != nil {
		return err
	}
	h.state.Addresses = slices.DeleteFunc(h.state.Addresses, func(a kernel.HostAddress) bool { return a.Link == "lo" })
	for _, vip := range vips {
		h.state.Addresses = append(h.state.Addresses, on("lo", vip.String()))
	}
	h.state.Recorded = slices.Clone(vips)
	return nil
}

func (h *fakeHost) Watch(ctx context.Context) (<-chan kernel.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches++
	changes := make(chan kernel.Link, 1)
	h.changes = changes
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.changes == changes {
			h.closeWatch()
		}
	})
	return changes, nil
}

// closeWatch ends the watch, as a kernel that can't be watched any more does.
func (h *fakeHost) closeWatch() {
	close(h.changes)
	h.changes = nil
}

// changed reports a change of addresses to whoever watches.
func (h *fakeHost) changed() {
	select {
	case h.changes <- kernel.Link{}:
	default:
	}
}

func (h *fakeHost) Restore(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.called("restore")
}

func keeperOf(h *fakeHost) (*realserver.Keeper, *bytes.Buffer) {
	var log bytes.Buffer
	return &realserver.Keeper{
		Host: h, VIPs: addrs("192.0.2.1"), Interval: 10 * time.Second,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, &log
}

func TestSetUpConfiguresBeforeTheVIPIsThere(t *testing.T) {
	host := newFakeHost()
	keeper, _ := keeperOf(host)
	if err := keeper.SetUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"configure", "prepare"}, host.calls); diff != "" {
		t.Error(diff)
	}
}

func TestSetUpThatFailsIsUndone(t *testing.T) {
	tests := map[string][]string{
		"configure": {"configure", "restore"},
		"prepare":   {"configure", "prepare", "restore"},
	}
	for broken, want := range tests {
		t.Run(broken, func(t *testing.T) {
			host := newFakeHost()
			host.broken = broken
			keeper, _ := keeperOf(host)
			if err := keeper.SetUp(t.Context()); !errors.Is(err, errBroken) {
				t.Fatalf("SetUp() = %v", err)
			}
			if diff := cmp.Diff(want, host.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSetUpRefusesTheHostsOwnAddressAndChangesNothing(t *testing.T) {
	host := newFakeHost()
	host.state.Addresses = []kernel.HostAddress{on("eth0", "192.0.2.1")}
	keeper, _ := keeperOf(host)
	if err := keeper.SetUp(t.Context()); err == nil || !strings.Contains(err.Error(), "own address on eth0") {
		t.Fatalf("SetUp() = %v", err)
	}
	if len(host.calls) > 0 {
		t.Errorf("it called %v", host.calls)
	}
}

// keep runs a keeper that has set up; step is called when it waits.
func keep(t *testing.T, host *fakeHost, steps func(log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		keeper, log := keeperOf(host)
		if err := keeper.SetUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		host.calls = nil
		log.Reset()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			keeper.Run(ctx)
		}()
		synctest.Wait()
		host.mu.Lock()
		steps(log)
		host.mu.Unlock()
		stop()
		<-done
	})
}

// after lets time pass until the keeper waits again.
func (h *fakeHost) after(d time.Duration) {
	h.mu.Unlock()
	defer h.mu.Lock()
	<-time.After(d)
	synctest.Wait()
}

func TestRunRepairsASysctlAtTheNextCheck(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(log *bytes.Buffer) {
		host.set(kernel.Setting{Link: "all", Name: kernel.ARPIgnore})
		host.after(9 * time.Second)
		if len(host.calls) > 0 {
			t.Errorf("it called %v before the check", host.calls)
		}
		host.after(2 * time.Second)
		if diff := cmp.Diff(quiet, host.state.Settings); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(log.String(), `msg=repaired what=net.ipv4.conf.all.arp_ignore found=0 now=1`) {
			t.Errorf("the log says %s", log)
		}
		log.Reset()
		host.calls = nil
		host.after(time.Minute)
		if len(host.calls) > 0 || log.Len() > 0 {
			t.Errorf("with nothing to repair it called %v and logged %s", host.calls, log)
		}
	})
}

func TestRunRepairsAnAddressAtOnce(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(log *bytes.Buffer) {
		host.state.Addresses = nil
		host.changed()
		host.after(0)
		if len(host.state.Addresses) != 1 || !strings.Contains(log.String(), "msg=repaired what=192.0.2.1") {
			t.Errorf("addresses are %v, the log says %s", host.state.Addresses, log)
		}
	})
}

func TestRunPausesBetweenRepairs(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(*bytes.Buffer) {
		for range 1000 {
			host.state.Addresses = nil
			host.changed()
			host.after(time.Millisecond)
		}
		if repairs := len(host.calls) / 2; repairs < 5 || repairs > 11 {
			t.Errorf("%d repairs in a second", repairs)
		}
	})
}

func TestRunWatchesAnewWhenTheKernelStopsReporting(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(*bytes.Buffer) {
		if host.watches != 1 {
			t.Fatalf("it watched %d times", host.watches)
		}
		host.closeWatch()
		host.after(11 * time.Second)
		if host.watches != 2 {
			t.Fatalf("it watched %d times", host.watches)
		}
		host.state.Addresses = nil
		host.changed()
		host.after(0)
		if len(host.state.Addresses) != 1 {
			t.Error("the address is not back")
		}
	})
}

func TestRunTriesAgain(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(log *bytes.Buffer) {
		host.broken = "prepare"
		host.state.Addresses = nil
		host.after(11 * time.Second)
		if !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("the log says %s", log)
		}
		host.broken = ""
		host.after(10 * time.Second)
		if len(host.state.Addresses) != 1 {
			t.Error("the address is not back")
		}
		if slices.Contains(host.calls, "restore") {
			t.Error("a repair that failed took everything away")
		}
	})
}

func TestRunNamesAnObstacleOnce(t *testing.T) {
	host := newFakeHost()
	keep(t, host, func(log *bytes.Buffer) {
		host.set(kernel.Setting{Link: "eth0", Name: kernel.ARPIgnore, Value: 3})
		host.after(time.Minute)
		if count := strings.Count(log.String(), "level=WARN"); count != 1 || !strings.Contains(log.String(), "eth0.arp_ignore = 3") {
			t.Errorf("the log says %s", log)
		}
	})
}

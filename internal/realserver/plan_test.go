package realserver_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// plan is one that a test changes.
type plan struct {
	mu       sync.Mutex
	wanted   realserver.Wanted
	changed  chan struct{}
	outcomes []realserver.Outcome
}

func (p *plan) Wanted() realserver.Wanted {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.wanted
	if !w.Until.IsZero() && !time.Now().Before(w.Until) {
		w.Leaving, w.Until = nil, time.Time{}
	}
	return w
}

func (p *plan) Changed() <-chan struct{} { return p.changed }

func (p *plan) Checked(o realserver.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outcomes = append(p.outcomes, o)
}

// change lets a keeper follow another plan, and everything settle.
func (p *plan) change(w realserver.Wanted) {
	p.mu.Lock()
	p.wanted = w
	p.mu.Unlock()
	p.changed <- struct{}{}
	<-time.After(time.Second)
	synctest.Wait()
}

func (p *plan) last() realserver.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outcomes[len(p.outcomes)-1]
}

// follow runs a keeper that follows a plan; done is closed when it ends.
func follow(t *testing.T, host *fakeHost, w realserver.Wanted, steps func(p *plan, done <-chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{wanted: w, changed: make(chan struct{}, 1)}
		keeper := realserver.Keeper{
			Host: host, Plan: p, Interval: 10 * time.Second, Log: slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)),
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			keeper.Run(ctx)
		}()
		<-time.After(time.Second)
		synctest.Wait()
		steps(p, done)
		stop()
		<-done
	})
}

// onLo is what a host has on lo.
func (h *fakeHost) onLo() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	var vips []netip.Addr
	for _, a := range h.state.Addresses {
		if a.Link == "lo" {
			vips = append(vips, a.Addr)
		}
	}
	slices.SortFunc(vips, netip.Addr.Compare)
	return vips
}

func same(t *testing.T, what string, want, got []netip.Addr) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestAPlanIsFollowed(t *testing.T) {
	host := newFakeHost()
	follow(t, host, realserver.Wanted{VIPs: addrs("192.0.2.1")}, func(p *plan, done <-chan struct{}) {
		same(t, "on lo", addrs("192.0.2.1"), host.onLo())
		p.change(realserver.Wanted{VIPs: addrs("192.0.2.1", "192.0.2.2")})
		same(t, "on lo", addrs("192.0.2.1", "192.0.2.2"), host.onLo())
		same(t, "told", addrs("192.0.2.1", "192.0.2.2"), p.last().VIPs)

		p.change(realserver.Wanted{
			VIPs: addrs("192.0.2.2"), Leaving: addrs("192.0.2.1", "192.0.2.3"), Until: time.Now().Add(5 * time.Second),
		})
		same(t, "on lo while one leaves, and one that never came", addrs("192.0.2.1", "192.0.2.2"), host.onLo())
		same(t, "told", addrs("192.0.2.2", "192.0.2.1"), p.last().VIPs)
		<-time.After(5 * time.Second)
		synctest.Wait()
		same(t, "on lo after it left", addrs("192.0.2.2"), host.onLo())

		p.change(realserver.Wanted{Leaving: addrs("192.0.2.2"), Until: time.Now().Add(5 * time.Second)})
		same(t, "on lo while the last leaves", addrs("192.0.2.2"), host.onLo())
		select {
		case <-done:
			t.Error("it ended before the last has left")
		default:
		}
		<-time.After(5 * time.Second)
		synctest.Wait()
		select {
		case <-done:
		default:
			t.Error("it did not end after the last has left")
		}
	})
}

func TestAHostThatCanHaveNoneOfThePlansVIPsIsLeftAlone(t *testing.T) {
	host := newFakeHost()
	host.state.Addresses = []kernel.HostAddress{on("eth0", "192.0.2.1")}
	follow(t, host, realserver.Wanted{VIPs: addrs("192.0.2.1")}, func(p *plan, _ <-chan struct{}) {
		if len(host.calls) > 0 {
			t.Errorf("it called %v", host.calls)
		}
		want := realserver.Outcome{
			Addresses: addrs("192.0.2.1"), Problem: "192.0.2.1 is the host's own address on eth0: a VIP must be on no interface but lo",
		}
		if diff := cmp.Diff(want, p.last(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
	})
}

func TestACheckThatFailedIsRepeatedSoon(t *testing.T) {
	host := newFakeHost()
	host.broken = "prepare"
	follow(t, host, realserver.Wanted{VIPs: addrs("192.0.2.1")}, func(p *plan, _ <-chan struct{}) {
		if o := p.last(); o.Problem != "broken" || len(o.VIPs) > 0 {
			t.Errorf("it told %+v", o)
		}
		host.mu.Lock()
		host.broken = ""
		host.mu.Unlock()
		<-time.After(2 * time.Second)
		synctest.Wait()
		if o := p.last(); o.Problem != "" || len(o.VIPs) != 1 {
			t.Errorf("it told %+v", o)
		}
	})
}

func TestServed(t *testing.T) {
	lo := func(vips ...string) (list []kernel.HostAddress) {
		for _, vip := range vips {
			list = append(list, on("lo", vip))
		}
		return list
	}
	tests := map[string]struct {
		vips  string
		state kernel.RealServerState
		want  string
	}{
		"those on lo": {
			"192.0.2.1 192.0.2.2 2001:db8::1", kernel.RealServerState{Settings: quiet, Addresses: lo("192.0.2.1", "2001:db8::1")}, "192.0.2.1 2001:db8::1",
		},
		"only IPv6 of a host that would answer ARP": {
			"192.0.2.1 2001:db8::1", kernel.RealServerState{Settings: fresh, Addresses: lo("192.0.2.1", "2001:db8::1")}, "2001:db8::1",
		},
		"only IPv6 where an interface makes VIPs known": {
			"192.0.2.1 2001:db8::1",
			kernel.RealServerState{Settings: settings(1, 2, 3, 0, 1, 2), Addresses: lo("192.0.2.1", "2001:db8::1")},
			"2001:db8::1",
		},
		"none that is on another interface too": {
			"192.0.2.1 192.0.2.2",
			kernel.RealServerState{Settings: quiet, Addresses: append(lo("192.0.2.1", "192.0.2.2"), on("eth0", "192.0.2.1"))},
			"192.0.2.2",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			same(t, "served", addrs(strings.Fields(tc.want)...), realserver.Served(addrs(strings.Fields(tc.vips)...), tc.state))
		})
	}
}

package announce

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var upLink = LinkState{Index: 3, MAC: ours, Up: true}

// bench is an Announcer on a fake network, inside a synctest bubble.
type bench struct {
	*Announcer
	t       *testing.T
	net     *fakeNetwork
	fence   *Fence
	reports []error
	stop    func() error
	// stalled is for how long the fence's clock ran while nothing else did.
	stalled atomic.Int64
}

// startBench runs an Announcer of four VIPs whose link is up and whose fence
// has been beaten once, and stops it at the end of the test.
func startBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	begun := time.Now()
	b := &bench{t: t, net: &fakeNetwork{}}
	b.fence = NewFence(func() time.Duration { return time.Since(begun) + time.Duration(b.stalled.Load()) })
	cfg := Config{Interface: "eth0", Fence: b.fence, Report: func(err error) { b.reports = append(b.reports, err) }}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.network = b.net
	b.Announcer = a
	a.SetVIPs([]netip.Addr{vip4, vip4b, vip6, vip6b})
	if err := a.LinkChanged(upLink); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.stop = func() error { cancel(); return <-done }
	t.Cleanup(cancel)
	b.beat()
	synctest.Wait()
	return b
}

func (b *bench) beat() { b.fence.Beat(b.fence.Now()) }

// pass lets time pass while decisions are made.
func (b *bench) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		b.beat()
		time.Sleep(min(50*time.Millisecond, time.Until(end)))
	}
	b.beat()
	synctest.Wait()
}

// exchange has frames arrive and returns what is sent on the same socket.
func (b *bench) exchange(f family, frames ...[]byte) [][]byte {
	b.t.Helper()
	p := b.net.open(f)
	if p == nil {
		b.t.Fatalf("no open socket for IPv%d", f)
	}
	p.take()
	p.arrive(frames...)
	synctest.Wait()
	return p.take()
}

// drain returns the claims that wait.
func (b *bench) drain() []Claim {
	var out []Claim
	for {
		select {
		case c := <-b.Claims():
			out = append(out, c)
		default:
			return out
		}
	}
}

func arpQuestion(from MAC, sender, target netip.Addr) []byte {
	return arpPacket{destination: broadcast, source: from, op: arpRequest, senderMAC: from, senderIP: sender, targetIP: target}.encode()
}

func ndpQuestion(from MAC, sender, target netip.Addr) []byte {
	group := solicitedNode(target)
	return ndpPacket{
		destination: groupMAC(group), source: from, from: sender, to: group,
		kind: ndpSolicitation, target: target, linkLayer: from,
	}.encode()
}

func (b *bench) expectFrames(what string, want, got [][]byte) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

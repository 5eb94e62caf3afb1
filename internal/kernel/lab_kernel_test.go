//go:build kernel

package kernel_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// The lab's addresses.
const (
	vip4, vip6 = "192.0.2.100", "2001:db8::100"
	director4  = "192.0.2.2"
	client4    = "192.0.2.10"
)

// patience is for a guest that shares a busy machine.
const patience = time.Minute

// lab is a client, a director and two real servers on one segment.
type lab struct {
	t        *testing.T
	segment  *netlab.Segment
	client   *netlab.NS
	director *netlab.NS
	servers  [2]*netlab.NS
	kernel   *kernel.Client
}

// newLab makes the hosts; the servers have the VIPs and answer with s1 and s2 on
// TCP port 80 of any address, and the client knows the VIPs by the director's
// MAC. The director has nothing.
func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, segment: netlab.NewSegment(t)}
	l.client = l.segment.Host(client4+"/24", "192.0.2.11/24", "2001:db8::10/64")
	l.director = l.segment.Host(director4+"/24", "2001:db8::2/64")
	for i := range l.servers {
		s := l.segment.Host(fmt.Sprintf("192.0.2.2%d/24", i+1), fmt.Sprintf("2001:db8::2%d/64", i+1))
		prepareServer(t, s)
		s.ServeTCP("[::]:80", fmt.Sprintf("s%d", i+1))
		l.servers[i] = s
	}
	l.client.Neighbor("eth0", vip4, l.director.MAC("eth0"))
	l.client.Neighbor("eth0", vip6, l.director.MAC("eth0"))
	l.kernel = open(t, l.director)
	return l
}

func prepareServer(t *testing.T, ns *netlab.NS) {
	t.Helper()
	server, err := kernel.NewRealServer(kernel.Options{NetNS: ns.Path(), StateDir: t.TempDir(), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() //nolint:errcheck // what it made is what counts
	if err := server.Prepare(t.Context(), []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)}); err != nil {
		t.Fatal(err)
	}
}

// open makes a client of a namespace with a record of its own.
func open(t *testing.T, ns *netlab.NS) *kernel.Client {
	t.Helper()
	client, err := kernel.New(kernel.Options{NetNS: ns.Path(), StateDir: t.TempDir(), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// guarded and unguarded are the node with and without the guard.
var (
	guarded   = netstate.Node{Interface: "eth0", Guard: true}
	unguarded = netstate.Node{Interface: "eth0"}
)

// serve prepares the director and brings it from nothing to the state that the
// text says. Without a guard its entries are left out.
func (l *lab) serve(node netstate.Node, text string) netstate.State {
	l.t.Helper()
	prepare(l.t, l.kernel, node)
	want := kerneltest.Parse(l.t, text)
	if !node.Guard {
		clear(want.Guard)
	}
	bring(l.t, l.kernel, want)
	return want
}

func prepare(t *testing.T, k *kernel.Client, node netstate.Node) {
	t.Helper()
	if err := k.Prepare(t.Context(), node); err != nil {
		t.Fatal(err)
	}
}

// bring makes the kernel hold what is wanted, from what it holds.
func bring(t *testing.T, k *kernel.Client, want netstate.State) {
	t.Helper()
	keys, err := k.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	have := netstate.New()
	for _, key := range append(keys, want.Keys()...) {
		seen, err := k.Observe(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range netstate.Diff(netstate.New(), seen.State) {
			have.Perform(op)
		}
	}
	apply(t, k, netstate.Diff(have, want)...)
}

func apply(t *testing.T, k *kernel.Client, ops ...netstate.Op) {
	t.Helper()
	for _, op := range ops {
		if err := k.Apply(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
}

// holds checks what the kernel holds of the keys of want.
func holds(t *testing.T, k *kernel.Client, want netstate.State) {
	t.Helper()
	for _, key := range want.Keys() {
		got, err := k.Observe(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Of(key), got.State, sameAddr); diff != "" {
			t.Errorf("the kernel holds something else of %s (-want +got):\n%s", key, diff)
		}
	}
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// count asks n times and counts the answers.
func count(t *testing.T, from *netlab.NS, network, address string, n int) map[string]int {
	t.Helper()
	answers := map[string]int{}
	for i := range n {
		answer, err := from.Ask(network, "", address)
		if err != nil {
			t.Fatalf("request %d of %d to %s: %v (so far %v)", i+1, n, address, err, answers)
		}
		answers[answer]++
	}
	return answers
}

func wantCounts(t *testing.T, got, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

const web4 = `
guard 192.0.2.100
guard TCP 192.0.2.100:80
address 192.0.2.100 dev dummy-lvs src 192.0.2.2
service TCP 192.0.2.100:80 wrr
destination TCP 192.0.2.100:80 192.0.2.21:80 DR weight 1
destination TCP 192.0.2.100:80 192.0.2.22:80 DR weight 2
`

//go:build kernel

package kernel_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// A handle of moby/ipvs that two use at once stops answering both. That is what
// the client's turns and its watchdog are for.
func TestManyCallersOfOneClientAllGetTheirAnswers(t *testing.T) {
	ns := node(t)
	client := open(t, ns)
	prepare(t, client, guarded)
	want := kerneltest.Parse(t, web4)
	bring(t, client, want)
	key := want.Keys()[0]
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				if _, err := client.Observe(t.Context(), key); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// The library used by several callers at once hangs, mostly: replies to another
// caller are thrown away. The watchdog relies on closing to end that.
func TestClosingTheLibrarysHandleFreesItsCallers(t *testing.T) {
	ns := node(t)
	h, err := ipvs.New(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				if _, err := h.GetServices(); err != nil {
					return
				}
			}
		})
	}
	go func() {
		all.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
	h.Close() // which is how the watchdog gets its callers free
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("closing the handle does not free its callers")
	}
}

func TestDestinationsOfAServiceThatIsGone(t *testing.T) {
	ns := node(t)
	client := open(t, ns)
	prepare(t, client, guarded)
	want := kerneltest.Parse(t, web4)
	bring(t, client, want)
	raw := rawIPVS(t, ns)
	service := &ipvs.Service{
		Address: net.ParseIP(vip4).To4(), Protocol: unix.IPPROTO_TCP, Port: 80, AddressFamily: unix.AF_INET,
	}
	if err := raw.DelService(service); err != nil {
		t.Fatal(err)
	}
	// The kernel lists no destinations of it and says nothing.
	if list, err := raw.GetDestinations(service); err != nil || len(list) != 0 {
		t.Fatalf("GetDestinations() = %v, %v", list, err)
	}
	got := observe(t, client, want.Keys()[0])
	if len(got.Services) != 0 || len(got.Destinations) != 0 {
		t.Errorf("observed %v", got)
	}
	bring(t, client, want)
	holds(t, client, want)
}

// What a change of one VIP costs must not depend on how many others there are.
func TestTheCostOfOneKeyDoesNotGrowWithTheTable(t *testing.T) {
	ns := node(t)
	client := open(t, ns)
	prepare(t, client, guarded)
	one := kerneltest.Parse(t, web4)
	bring(t, client, one)
	cost := func() time.Duration {
		best := time.Hour
		for range 20 {
			began := time.Now()
			observe(t, client, one.Keys()[0])
			best = min(best, time.Since(began))
		}
		return best
	}
	alone := cost()
	many := netstate.New()
	for i := range 200 {
		vip := fmt.Sprintf("198.51.%d.%d", 100, 1+i)
		other := kerneltest.Parse(t, fmt.Sprintf("guard %[1]s\nguard TCP %[1]s:80\naddress %[1]s dev dummy-lvs\n"+
			"service TCP %[1]s:80 rr\ndestination TCP %[1]s:80 192.0.2.21:80 DR weight 1", vip))
		for _, op := range netstate.Diff(netstate.New(), other) {
			many.Perform(op)
		}
	}
	apply(t, client, netstate.Diff(netstate.New(), many)...)
	among := cost()
	t.Logf("observing one key: %s alone, %s among 200", alone, among)
	if among > 3*alone {
		t.Errorf("observing one key took %s alone and %s among 200", alone, among)
	}
}

//go:build kernel

package kernel_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/kernel/kerneltest/netlab"
)

func TestWatchLinkFollowsTheInterface(t *testing.T) {
	segment := netlab.NewSegment(t)
	host := segment.Host(director4 + "/24")
	client := open(t, host)
	ctx, cancel := context.WithCancel(t.Context())
	states, err := client.WatchLink(ctx, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	links := host.Links()
	mac, _ := net.ParseMAC("02:00:00:00:00:99")
	steps := []struct {
		name string
		do   func() error
		want func(kernel.Link) bool
	}{
		{"at first", func() error { return nil }, func(l kernel.Link) bool {
			return l.Exists() && l.Up && l.Running && l.Kind == "veth" && has(l, director4+"/24")
		}},
		{
			"the carrier goes", func() error { return segment.Links().LinkSetDown(segment.Link("port1")) },
			func(l kernel.Link) bool { return l.Up && !l.Running },
		},
		{
			"the carrier comes", func() error { return segment.Links().LinkSetUp(segment.Link("port1")) },
			func(l kernel.Link) bool { return l.Running },
		},
		{
			"another MAC", func() error { return links.LinkSetHardwareAddr(host.Link("eth0"), mac) },
			func(l kernel.Link) bool { return l.MAC.String() == mac.String() },
		},
		{
			"another address", func() error { host.Address("eth0", "192.0.2.3/24"); return nil },
			func(l kernel.Link) bool { return has(l, "192.0.2.3/24") },
		},
		{
			"it is gone", func() error { return links.LinkDel(host.Link("eth0")) },
			func(l kernel.Link) bool { return !l.Exists() },
		},
		{
			"it is back", func() error { segment.Attach(host, "eth0", director4+"/24"); return nil },
			func(l kernel.Link) bool { return l.Running && has(l, director4+"/24") },
		},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		limit := time.After(10 * time.Second)
		for arrived := false; !arrived; {
			select {
			case l := <-states:
				arrived = step.want(l)
			case <-limit:
				t.Fatalf("%s: not reported", step.name)
			}
		}
	}
	cancel()
	limit := time.After(10 * time.Second)
	for open := true; open; {
		select {
		case _, open = <-states:
		case <-limit:
			t.Fatal("the channel is not closed")
		}
	}
	if _, err := client.Link(t.Context(), "eth7"); !errors.Is(err, kernel.ErrNoLink) {
		t.Errorf("Link() = %v, want ErrNoLink", err)
	}
}

func has(l kernel.Link, prefix string) bool {
	for _, p := range l.Addresses {
		if p == netip.MustParsePrefix(prefix) {
			return true
		}
	}
	return false
}

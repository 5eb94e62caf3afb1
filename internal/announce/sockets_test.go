package announce

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSocketsFollowTheInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(time.Second)
		want := []netip.Addr{solicitedNode(vip6), solicitedNode(vip6b)}
		if diff := cmp.Diff(want, b.net.groups(3), compareAddrs); diff != "" {
			t.Errorf("groups of a standby (-want +got):\n%s", diff)
		}

		if err := b.LinkChanged(LinkState{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.net.open(ipv4) != nil || b.net.open(ipv6) != nil || len(b.net.groups(3)) != 0 {
			t.Error("sockets are left of an interface that is gone")
		}
		back := upLink
		back.Index = 7
		if err := b.LinkChanged(back); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p := b.net.open(ipv4)
		if p == nil || p.index != 7 {
			t.Fatalf("the socket of the new interface is %+v", p)
		}
		b.expectFrames("on the new interface", gratuitous(ours, vip4), p.take())
		if diff := cmp.Diff(want, b.net.groups(7), compareAddrs); diff != "" {
			t.Errorf("groups on the new interface (-want +got):\n%s", diff)
		}

		b.SetVIPs([]netip.Addr{vip4})
		synctest.Wait()
		if b.net.open(ipv6) != nil || len(b.net.groups(7)) != 0 {
			t.Error("a socket for IPv6 without any VIP")
		}
		if err := b.stop(); err != nil || b.net.open(ipv4) != nil {
			t.Errorf("stopped with %v, socket %v", err, b.net.open(ipv4))
		}
		if err := b.Run(t.Context()); err == nil {
			t.Error("ran twice")
		}
		if len(b.reports) > 0 {
			t.Errorf("reported %v", b.reports)
		}
	})
}

func TestFailedSocketsAreOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(5 * time.Second)
		cause := errors.New("no more buffers")
		b.net.open(ipv4).fail(cause)
		b.net.setBroken(cause)
		b.pass(3500 * time.Millisecond)
		if b.net.open(ipv4) != nil {
			t.Error("the failed socket is still open")
		}
		if len(b.reports) != 4 || !errors.Is(errors.Join(b.reports...), cause) {
			t.Errorf("reported %v, want once a second", b.reports)
		}
		b.net.setBroken(nil)
		b.pass(time.Second)
		p := b.net.open(ipv4)
		if p == nil {
			t.Fatal("not opened again")
		}
		if got := p.take(); len(got) < 2 {
			t.Errorf("said %x on the new socket, want the VIP announced anew", got)
		}
	})
}

func TestRefusedFramesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		p := b.net.open(ipv4)
		p.mu.Lock()
		p.refuse = errors.New("network is down")
		p.mu.Unlock()
		b.SetActive([]netip.Addr{vip4})
		b.pass(200 * time.Millisecond)
		if got := b.Stats(); got.SendErrors != 3 || got.Announced != 0 {
			t.Errorf("counted %+v, want 3 send errors", got)
		}
	})
}

func TestMembershipsUseAsManySocketsAsItTakes(t *testing.T) {
	groups := func(count int) map[netip.Addr]struct{} {
		set := map[netip.Addr]struct{}{}
		for addr := solicitedNode(vip6); len(set) < count; addr = addr.Next() {
			set[addr] = struct{}{}
		}
		return set
	}
	tests := map[string]struct {
		capacity, groups, wantSockets int
	}{
		"none":                        {0, 0, 0},
		"one socket":                  {0, 200, 1},
		"one more group":              {0, 201, 2},
		"many":                        {0, 1000, 5},
		"a kernel that takes fewer":   {50, 200, 4},
		"a kernel that takes nearly":  {199, 398, 2},
		"a kernel that takes as many": {200, 400, 2},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			net := &fakeNetwork{capacity: tc.capacity}
			m := newMemberships(func() (member, error) { return net.member(3) })
			if err := m.set(groups(tc.groups)); err != nil {
				t.Fatal(err)
			}
			if got := len(net.groups(3)); got != tc.groups || len(net.members) != tc.wantSockets {
				t.Errorf("%d groups on %d sockets, want %d on %d", got, len(net.members), tc.groups, tc.wantSockets)
			}
			for _, count := range []int{tc.groups / 2, tc.groups, tc.groups} {
				if err := m.set(groups(count)); err != nil {
					t.Fatal(err)
				}
				if got := len(net.groups(3)); got != count || len(net.members) != tc.wantSockets {
					t.Errorf("%d groups on %d sockets, want %d on %d", got, len(net.members), count, tc.wantSockets)
				}
			}
			if err := m.close(); err != nil || len(net.groups(3)) != 0 {
				t.Errorf("closed with %v, %d groups left", err, len(net.groups(3)))
			}
		})
	}
}

func TestMembershipThatFailsIsTriedAgain(t *testing.T) {
	cause := errors.New("no such device")
	net := &fakeNetwork{broken: cause}
	m := newMemberships(func() (member, error) { return net.member(3) })
	want := map[netip.Addr]struct{}{solicitedNode(vip6): {}}
	if err := m.set(want); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
	net.setBroken(nil)
	if err := m.set(want); err != nil || len(net.groups(3)) != 1 {
		t.Errorf("got %v and %d groups, want one", err, len(net.groups(3)))
	}
}

package announce

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestActiveAnswersAndStandbyIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		question4, question6 := arpQuestion(client, client4, vip4), ndpQuestion(client, client6, vip6)
		b.expectFrames("standby", nil, append(b.exchange(ipv4, question4), b.exchange(ipv6, question6)...))

		b.SetActive([]netip.Addr{vip4, vip6})
		b.pass(10 * time.Millisecond)
		want4 := arpPacket{
			destination: client, source: ours, op: arpReply,
			senderMAC: ours, senderIP: vip4, targetMAC: client, targetIP: client4,
		}.encode()
		b.expectFrames("active for IPv4", [][]byte{want4}, b.exchange(ipv4, question4))
		want6 := advertisement(ours, vip6, client, client6, ndpSolicited|ndpOverride)
		b.expectFrames("active for IPv6", [][]byte{want6}, b.exchange(ipv6, question6))
		b.expectFrames("the VIP of another", nil, b.exchange(ipv4, arpQuestion(client, client4, vip4b)))

		b.SetActive(nil)
		b.expectFrames("standby again", nil, append(b.exchange(ipv4, question4), b.exchange(ipv6, question6)...))
		if got := b.Stats().Answered; got != 2 {
			t.Errorf("counted %d answers, want 2", got)
		}
	})
}

func TestBecomingActiveAnnouncesOnTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		synctest.Wait()
		b.expectFrames("at once", gratuitous(ours, vip4), b.net.open(ipv4).take())
		b.pass(time.Second)
		// A VIP that joins has a schedule of its own; the other's goes on.
		b.SetActive([]netip.Addr{vip4, vip4b})
		synctest.Wait()
		var want [][]byte
		for range 4 {
			want = append(want, gratuitous(ours, vip4)...)
		}
		b.expectFrames("within a second", append(want, gratuitous(ours, vip4b)...), b.net.open(ipv4).take())
		b.pass(39500 * time.Millisecond)
		if got := b.Stats().Announced; got != 10+9 {
			t.Errorf("%d announcements after 40 s, want 10 and 9", got)
		}
		b.pass(time.Minute)
		if got := b.Stats().Announced; got != 11+10 {
			t.Errorf("%d announcements after 100 s, want 11 and 10", got)
		}
		b.SetVIPs([]netip.Addr{vip4b})
		b.net.open(ipv4).take()
		b.pass(time.Minute)
		b.expectFrames("what is left", gratuitous(ours, vip4b), b.net.open(ipv4).take())
	})
}

func TestSettingTheSameAgainChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		set := []netip.Addr{vip4, netip.MustParseAddr("::ffff:192.0.2.11"), {}, nobody4}
		b.SetActive(set)
		b.pass(45 * time.Second)
		before := b.Stats().Announced
		b.SetActive(set)
		b.SetVIPs([]netip.Addr{vip4, vip4b, vip6, vip6b})
		if err := b.LinkChanged(upLink); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Second)
		if got := b.Stats().Announced; got != before || before != 20 {
			t.Errorf("%d announcements, then %d, want 20 and no more", before, got)
		}
		if got := len(b.net.ports); got != 2 {
			t.Errorf("opened %d sockets, want 2", got)
		}
	})
}

func TestReasonsToAnnounceAgain(t *testing.T) {
	moved := upLink
	moved.MAC = MAC{0x02, 0, 0, 0, 1, 0x01}
	down := upLink
	down.Up = false
	tests := map[string]struct {
		event func(b *bench) error
		want  [][]byte
	}{
		"being asked to": {func(b *bench) error { b.Announce(); return nil }, append(gratuitous(ours, vip4), gratuitous(ours, vip4b)...)},
		"being asked to for one VIP": {func(b *bench) error {
			b.Announce(vip4b, vip6)
			return nil
		}, gratuitous(ours, vip4b)},
		"another MAC": {func(b *bench) error { return b.LinkChanged(moved) }, append(gratuitous(moved.MAC, vip4), gratuitous(moved.MAC, vip4b)...)},
		"carrier that comes back": {func(b *bench) error {
			return errors.Join(b.LinkChanged(down), b.LinkChanged(upLink))
		}, append(gratuitous(ours, vip4), gratuitous(ours, vip4b)...)},
		"no event":          {func(*bench) error { return nil }, nil},
		"carrier that goes": {func(b *bench) error { return b.LinkChanged(down) }, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBench(t, nil)
				b.SetActive([]netip.Addr{vip4, vip4b})
				b.pass(45 * time.Second)
				b.net.open(ipv4).take()
				if err := tc.event(b); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				b.expectFrames("announced", tc.want, b.net.open(ipv4).take())
			})
		})
	}
}

func TestBondThatRewritesARPSilences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(time.Second)
		bond := upLink
		bond.BondMode = "balance-alb"
		if err := b.LinkChanged(bond); !errors.Is(err, ErrBondMode) {
			t.Errorf("got %v, want ErrBondMode", err)
		}
		b.expectFrames("on the bond", nil, b.exchange(ipv4, arpQuestion(client, client4, vip4)))
		b.pass(time.Minute)
		b.expectFrames("on the bond", nil, b.net.open(ipv4).take())
		if err := b.LinkChanged(upLink); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		// Who asked meanwhile is told too.
		want := append(gratuitous(ours, vip4), directed(ours, vip4, client4, client))
		b.expectFrames("afterwards", want, b.net.open(ipv4).take())
	})
}

func TestManyVIPsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		var vips []netip.Addr
		for addr := netip.MustParseAddr("198.51.100.0"); len(vips) < 1000; addr = addr.Next() {
			vips = append(vips, addr)
		}
		b.SetVIPs(vips)
		b.SetActive(vips)
		synctest.Wait()
		if got := b.Stats().Announced; got != pacerBurst {
			t.Errorf("%d announced at once, want %d", got, pacerBurst)
		}
		b.pass(100 * time.Millisecond)
		if got := b.Stats().Announced; got != pacerBurst+100 {
			t.Errorf("%d announced after 100 ms, want %d", got, pacerBurst+100)
		}
		b.pass(900 * time.Millisecond)
		told := map[netip.Addr]bool{}
		for _, frame := range b.net.open(ipv4).take() {
			p, err := decodeARP(frame)
			if err != nil {
				t.Fatal(err)
			}
			told[p.senderIP] = true
		}
		if len(told) != len(vips) {
			t.Errorf("%d of %d VIPs announced after a second", len(told), len(vips))
		}
	})
}

type table map[netip.Addr]MAC

func (n table) Lookup(_ context.Context, addr netip.Addr) (MAC, bool) {
	mac, ok := n[addr]
	return mac, ok
}

func TestGatewaysAndAskersAreToldInPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, func(c *Config) { c.Neighbors = table{router4: router} })
		otherRouter := netip.MustParseAddr("192.0.2.2")
		b.SetGateways([]netip.Addr{router4, otherRouter, router6})
		// A standby hears who asks, though it does not answer.
		b.exchange(ipv4, arpQuestion(client, client4, vip4), arpQuestion(client, client4, vip4b))
		b.exchange(ipv6, ndpQuestion(client, client6, vip6))
		b.SetActive([]netip.Addr{vip4, vip6})
		synctest.Wait()
		b.expectFrames("IPv4", append(gratuitous(ours, vip4),
			directed(ours, vip4, router4, router),
			directed(ours, vip4, otherRouter, MAC{}),
			directed(ours, vip4, client4, client),
		), b.net.open(ipv4).take())
		b.expectFrames("IPv6", append(gratuitous(ours, vip6),
			directed(ours, vip6, router6, MAC{}),
			directed(ours, vip6, client6, client),
		), b.net.open(ipv6).take())
		if got := b.Stats(); got.Directed != 5 || got.Announced != 2 {
			t.Errorf("counted %+v, want 5 directed, 2 announced", got)
		}
	})
}

func TestNeighboursOfAVIPThatIsGoneAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		for i := range byte(2) {
			for j := range 256 {
				from := netip.AddrFrom4([4]byte{198, 18, i, byte(j)})
				b.exchange(ipv4, arpQuestion(client, from, vip4), arpQuestion(client, from, vip4b), arpQuestion(router, from, vip4))
			}
		}
		b.exchange(ipv4, arpQuestion(client, client4, vip4))
		if got := b.askers.len(); got != neighbourLimit {
			t.Errorf("%d neighbours, want %d", got, neighbourLimit)
		}
		b.SetVIPs([]netip.Addr{vip4b})
		b.askers.all(func(k asker, _ MAC) bool {
			if k.vip != vip4b {
				t.Errorf("%v is left", k)
			}
			return true
		})
	})
}

func TestClaimsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(10 * time.Millisecond)
		b.exchange(ipv4, gratuitous(peer, vip4)...)
		b.exchange(ipv4, gratuitous(peer, vip4b)...)
		b.exchange(ipv4, gratuitous(ours, vip4)...)
		b.exchange(ipv4, gratuitous(peer, router4)...)
		b.exchange(ipv6, gratuitous(peer, vip6)...)
		b.exchange(ipv6, []byte("junk"))
		now := time.Now()
		want := []Claim{
			{VIP: vip4, MAC: peer, Interface: "eth0", When: now, Kind: Gratuitous},
			{VIP: vip4b, MAC: peer, Interface: "eth0", When: now, Kind: Gratuitous},
			{VIP: vip6, MAC: peer, Interface: "eth0", When: now, Kind: Gratuitous},
		}
		if diff := cmp.Diff(want, b.drain(), compareAddrs); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
		if got := b.Stats(); got.Claims != 5 || got.ClaimsLimited != 2 || got.Malformed != 1 {
			t.Errorf("counted %+v, want 5 claims, 2 of them limited, 1 malformed frame", got)
		}
	})
}

func TestClaimsThatNobodyReadsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		const claimants = claimBacklog + 10
		for i := range claimants {
			mac := MAC{0x02, 1, 0, 0, byte(i >> 8), byte(i)}
			b.exchange(ipv4, gratuitous(mac, vip4b)[0])
		}
		if got := b.exchange(ipv4, arpQuestion(client, client4, vip4)); len(got) != 1 {
			t.Errorf("%d answers with a full channel, want 1", len(got))
		}
		if got := len(b.drain()); got != claimBacklog || b.Stats().ClaimsDropped != claimants-claimBacklog {
			t.Errorf("%d claims, %d dropped, want %d and the rest", got, b.Stats().ClaimsDropped, claimBacklog)
		}
	})
}

func TestDefenceIsRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBench(t, nil)
		b.SetActive([]netip.Addr{vip4})
		b.pass(45 * time.Second)
		b.net.open(ipv4).take()
		steps := []struct {
			after time.Duration
			vip   netip.Addr
			want  error
		}{
			{0, vip4, nil},
			{5 * time.Second, vip4, ErrRateLimited},
			{5 * time.Second, vip4, nil},
			{0, vip4b, ErrSilent},
			{0, netip.Addr{}, ErrSilent},
		}
		for i, step := range steps {
			b.pass(step.after)
			err := b.Defend(step.vip)
			if !errors.Is(err, step.want) {
				t.Errorf("step %d: got %v, want %v", i, err, step.want)
			}
			var want [][]byte
			if step.want == nil {
				want = gratuitous(ours, step.vip)
			}
			b.expectFrames("defence", want, b.net.open(ipv4).take())
		}
	})
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	fence := NewFence(nil)
	tests := map[string]Config{
		"no interface":     {Fence: fence},
		"no fence":         {Interface: "eth0"},
		"negative refresh": {Interface: "eth0", Fence: fence, Refresh: -1},
		"negative spacing": {Interface: "eth0", Fence: fence, Spacing: -1},
	}
	for name, cfg := range tests {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

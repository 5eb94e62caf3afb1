//go:build kernel

package announce

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// director is a station that runs an Announcer.
type director struct {
	*station
	*Announcer
	fence   *Fence
	reports chan error
	// stall stops the decisions, resume goes on with them.
	stall, resume func()
	stop          func()
}

// newDirector makes a station run an Announcer that holds vip4 and vip6.
func newDirector(st *station, change func(*Config)) *director {
	st.t.Helper()
	d := &director{station: st, fence: NewFence(nil), reports: make(chan error, 100)}
	cfg := Config{Interface: "eth0", Fence: d.fence, Report: func(err error) { d.reports <- err }}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	must(st.t, err)
	d.Announcer = a
	a.SetVIPs([]netip.Addr{vip4, vip6})
	must(st.t, a.LinkChanged(st.linkState()))
	d.decide()

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(st.ns); err != nil {
			done <- err
			return
		}
		done <- a.Run(ctx)
	}()
	d.stop = sync.OnceFunc(func() {
		cancel()
		must(st.t, <-done)
		select {
		case err := <-d.reports:
			st.t.Errorf("reported: %v", err)
		default:
		}
	})
	st.t.Cleanup(d.stop)
	eventually(st.t, "sockets", func() bool { return a.portOf(ipv4) != nil && a.portOf(ipv6) != nil })
	return d
}

// decide beats the fence, until the test ends or the director stalls.
func (d *director) decide() {
	var mu sync.Mutex
	stalled := false
	d.stall = func() { mu.Lock(); stalled = true; mu.Unlock() }
	d.resume = func() { mu.Lock(); stalled = false; mu.Unlock() }
	stop := make(chan struct{})
	done := make(chan struct{})
	d.t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			mu.Lock()
			if !stalled {
				d.fence.Beat(d.fence.Now())
			}
			mu.Unlock()
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
}

const (
	directorAddrs = "192.0.2.2/24 2001:db8::2/64"
	clientAddrs   = "192.0.2.100/24 2001:db8::64/64"
)

// families runs a test for a VIP of each.
func families(t *testing.T, f func(t *testing.T, vip netip.Addr)) {
	for _, vip := range []netip.Addr{vip4, vip6} {
		name := "IPv4"
		if vip.Is6() {
			name = "IPv6"
		}
		t.Run(name, func(t *testing.T) { f(t, vip) })
	}
}

func directorAndClient(t *testing.T, change func(*Config)) (*segment, *director, *station) {
	s := newSegment(t)
	d := newDirector(s.station("director", ours, strings.Fields(directorAddrs)...), change)
	return s, d, s.station("client", client, strings.Fields(clientAddrs)...)
}

func TestLinuxClientFindsTheActiveAndNotTheStandby(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		if mac, ok := c.finds(vip); ok {
			t.Fatalf("found %s on a standby", mac)
		}
		d.SetActive([]netip.Addr{vip})
		c.mustFind(vip, ours)
		d.SetActive(nil)
		c.forget(vip)
		if mac, ok := c.finds(vip); ok {
			t.Fatalf("found %s after it is standby again", mac)
		}
		if got := d.Stats(); got.Answered == 0 || got.Malformed != 0 || got.SendErrors != 0 || got.Claims != 0 {
			t.Errorf("counted %+v", got)
		}
	})
}

func TestAnnouncementMovesAClient(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		c.setNeighbour(vip, peer, netlink.NUD_REACHABLE)
		d.SetActive([]netip.Addr{vip})
		eventually(t, "the client's entry to move", func() bool {
			mac, _ := c.neighbour(vip)
			return mac == ours
		})
		if got := d.Stats(); got.Answered != 0 {
			t.Errorf("moved by an answer: %+v", got)
		}
	})
}

// A gratuitous announcement changes an entry but makes none; so a client that
// has one was told in person.
func TestGatewayIsToldInPerson(t *testing.T) {
	for name, neighbours := range map[string]table{
		"its MAC known":     {netip.MustParseAddr("192.0.2.100"): client, netip.MustParseAddr("2001:db8::64"): client},
		"its MAC not known": nil,
	} {
		t.Run(name, func(t *testing.T) {
			families(t, func(t *testing.T, vip netip.Addr) {
				_, d, c := directorAndClient(t, func(c *Config) { c.Neighbors = neighbours })
				d.SetGateways([]netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::64")})
				d.SetActive([]netip.Addr{vip})
				eventually(t, "the gateway to learn the VIP", func() bool {
					mac, _ := c.neighbour(vip)
					return mac == ours
				})
				if got := d.Stats(); got.Answered != 0 {
					t.Errorf("learnt from an answer: %+v", got)
				}
			})
		})
	}
}

func TestUnicastProbeIsAnswered(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		d.SetActive([]netip.Addr{vip})
		c.setNeighbour(vip, ours, netlink.NUD_PROBE)
		eventually(t, "the client's entry to be confirmed", func() bool {
			_, state := c.neighbour(vip)
			if state&(netlink.NUD_STALE|netlink.NUD_FAILED) != 0 {
				// An announcement came between; only an answer confirms.
				c.setNeighbour(vip, ours, netlink.NUD_PROBE)
			}
			return state == netlink.NUD_REACHABLE
		})
	})
}

// Without the group membership a snooping bridge keeps solicitations from the
// director; here it does so with those for an address that nobody holds.
func TestSolicitationsReachTheResponderThroughASnoopingBridge(t *testing.T) {
	s, d, c := directorAndClient(t, nil)
	d.SetActive([]netip.Addr{vip6})
	s.snoop()
	ears := d.listen(ipv6)
	buf := make([]byte, frameLimit)
	hears := func(addr netip.Addr) bool {
		for ok := true; ok; _, ok, _ = ears.receive(buf) {
		}
		c.knock(addr)
		eventually(t, "verdict on "+addr.String(), func() bool {
			_, state := c.neighbour(addr)
			return state&(netlink.NUD_REACHABLE|netlink.NUD_FAILED) != 0
		})
		heard := false
		for {
			n, ok, err := ears.receive(buf)
			must(t, err)
			if !ok {
				return heard
			}
			p, err := decodeNDP(buf[:n])
			heard = heard || err == nil && p.target == addr && p.kind == ndpSolicitation
		}
	}
	// Each try asks for another address, as one that was not found is not asked
	// for again at once.
	nobody := netip.MustParseAddr("2001:db8::dead:0")
	eventually(t, "the bridge to snoop", func() bool {
		nobody = nobody.Next()
		return !hears(nobody)
	})
	if _, state := c.neighbour(vip6); state != netlink.NUD_NONE {
		c.forget(vip6)
	}
	if !hears(vip6) {
		t.Error("the director did not hear the solicitation for its VIP")
	}
	c.mustFind(vip6, ours)
}

func TestStandbyIsInTheGroupsAndLeavesThem(t *testing.T) {
	s := newSegment(t)
	d := newDirector(s.station("director", ours, strings.Fields(directorAddrs)...), nil)
	const count = 450 // More than one socket takes.
	vips := []netip.Addr{vip4}
	for addr := netip.MustParseAddr("2001:db8:1::1:0"); len(vips) <= count; addr = addr.Next() {
		vips = append(vips, addr)
	}
	d.SetVIPs(vips)
	eventually(t, "all groups", func() bool { return joined(t, d.station, vips[1:]) == count })
	d.SetVIPs(vips[:11])
	eventually(t, "ten groups", func() bool { return joined(t, d.station, vips[1:]) == 10 })
	d.stop()
	if got := joined(t, d.station, vips[1:]); got != 0 {
		t.Errorf("in %d groups after the end", got)
	}
}

// joined counts the solicited-node groups of these VIPs that a station is in.
func joined(t *testing.T, st *station, vips []netip.Addr) int {
	t.Helper()
	groups := map[string]bool{}
	in(t, st.ns, func() error {
		file, err := os.Open("/proc/thread-self/net/igmp6")
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[1] == "eth0" {
				groups[fields[2]] = true
			}
		}
		return lines.Err()
	})
	count := 0
	for _, vip := range vips {
		if groups[strings.ReplaceAll(solicitedNode(vip).StringExpanded(), ":", "")] {
			count++
		}
	}
	return count
}

func TestStalledDirectorAnswersNobody(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		d.SetActive([]netip.Addr{vip})
		c.mustFind(vip, ours)
		d.stall()
		eventually(t, "the decision to be old", func() bool { return !d.fence.Fresh() })
		answered := d.Stats().Answered
		c.forget(vip)
		if mac, ok := c.finds(vip); ok {
			t.Fatalf("found %s on a stalled director", mac)
		}
		if got := d.Stats(); got.Answered != answered || got.StaleDrops == 0 {
			t.Errorf("counted %+v, want %d answers and some stale drops", got, answered)
		}
		d.resume()
		eventually(t, "a decision", d.fence.Fresh)
		c.mustFind(vip, ours)
	})
}

// Questions wait in the sockets of an agent that does not run at all. When it
// does again, and even is to announce as before, they are thrown away.
func TestQueuedQuestionsAreThrownAway(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		d.SetActive([]netip.Addr{vip})
		c.mustFind(vip, ours)
		d.stall()
		// Nothing of the announcer moves while this is held.
		d.mu.Lock()
		answered := d.stats.Answered
		// An announcement would make the client ask anew.
		d.timetable.stop(vip)
		eventually(t, "the decision to be old", func() bool { return !d.fence.Fresh() })
		c.forget(vip)
		_, found := c.finds(vip)
		d.fence.Beat(d.fence.Now())
		d.mu.Unlock()
		if found {
			t.Fatal("found while nobody answered")
		}
		eventually(t, "the sockets to be emptied", func() bool { return d.Stats().StaleDrops >= 3 })
		if got := d.Stats(); got.Answered != answered {
			t.Errorf("counted %+v, want %d answers as before", got, answered)
		}
	})
}

// expectClaim waits for a claim and ignores what else is claimed.
func (d *director) expectClaim(vip netip.Addr, mac MAC, kinds ...Kind) {
	d.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case c := <-d.Claims():
			for _, kind := range kinds {
				if c.VIP == vip && c.MAC == mac && c.Kind == kind && c.Interface == "eth0" {
					return
				}
			}
			d.t.Logf("also %v", c)
		case <-deadline:
			d.t.Fatalf("no claim of %s by %s, %v; counted %+v", vip, mac, kinds, d.Stats())
		}
	}
}

func TestForeignClaimIsSeen(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		s, d, _ := directorAndClient(t, nil)
		p := s.station("peer", peer, "192.0.2.3/24", "2001:db8::3/64")
		for _, frame := range gratuitous(peer, vip) {
			must(t, p.listen(familyOf(vip)).send(frame))
		}
		d.expectClaim(vip, peer, Gratuitous)

		// The peer's kernel answers for it; only our question brings that to
		// light.
		p.addAddress(netip.PrefixFrom(vip, vip.BitLen()).String())
		if vip.Is6() {
			eventually(t, "the peer to listen", func() bool { return joined(t, p, []netip.Addr{vip}) == 1 })
		}
		// Twice: an answer right after an announcement is like it, and not reported.
		d.probe(vip)
		d.probe(vip)
		d.expectClaim(vip, peer, Answer)
	})
}

// A director that is alone lets its kernel answer as well.
func TestOwnKernelThatAnswersIsNoClaim(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		_, d, c := directorAndClient(t, nil)
		d.addAddress(netip.PrefixFrom(vip, vip.BitLen()).String())
		c.mustFind(vip, ours)
		d.SetActive([]netip.Addr{vip})
		c.forget(vip)
		c.mustFind(vip, ours)
		d.probe(vip)
		answered := d.Stats().Answered
		c.setNeighbour(vip, ours, netlink.NUD_PROBE)
		eventually(t, "an answer", func() bool { return d.Stats().Answered > answered })
		if got := d.Stats(); got.Claims != 0 {
			t.Errorf("counted %d claims of our own", got.Claims)
		}
	})
}

func TestInterfaceThatComesBackIsServed(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		s, d, c := directorAndClient(t, nil)
		d.SetActive([]netip.Addr{vip})
		c.mustFind(vip, ours)

		must(t, d.nl.LinkSetDown(d.station.link))
		must(t, d.LinkChanged(d.linkState()))
		must(t, d.nl.LinkSetUp(d.station.link))
		eventually(t, "carrier", func() bool { return d.linkState().Up })
		must(t, d.LinkChanged(d.linkState()))
		c.forget(vip)
		c.mustFind(vip, ours)

		before := d.portOf(familyOf(vip))
		must(t, s.nl.LinkDel(linkOf(t, s.nl, "director")))
		must(t, d.LinkChanged(LinkState{}))
		s.plugIn(d.station, "director2")
		d.mac = ours
		must(t, d.LinkChanged(d.linkState()))
		eventually(t, "a socket on it", func() bool {
			p := d.portOf(familyOf(vip))
			return p != nil && p != before
		})
		c.forget(vip)
		c.mustFind(vip, ours)
	})
}

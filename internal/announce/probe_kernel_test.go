//go:build kernel

package announce

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// probe asks until a probe came to something: a slow machine may stall it.
func (d *director) probe(targets ...netip.Addr) Probed {
	d.t.Helper()
	d.SetOwn([]netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")})
	var found Probed
	eventually(d.t, "a probe that is not void", func() bool {
		var err error
		found, err = d.Probe(d.t.Context(), targets)
		if err != nil && !errors.Is(err, ErrStalled) {
			d.t.Fatal(err)
		}
		return err == nil
	})
	return found
}

// warm gives a station a VIP as a standby director has it.
func (st *station) warm(vip netip.Addr) {
	st.t.Helper()
	if _, err := st.nl.LinkByName("dummy-lvs"); err != nil {
		must(st.t, st.nl.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "dummy-lvs"}}))
	}
	dummy := linkOf(st.t, st.nl, "dummy-lvs")
	must(st.t, st.nl.LinkSetUp(dummy))
	in(st.t, st.ns, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/arp_ignore", []byte("1"), 0)
	})
	addr, err := netlink.ParseAddr(netip.PrefixFrom(vip, vip.BitLen()).String())
	must(st.t, err)
	must(st.t, st.nl.AddrAdd(dummy, addr))
}

func TestProbeHearsTheLivingAndOnlyThem(t *testing.T) {
	families(t, func(t *testing.T, vip netip.Addr) {
		node, nobody, holder := netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.9"), peer
		if vip.Is6() {
			node, nobody = netip.MustParseAddr("2001:db8::3"), netip.MustParseAddr("2001:db8::9")
		}
		s := newSegment(t)
		d := newDirector(s.station("director", ours, strings.Fields(directorAddrs)...), nil)
		second := newDirector(s.station("peer", peer, "192.0.2.3/24", "2001:db8::3/64"), nil)
		second.warm(vip)
		d.warm(vip)

		found := d.probe(vip, node, nobody)
		if !found.Answered(node, holder) || len(found.Answers) != 1 {
			t.Errorf("found %v, want the node alone: its VIP is on a standby", found.Answers)
		}
		second.SetActive([]netip.Addr{vip})
		eventually(t, "the active director to answer", func() bool { return d.probe(vip).Answered(vip, holder) })
		// Who is active itself hears others, and not itself.
		d.SetActive([]netip.Addr{vip})
		if found = d.probe(vip, node); !found.Answered(vip, holder) || len(found.Answers[vip]) != 1 {
			t.Errorf("found %v, want the other active director", found.Answers)
		}
		second.SetActive(nil)
		if found = d.probe(vip, node); len(found.Answers[vip]) != 0 || !found.Answered(node, holder) {
			t.Errorf("found %v, want nobody at the VIP, and the node still there", found.Answers)
		}
		if mac, _ := second.neighbour(vip); !mac.IsZero() {
			t.Errorf("the peer learned from a probe that the VIP is at %s", mac)
		}

		// The machine dies: its port is there, and nobody behind it.
		must(t, second.nl.LinkSetDown(second.station.link))
		if found = d.probe(vip, node); len(found.Answers) != 0 {
			t.Errorf("found %v on a dead machine", found.Answers)
		}
		// The link of the one who asks is down, whether it was told or not.
		must(t, d.nl.LinkSetDown(d.station.link))
		if _, err := d.Probe(t.Context(), []netip.Addr{vip}); err == nil {
			t.Error("an interface that is down was taken for silence")
		}
		must(t, d.LinkChanged(d.linkState()))
		if _, err := d.Probe(t.Context(), []netip.Addr{vip}); !errors.Is(err, ErrSilent) {
			t.Errorf("probed with %v, want ErrSilent", err)
		}
	})
}

package realserver

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// The names in net.ipv4.conf that the four settings have.
const (
	loopback = "lo"
	all      = "all"
)

// Deviation is one thing that is not as a real server needs it.
type Deviation struct {
	// Subject is a VIP or the name of a sysctl.
	Subject string
	// Found is what it is like, Want what it should be.
	Found, Want string
}

// String says it in a line.
func (d Deviation) String() string {
	return fmt.Sprintf("%s: %s, should be %s", d.Subject, d.Found, d.Want)
}

// Presence of a VIP on lo, in a Deviation.
const (
	present = "on lo"
	absent  = "not on lo"
)

// Settings returns the four settings that keep a host from answering ARP for
// addresses on lo and from naming them as senders: arp_ignore 1 and arp_announce
// 2, or the value that each has if that one does it too.
func Settings(state kernel.RealServerState) []kernel.Setting {
	var settings []kernel.Setting
	for _, link := range []string{loopback, all} {
		for _, name := range []string{kernel.ARPIgnore, kernel.ARPAnnounce} {
			settings = append(settings, wanted(kernel.Setting{
				Link: link, Name: name, Value: valueOf(state, link, name),
			}))
		}
	}
	return settings
}

func wanted(s kernel.Setting) kernel.Setting {
	if silent(s) {
		return s
	}
	s.Value = map[string]int{kernel.ARPIgnore: 1, kernel.ARPAnnounce: 2}[s.Name]
	return s
}

// silent says whether a value, where it is the effective one, keeps addresses on
// lo off the segment. A larger one is not always stricter: arp_ignore 3 answers
// for addresses of global scope on any interface, and values without a meaning
// count as 0 (arp_ignore and arp_solicit of net/ipv4/arp.c).
func silent(s kernel.Setting) bool {
	if s.Name == kernel.ARPIgnore {
		return s.Value == 1 || s.Value == 2 || s.Value == 8
	}
	return s.Value == 2
}

// valueOf is 0 for a setting that the state does not have.
func valueOf(state kernel.RealServerState, link, name string) int {
	for _, s := range state.Settings {
		if s.Link == link && s.Name == name {
			return s.Value
		}
	}
	return 0
}

// Deviations says what has to be done for a host to be the real server of these
// VIPs; nothing if it is.
func Deviations(vips []netip.Addr, state kernel.RealServerState) []Deviation {
	var deviations []Deviation
	for _, s := range Settings(state) {
		if now := valueOf(state, s.Link, s.Name); now != s.Value {
			deviations = append(deviations, Deviation{
				Subject: sysctl(s.Path()), Found: strconv.Itoa(now), Want: strconv.Itoa(s.Value),
			})
		}
	}
	for _, vip := range vips {
		if _, found := onLoopback(vip, state); !found {
			deviations = append(deviations, Deviation{Subject: vip.String(), Found: absent, Want: present})
		}
	}
	for _, vip := range state.Recorded {
		if _, found := onLoopback(vip, state); found && !slices.Contains(vips, vip) {
			deviations = append(deviations, Deviation{Subject: vip.String(), Found: present, Want: absent})
		}
	}
	return deviations
}

// onLoopback finds a VIP on lo and returns its label, for IPv6 the name lo.
func onLoopback(vip netip.Addr, state kernel.RealServerState) (label string, found bool) {
	for _, a := range state.Addresses {
		if a.Addr == vip && a.Link == loopback {
			if a.Label == "" {
				return a.Link, true
			}
			return a.Label, true
		}
	}
	return "", false
}

// Obstacles says why a host can't be the real server of these VIPs, whatever is
// done about the four settings; nothing if it can.
func Obstacles(vips []netip.Addr, state kernel.RealServerState) []string {
	var obstacles []string
	for _, a := range state.Addresses {
		if a.Link != loopback && slices.Contains(vips, a.Addr) {
			obstacles = append(obstacles, fmt.Sprintf(
				"%s is the host's own address on %s: a VIP must be on no interface but lo", a.Addr, a.Link))
		}
	}
	if !slices.ContainsFunc(vips, netip.Addr.Is4) {
		return obstacles
	}
	for _, own := range state.Settings {
		if own.Link == all || own.Link == loopback {
			continue
		}
		// What counts is the larger one (IN_DEV_MAXCONF of linux/inetdevice.h).
		effective := own
		effective.Value = max(own.Value, wanted(kernel.Setting{
			Link: all, Name: own.Name, Value: valueOf(state, all, own.Name),
		}).Value)
		if !silent(effective) {
			obstacles = append(obstacles, fmt.Sprintf(
				"%s = %d makes VIPs on lo known on %s: set it to 0", sysctl(own.Path()), own.Value, own.Link))
		}
	}
	return obstacles
}

// Served returns those of the VIPs that the host serves, in their order: they are
// on lo and on no other interface, and the host is silent about them.
func Served(vips []netip.Addr, state kernel.RealServerState) []netip.Addr {
	quiet := len(Deviations(nil, kernel.RealServerState{Settings: state.Settings})) == 0
	var served []netip.Addr
	for _, vip := range vips {
		_, found := onLoopback(vip, state)
		if found && (quiet || vip.Is6()) && len(Obstacles([]netip.Addr{vip}, state)) == 0 {
			served = append(served, vip)
		}
	}
	return served
}

// Outcome is what there is to tell of a host whose VIPs follow a Plan.
type Outcome struct {
	// VIPs are those wanted or leaving that the host serves.
	VIPs []netip.Addr
	// Addresses are those that the host has on other interfaces than lo, in order.
	Addresses []netip.Addr
	// Problem says why a VIP that is wanted is not served; empty if all are.
	Problem string
}

// outcome tells what a check found and failed at.
func outcome(wanted Wanted, state kernel.RealServerState, err error) Outcome {
	o := Outcome{VIPs: Served(slices.Concat(wanted.VIPs, wanted.Leaving), state)}
	for _, a := range state.Addresses {
		if a.Link != loopback {
			o.Addresses = append(o.Addresses, a.Addr)
		}
	}
	problems := Obstacles(wanted.VIPs, state)
	if err != nil {
		problems = append(problems, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	for _, vip := range wanted.VIPs {
		if _, found := onLoopback(vip, state); !found && len(problems) == 0 {
			problems = append(problems, Deviation{Subject: vip.String(), Found: absent, Want: present}.String())
		}
	}
	o.Problem = strings.Join(problems, "; ")
	return o
}

// sysctl is the name of a path below /proc/sys/net as sysctl(8) has it, where a
// dot in the name of an interface is a slash.
func sysctl(path string) string {
	return "net." + strings.NewReplacer("/", ".", ".", "/").Replace(path)
}

package kernel

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Names of the settings of an interface that decide about ARP for addresses on
// lo. See Documentation/networking/ip-sysctl.rst.
const (
	ARPIgnore   = "arp_ignore"
	ARPAnnounce = "arp_announce"
)

// Setting is the value of net.ipv4.conf.LINK.NAME.
type Setting struct {
	// Link is the name of an interface, or all.
	Link string
	// Name is ARPIgnore or ARPAnnounce.
	Name  string
	Value int
}

// Path is the setting's place below /proc/sys/net.
func (s Setting) Path() string { return confPath(s.Link, s.Name) }

// HostAddress is an address of an interface.
type HostAddress struct {
	Addr netip.Addr
	Link string
	// Label is Link, or what somebody chose for an IPv4 address: lo:0. It is
	// empty for IPv6.
	Label string
}

// RealServerState is what a real server's namespace is like at one moment.
type RealServerState struct {
	// Addresses of all interfaces.
	Addresses []HostAddress
	// Settings of all interfaces and of all, ARPIgnore and ARPAnnounce of each,
	// by name of the interface.
	Settings []Setting
	// Recorded are the VIPs that Prepare put on lo.
	Recorded []netip.Addr
	// Found are the settings' values from before Configure and Prepare, by path;
	// empty if nothing is set up.
	Found map[string]string
}

// Observe reads the state of the namespace and the record. It changes nothing.
func (r *RealServer) Observe(ctx context.Context) (RealServerState, error) {
	var state RealServerState
	file, err := r.client.record.read()
	if err != nil {
		return state, err
	}
	state.Recorded = file.Addresses
	state.Found = make(map[string]string, len(file.Settings))
	for name, s := range file.Settings {
		state.Found[name] = s.Found
	}
	err = r.client.netns.run(ctx, func() error {
		var err error
		state.Settings, err = r.sysctls.arp()
		return err
	})
	if err != nil {
		return state, err
	}
	state.Addresses, err = r.addresses(ctx)
	return state, err
}

// Configure gives settings their values. All of them are recorded as they were
// found before the first is changed, those too that have their value already: it
// is what Restore puts back if somebody changes them later on. Values that an
// earlier record has stay as that one found them.
func (r *RealServer) Configure(ctx context.Context, settings []Setting) error {
	return r.client.netns.run(ctx, func() error {
		for _, s := range settings {
			found, err := r.sysctls.read(s.Path())
			if err != nil {
				return err
			}
			if err := r.client.record.note(s.Path(), found, strconv.Itoa(s.Value)); err != nil {
				return err
			}
		}
		for _, s := range settings {
			if err := r.sysctls.set(s.Path(), strconv.Itoa(s.Value)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Watch sends the state of lo, its addresses among it: at once, and after each
// change once more. The channel is closed when ctx ends, or earlier if the
// kernel can't be watched any more. Changes of settings are not seen: the kernel
// reports none.
func (r *RealServer) Watch(ctx context.Context) (<-chan Link, error) {
	return r.client.watchLink(ctx, loopback)
}

// arp reads the ARP settings of all interfaces. One that goes meanwhile has none.
func (s sysctls) arp() ([]Setting, error) {
	// As os.ReadDir sorts them.
	links, err := os.ReadDir(filepath.Join(s.root, "ipv4/conf"))
	if err != nil {
		return nil, err
	}
	var settings []Setting
	for _, link := range links {
		if link.Name() == "default" {
			continue
		}
		for _, name := range []string{ARPIgnore, ARPAnnounce} {
			setting := Setting{Link: link.Name(), Name: name}
			setting.Value, err = s.readInt(setting.Path())
			if errors.Is(err, fs.ErrNotExist) && link.Name() != loopback && link.Name() != "all" {
				continue
			}
			if err != nil {
				return nil, err
			}
			settings = append(settings, setting)
		}
	}
	return settings, nil
}

func (r *RealServer) addresses(ctx context.Context) ([]HostAddress, error) {
	links, err := steady(ctx, "listing interfaces", r.client.route.LinkList)
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	listed, err := r.client.listAddresses(ctx, nil)
	if err != nil {
		return nil, err
	}
	addresses := make([]HostAddress, 0, len(listed))
	for _, a := range listed {
		addresses = append(addresses, HostAddress{Addr: fromIP(a.IP).Unmap(), Link: names[a.LinkIndex], Label: a.Label})
	}
	slices.SortFunc(addresses, func(a, b HostAddress) int { return a.Addr.Compare(b.Addr) })
	return addresses, nil
}

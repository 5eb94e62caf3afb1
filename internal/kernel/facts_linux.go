package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// kubeProxyLink is the device of kube-proxy's ipvs mode.
const kubeProxyLink = "kube-ipvs0"

// schedulers are those that the API knows.
var schedulers = [...]string{
	"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "sed", "nq", "fo", "ovf", "twos",
}

func (c *Client) facts(ctx context.Context) (Facts, error) {
	facts := Facts{Schedulers: map[string]bool{}}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return Facts{}, fmt.Errorf("asking for the kernel's release: %w", err)
	}
	facts.Release = unix.ByteSliceToString(uname.Release[:])
	if err := c.ipvsFacts(ctx, &facts); err != nil {
		return Facts{}, err
	}
	if err := c.networkFacts(ctx, &facts); err != nil {
		return Facts{}, err
	}
	return facts, nil
}

func (c *Client) ipvsFacts(ctx context.Context, facts *Facts) error {
	err := c.ipvs.present(ctx)
	if errors.Is(err, ErrNoIPVS) {
		return nil
	}
	if err != nil {
		return err
	}
	facts.IPVS = true
	if facts.ConnectionTableSize, err = c.connectionTableSize(ctx); err != nil {
		return err
	}
	for _, name := range schedulers {
		usable, err := c.schedulerUsable(ctx, name)
		if errors.Is(err, ErrUnsupported) {
			continue
		}
		if err != nil {
			return fmt.Errorf("asking for scheduler %s: %w", name, err)
		}
		facts.Schedulers[name] = usable
	}
	return nil
}

// schedulerUsable asks for a service that can't be made: the kernel looks its
// scheduler up (and loads the module) before it looks at the prefix length of an
// IPv6 service (ip_vs_add_service in net/netfilter/ipvs/ip_vs_ctl.c), which is 0
// here. So ENOENT says that there is no scheduler, EINVAL that there is one, and
// nothing is ever added.
func (c *Client) schedulerUsable(ctx context.Context, name string) (bool, error) {
	err := c.ipvs.do(ctx, func(h ipvsHandle) error {
		return h.NewService(&ipvs.Service{
			AddressFamily: unix.AF_INET6,
			Address:       make([]byte, 16),
			Protocol:      unix.IPPROTO_TCP,
			SchedName:     name,
			Netmask:       0,
		})
	})
	switch {
	case isErrno(err, unix.ENOENT):
		return false, nil
	case isErrno(err, unix.EINVAL):
		return true, nil
	case err == nil || isErrno(err, unix.EAFNOSUPPORT):
		return false, ErrUnsupported // without IPv6 in IPVS there is no such question
	default:
		return false, err
	}
}

func (c *Client) networkFacts(ctx context.Context, facts *Facts) error {
	_, err := c.linkByName(kubeProxyLink)
	facts.KubeProxyIPVS = err == nil
	if err != nil && !errors.Is(err, ErrNoLink) {
		return err
	}
	dummy := 0
	if link, err := c.linkByName(netstate.DummyLink); err == nil {
		dummy = link.Attrs().Index
	} else if !errors.Is(err, ErrNoLink) {
		return err
	}
	addrs, err := c.listAddresses(ctx, nil)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.LinkIndex != dummy {
			facts.Addresses = append(facts.Addresses, prefixOf(a))
		}
	}
	slices.SortFunc(facts.Addresses, comparePrefixes)
	facts.Gateways, err = c.gateways(ctx)
	return err
}

func prefixOf(a netlink.Addr) netip.Prefix {
	ones, _ := a.Mask.Size()
	return netip.PrefixFrom(fromIP(a.IP).Unmap(), ones)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func (c *Client) gateways(ctx context.Context) ([]netip.Addr, error) {
	routes, err := steady(ctx, "listing routes", func() ([]netlink.Route, error) {
		return c.route.RouteList(nil, netlink.FAMILY_ALL)
	})
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]bool{}
	add := func(gw []byte) {
		if addr, ok := netip.AddrFromSlice(gw); ok {
			found[addr.Unmap()] = true
		}
	}
	for _, r := range routes {
		add(r.Gw)
		for _, hop := range r.MultiPath {
			add(hop.Gw)
		}
	}
	return slices.SortedFunc(maps.Keys(found), netip.Addr.Compare), nil
}

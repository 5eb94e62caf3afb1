package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// timeoutPrefix begins the names of IPVS's timeouts in the record.
const timeoutPrefix = "timeout/"

// addrGenModeNone (IN6_ADDR_GEN_MODE_NONE of linux/if_link.h) gives a link no
// link-local address.
const addrGenModeNone = 1

func (c *Client) prepare(ctx context.Context, node netstate.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := c.linkByName(node.Interface); err != nil {
		return err
	}
	if err := c.ipvs.present(ctx); err != nil {
		return err
	}
	if err := c.record.noteInterface(node.Interface); err != nil {
		return err
	}
	c.mu.Lock()
	c.node = &node
	c.mu.Unlock()

	// The guard is first: a VIP must not be there without it.
	if err := c.prepareGuard(ctx, node); err != nil {
		return err
	}
	if err := c.prepareDummy(); err != nil {
		return fmt.Errorf("preparing %s: %w", netstate.DummyLink, err)
	}
	s := sysctls{root: c.opts.Sysctls, record: c.record}
	if err := c.netns.run(ctx, func() error {
		return join(s.prepareDirector(node.Interface), s.prepareLinks(node.Interface, node.Links), s.prepareSloppy(node.Sloppy))
	}); err != nil {
		return err
	}
	return c.prepareTimeouts(ctx, node.Timeouts)
}

// prepareDummy creates the device that holds the VIPs, and sets it up.
func (c *Client) prepareDummy() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = netstate.DummyLink
	if err := c.route.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	link, err := c.linkByName(netstate.DummyLink)
	if err != nil {
		return err
	}
	if link.Type() != "dummy" {
		return fmt.Errorf("%w: the interface exists and is a %s", ErrUnsupported, link.Type())
	}
	if link.Attrs().Flags&unix.IFF_UP != 0 {
		return nil
	}
	// Without IPv6 in the kernel there is no such mode, and no need of it.
	if err := c.route.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) &&
		!errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return c.route.LinkSetUp(link)
}

// timeout is one of the three, by its name in the record.
type timeout struct {
	name string
	of   func(*ipvs.Config) *time.Duration
}

var timeouts = [...]timeout{
	{"tcp", func(c *ipvs.Config) *time.Duration { return &c.TimeoutTCP }},
	{"tcpfin", func(c *ipvs.Config) *time.Duration { return &c.TimeoutTCPFin }},
	{"udp", func(c *ipvs.Config) *time.Duration { return &c.TimeoutUDP }},
}

func (c *Client) prepareTimeouts(ctx context.Context, want netstate.Timeouts) error {
	if want == (netstate.Timeouts{}) {
		return nil
	}
	have, err := exchange(ctx, c.ipvs, func(h ipvsHandle) (*ipvs.Config, error) { return h.GetConfig() })
	if err != nil {
		return fmt.Errorf("reading IPVS's timeouts: %w", err)
	}
	wanted := &ipvs.Config{TimeoutTCP: want.TCP, TimeoutTCPFin: want.TCPFin, TimeoutUDP: want.UDP}
	set := &ipvs.Config{} // zero fields are left as they are
	for _, t := range timeouts {
		found, ours := *t.of(have), *t.of(wanted)
		if ours == 0 || ours == found {
			continue
		}
		if err := c.record.note(timeoutPrefix+t.name, seconds(found), seconds(ours)); err != nil {
			return err
		}
		*t.of(set) = ours
	}
	return c.setTimeouts(ctx, set)
}

func (c *Client) setTimeouts(ctx context.Context, set *ipvs.Config) error {
	if *set == (ipvs.Config{}) {
		return nil
	}
	if err := c.ipvs.do(ctx, func(h ipvsHandle) error { return h.SetConfig(set) }); err != nil {
		return fmt.Errorf("setting IPVS's timeouts: %w", err)
	}
	return nil
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

func (c *Client) restoreTimeouts(ctx context.Context) error {
	file, err := c.record.read()
	if err != nil {
		return err
	}
	have, err := exchange(ctx, c.ipvs, func(h ipvsHandle) (*ipvs.Config, error) { return h.GetConfig() })
	if errors.Is(err, ErrNoIPVS) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading IPVS's timeouts: %w", err)
	}
	set := &ipvs.Config{}
	for _, t := range timeouts {
		was := file.Settings[timeoutPrefix+t.name]
		found, err := strconv.ParseInt(was.Found, 10, 64)
		if err == nil && slices.Contains(was.Ours, seconds(*t.of(have))) {
			*t.of(set) = time.Duration(found) * time.Second
		}
	}
	return c.setTimeouts(ctx, set)
}

// restore goes the way out: what announces, what answers, the device, the
// guard, and then the settings. It stops at the first failure, so that a second
// call finds what the first left, its owner's mark included.
func (c *Client) restore(ctx context.Context) error {
	keys, err := c.keys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		have, err := c.observe(ctx, key)
		if err != nil {
			return err
		}
		for _, op := range netstate.Diff(have.State, netstate.New()) {
			if err := c.apply(ctx, op); err != nil {
				return err
			}
		}
	}
	if err := c.deleteMarked(ctx); err != nil {
		return err
	}
	c.syncing.Lock()
	defer c.syncing.Unlock()
	if err := c.stopSyncDaemons(ctx); err != nil {
		return err
	}
	if err := c.deleteDummy(); err != nil {
		return fmt.Errorf("deleting %s: %w", netstate.DummyLink, err)
	}
	if err := c.removeGuard(ctx); err != nil {
		return err
	}
	if err := c.restoreTimeouts(ctx); err != nil {
		return err
	}
	s := sysctls{root: c.opts.Sysctls, record: c.record}
	if err := c.netns.run(ctx, s.restore); err != nil {
		return err
	}
	c.mu.Lock()
	c.node, c.relay, c.directors, c.sharing = nil, nil, nil, nil
	c.index.filled, c.index.keys = false, nil
	c.mu.Unlock()
	return c.record.remove()
}

func (c *Client) deleteDummy() error {
	link, err := c.linkByName(netstate.DummyLink)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.route.LinkDel(link)
}

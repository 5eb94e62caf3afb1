package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loopback is the device that holds the VIPs of a real server.
const loopback = "lo"

// RealServer makes one network namespace a real server for direct routing: VIPs
// on lo and, for IPv4, sysctls that keep it from answering ARP for them. (For an
// address on lo Linux answers no neighbour solicitation, so IPv6 needs none.)
// Its methods may be called one at a time.
type RealServer struct {
	client  *Client
	sysctls sysctls
}

// NewRealServer opens a namespace. It changes nothing.
func NewRealServer(opts Options) (*RealServer, error) {
	client, err := New(opts)
	if err != nil {
		return nil, err
	}
	client.record = newRecord(client.opts.StateDir, realServerRecord)
	return &RealServer{
		client:  client,
		sysctls: sysctls{root: client.opts.Sysctls, record: client.record},
	}, nil
}

// Close gives up the sockets. What is in the kernel stays.
func (r *RealServer) Close() error { return r.client.Close() }

// Prepare makes the namespace serve these VIPs, and no others of ours: it sets
// the sysctls net.ipv4.conf.{lo,all}.arp_ignore and arp_announce where they are
// lower than 1 and 2, then puts each VIP on lo (an IPv4 one as /32 with the
// first label lo:N that is free), then takes off those that were put there
// before and are not wanted any more. A VIP that somebody else has put on lo is
// used as it is and never taken off. It repairs, and may be called again at any
// time. A VIP that fails keeps no other from being done.
func (r *RealServer) Prepare(ctx context.Context, vips []netip.Addr) error {
	// Sysctls are first: a VIP that is answered for takes clients away from the
	// director.
	if err := r.client.netns.run(ctx, r.sysctls.prepareRealServer); err != nil {
		return err
	}
	var errs []error
	for _, vip := range vips {
		if err := r.add(ctx, vip); err != nil {
			errs = append(errs, fmt.Errorf("adding %s to %s: %w", vip, loopback, err))
		}
	}
	ours, err := r.VIPs()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, vip := range ours {
		if slices.Contains(vips, vip) {
			continue
		}
		if err := r.remove(ctx, vip); err != nil {
			errs = append(errs, fmt.Errorf("taking %s off %s: %w", vip, loopback, err))
		}
	}
	return errors.Join(errs...)
}

// VIPs returns those that Prepare put on lo, by its record.
func (r *RealServer) VIPs() ([]netip.Addr, error) {
	file, err := r.client.record.read()
	return file.Addresses, err
}

// Restore takes off the VIPs that Prepare put on lo, then puts the sysctls back
// that it changed, each only if it still has the value that it was given.
func (r *RealServer) Restore(ctx context.Context) error {
	ours, err := r.VIPs()
	if err != nil {
		return err
	}
	for _, vip := range ours {
		if err := r.remove(ctx, vip); err != nil {
			return fmt.Errorf("taking %s off %s: %w", vip, loopback, err)
		}
	}
	if err := r.client.netns.run(ctx, r.sysctls.restore); err != nil {
		return err
	}
	return r.client.record.remove()
}

func (r *RealServer) add(ctx context.Context, vip netip.Addr) error {
	link, addrs, err := r.loopback(ctx)
	if err != nil {
		return err
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := r.client.route.LinkSetUp(link); err != nil {
			return fmt.Errorf("setting it up: %w", err)
		}
	}
	labels := map[string]bool{}
	for _, a := range addrs {
		labels[a.Label] = true
		if fromIP(a.IP).Unmap() == vip {
			return nil
		}
	}
	// The record is first: an address that is recorded and not there is harmless.
	err = r.client.record.update(func(file *recordFile) bool {
		if slices.Contains(file.Addresses, vip) {
			return false
		}
		file.Addresses = append(file.Addresses, vip)
		slices.SortFunc(file.Addresses, netip.Addr.Compare)
		return true
	})
	if err != nil {
		return err
	}
	address := realServerAddress(vip)
	if vip.Is4() {
		address.Label = freeLabel(labels)
	}
	if err := r.client.route.AddrAdd(link, address); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (r *RealServer) remove(ctx context.Context, vip netip.Addr) error {
	link, addrs, err := r.loopback(ctx)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		ones, bits := a.Mask.Size()
		if fromIP(a.IP).Unmap() != vip || ones != bits {
			continue
		}
		// As it was listed: the kernel refuses another label.
		if err := r.client.route.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	return r.client.record.update(func(file *recordFile) bool {
		before := len(file.Addresses)
		file.Addresses = slices.DeleteFunc(file.Addresses, func(a netip.Addr) bool { return a == vip })
		return len(file.Addresses) != before
	})
}

func (r *RealServer) loopback(ctx context.Context) (netlink.Link, []netlink.Addr, error) {
	link, err := r.client.linkByName(loopback)
	if err != nil {
		return nil, nil, err
	}
	addrs, err := r.client.listAddresses(ctx, link)
	return link, addrs, err
}

// realServerAddress is a VIP on lo. An IPv6 one is deprecated from the start, so
// that it is no source address of the host's own connections.
func realServerAddress(vip netip.Addr) *netlink.Addr {
	address := &netlink.Addr{IPNet: hostNet(vip)}
	if vip.Is6() {
		address.Flags = unix.IFA_F_NODAD
		address.PreferedLft, address.ValidLft = 0, foreverLifetime
	}
	return address
}

// freeLabel returns lo:N with the smallest N that nobody uses.
func freeLabel(used map[string]bool) string {
	for n := 0; ; n++ {
		if label := loopback + ":" + strconv.Itoa(n); !used[label] {
			return label
		}
	}
}

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Flags of a service, linux/ip_vs.h.
const (
	flagPersistent    = 0x1
	flagHashed        = 0x2 // the kernel's own: set on every service that it lists
	flagOnePacket     = 0x4
	flagsOfSchedulers = uint32(netstate.Fallback | netstate.Port)
)

// maxWeight is what can be read back: moby/ipvs cuts weights to 16 bits.
const maxWeight = 65535

func (c *Client) applyService(ctx context.Context, op netstate.ServiceChange) error {
	service := c.toService(op.Entry, op.Value)
	var err error
	switch op.Verb {
	case netstate.Del:
		if err = c.ipvs.do(ctx, func(h ipvsHandle) error { return h.DelService(service) }); isErrno(err, unix.ESRCH) {
			err = nil
		}
		if err == nil {
			c.marks.forget(op.Entry)
		}
	case netstate.Set:
		err = c.ipvs.do(ctx, func(h ipvsHandle) error {
			return either(h.UpdateService(service), unix.ESRCH, func() error { return h.NewService(service) })
		})
	default:
		err = c.ipvs.do(ctx, func(h ipvsHandle) error {
			return either(h.NewService(service), unix.EEXIST, func() error { return h.UpdateService(service) })
		})
	}
	if isErrno(err, unix.ENOENT) {
		return SchedulerUnavailable{Name: op.Value.Scheduler}
	}
	return err
}

func (c *Client) applyDestination(ctx context.Context, op netstate.DestinationChange) error {
	service := c.toService(op.Entry.Service, netstate.Service{})
	destination, err := toDestination(op.Entry, op.Value)
	if err != nil {
		return err
	}
	// What is to have a last weight has that first.
	first, quiet := *destination, op.Value.Weight == 0 && op.Value.LastWeight > 0
	if quiet {
		first.Weight = int(op.Value.LastWeight)
	}
	write := func(h ipvsHandle) error { return nil }
	switch op.Verb {
	case netstate.Del:
		// ENOENT: no such destination; ESRCH: not even the service.
		err = c.ipvs.do(ctx, func(h ipvsHandle) error { return h.DelDestination(service, destination) })
		if isErrno(err, unix.ENOENT, unix.ESRCH) {
			err = nil
		}
		return err
	case netstate.Move:
		return c.moveDestination(ctx, service, &first, destination)
	case netstate.Set:
		write = func(h ipvsHandle) error { return editDestination(h, service, &first) }
	default:
		write = func(h ipvsHandle) error { return addDestination(h, service, &first) }
	}
	return c.ipvs.do(ctx, func(h ipvsHandle) error {
		if err := write(h); err != nil || !quiet {
			return err
		}
		return h.UpdateDestination(service, destination)
	})
}

// addDestination adds a destination, or edits it if it is there.
func addDestination(h ipvsHandle, service *ipvs.Service, d *ipvs.Destination) error {
	return either(h.NewDestination(service, d), unix.EEXIST, func() error { return h.UpdateDestination(service, d) })
}

// editDestination edits a destination, or adds it if it is not there.
func editDestination(h ipvsHandle, service *ipvs.Service, d *ipvs.Destination) error {
	return either(h.UpdateDestination(service, d), unix.ENOENT, func() error { return h.NewDestination(service, d) })
}

// either returns err, or what other returns if err is errno: the entry is there
// after all, or is not.
func either(err error, errno unix.Errno, other func() error) error {
	if errors.Is(err, errno) {
		return other()
	}
	return err
}

// isErrno says whether err is one of errnos. Unlike errors.Is with ErrNoIPVS and
// the like it is for bare answers of the kernel.
func isErrno(err error, errnos ...unix.Errno) bool {
	for _, errno := range errnos {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// toService is the kernel's form of a service, with the mark of one that is marked.
func (c *Client) toService(k netstate.ServiceKey, v netstate.Service) *ipvs.Service {
	s := toService(k, v)
	if k.Marked {
		s.FWMark = c.marks.get(k)
	}
	return s
}

func toService(k netstate.ServiceKey, v netstate.Service) *ipvs.Service {
	s := &ipvs.Service{
		FWMark:        k.Key.Mark,
		Protocol:      uint16(k.Protocol),
		Port:          k.Port,
		SchedName:     v.Scheduler,
		Flags:         uint32(v.Flags) & flagsOfSchedulers,
		AddressFamily: unix.AF_INET,
		Address:       net.IP(k.Key.Addr.AsSlice()),
	}
	bits := 32
	if k.Key.Addr.Is6() {
		s.AddressFamily, bits = unix.AF_INET6, 128
	}
	if v.OnePacket {
		s.Flags |= flagOnePacket
	}
	if v.Persistence > 0 {
		s.Flags |= flagPersistent
		s.Timeout = uint32(v.Persistence / time.Second)
		if v.PersistencePrefix != 0 {
			bits = int(v.PersistencePrefix)
		}
	}
	s.Netmask = toNetmask(s.AddressFamily, bits)
	return s
}

// toNetmask makes the kernel's form of a prefix length: for IPv6 the length, for
// IPv4 the bytes of the mask, in network order in memory.
func toNetmask(family uint16, bits int) uint32 {
	if family == unix.AF_INET6 {
		return uint32(bits)
	}
	return binary.NativeEndian.Uint32(net.CIDRMask(bits, 32))
}

// fromNetmask is the reverse. A mask with holes, which only others can have
// set, counts as the number of its bits.
func fromNetmask(family uint16, mask uint32) uint8 {
	if family == unix.AF_INET6 {
		return uint8(min(mask, 128))
	}
	bits := uint8(0)
	for ; mask != 0; mask &= mask - 1 {
		bits++
	}
	return bits
}

// fromService turns what the kernel lists into an entry.
func fromService(s *ipvs.Service) (netstate.ServiceKey, netstate.Service) {
	key := netstate.ServiceKey{Key: netstate.Key{Mark: s.FWMark}}
	if s.FWMark == 0 {
		key.Key.Addr = fromIP(s.Address)
		key.Protocol, key.Port = netstate.Protocol(s.Protocol), s.Port
	}
	v := netstate.Service{
		Scheduler:         s.SchedName,
		Flags:             netstate.SchedulerFlags(s.Flags & flagsOfSchedulers),
		OnePacket:         s.Flags&flagOnePacket != 0,
		PersistencePrefix: fromNetmask(s.AddressFamily, s.Netmask),
	}
	if s.Flags&flagPersistent != 0 {
		v.Persistence = time.Duration(s.Timeout) * time.Second
	}
	return key, v
}

// The forwarding methods' numbers, linux/ip_vs.h.
var methods = map[netstate.Method]uint32{
	netstate.DR:  ipvs.ConnFwdDirectRoute,
	netstate.TUN: ipvs.ConnFwdTunnel,
	netstate.NAT: ipvs.ConnFwdMasq,
}

func toDestination(k netstate.DestinationKey, v netstate.Destination) (*ipvs.Destination, error) {
	if k.Service.Key.Addr.IsValid() && k.Addr.Is4() != k.Service.Key.Addr.Is4() {
		return nil, fmt.Errorf("%w: a destination of another address family than its service", ErrUnsupported)
	}
	if weight := max(v.Weight, v.LastWeight); weight > maxWeight {
		return nil, fmt.Errorf("%w: weight %d is above %d", ErrUnsupported, weight, maxWeight)
	}
	return &ipvs.Destination{
		Address:         net.IP(k.Addr.AsSlice()),
		Port:            k.Port,
		Weight:          int(v.Weight),
		ConnectionFlags: methods[v.Method],
		AddressFamily:   toService(k.Service, netstate.Service{}).AddressFamily,
		UpperThreshold:  v.Upper,
		LowerThreshold:  v.Lower,
	}, nil
}

func fromDestination(service netstate.ServiceKey, d *ipvs.Destination) (netstate.DestinationKey, netstate.Destination) {
	v := netstate.Destination{
		Weight: uint32(d.Weight),
		Upper:  d.UpperThreshold,
		Lower:  d.LowerThreshold,
	}
	// A method that we never set stays zero, which differs from any wanted one.
	for method, number := range methods {
		if d.ConnectionFlags&ipvs.ConnFwdMask == number {
			v.Method = method
		}
	}
	return netstate.DestinationKey{Service: service, Addr: fromIP(d.Address), Port: d.Port}, v
}

func fromIP(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr
}

// listServices returns the services whose VIP is one of keys. It reads the table
// twice and joins the answers: IPVS's dumps can be short without saying so.
func (c *Client) listServices(ctx context.Context, wanted func(netstate.Key) bool) (map[netstate.ServiceKey]netstate.Service, error) {
	found := map[netstate.ServiceKey]netstate.Service{}
	for range 2 {
		services, err := exchange(ctx, c.ipvs, func(h ipvsHandle) ([]*ipvs.Service, error) { return h.GetServices() })
		if err != nil {
			return nil, fmt.Errorf("listing services: %w", err)
		}
		for _, s := range services {
			k, v := fromService(s)
			if marked, owned := c.marks.service(k.Key.Mark); owned {
				k = marked
			}
			if wanted(k.Key) {
				found[k] = v
			}
		}
	}
	return found, nil
}

// deleteMarked deletes what is left of marked services: those that a process made
// and did not live to tell the guard of.
func (c *Client) deleteMarked(ctx context.Context) error {
	err := c.ipvs.do(ctx, func(h ipvsHandle) error {
		services, err := h.GetServices()
		if err != nil {
			return err
		}
		for _, s := range services {
			if !isOurs(s.FWMark) {
				continue
			}
			if err := h.DelService(s); err != nil && !isErrno(err, unix.ESRCH) {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrNoIPVS) {
		return fmt.Errorf("deleting marked services: %w", err)
	}
	return nil
}

// readService reads one service; false if it is not there.
func (c *Client) readService(ctx context.Context, k netstate.ServiceKey) (netstate.Service, bool, error) {
	ask := c.toService(k, netstate.Service{})
	s, err := exchange(ctx, c.ipvs, func(h ipvsHandle) (*ipvs.Service, error) { return h.GetService(ask) })
	if isErrno(err, unix.ESRCH) {
		return netstate.Service{}, false, nil
	}
	if err != nil {
		return netstate.Service{}, false, fmt.Errorf("reading %s: %w", k, err)
	}
	_, v := fromService(s)
	return v, true, nil
}

// destinationOf is a destination as the kernel lists it.
type destinationOf struct {
	value       netstate.Destination
	connections netstate.Connections
}

// readDestinations reads the destinations of one service, and the order in which
// they were added, nil if that cannot be told: the kernel puts a new one in front
// (__ip_vs_update_dest of ip_vs_ctl.c). If one of
// known is missing the kernel is asked once more: one dump is no proof that it is
// gone.
func (c *Client) readDestinations(
	ctx context.Context, k netstate.ServiceKey, known map[netstate.DestinationKey]netstate.Destination,
) (map[netstate.DestinationKey]destinationOf, []netstate.DestinationKey, error) {
	ask := c.toService(k, netstate.Service{})
	found := map[netstate.DestinationKey]destinationOf{}
	var order []netstate.DestinationKey
	for range 2 {
		list, err := exchange(ctx, c.ipvs, func(h ipvsHandle) ([]*ipvs.Destination, error) { return h.GetDestinations(ask) })
		if err != nil {
			return nil, nil, fmt.Errorf("listing the destinations of %s: %w", k, err)
		}
		order = order[:0]
		for _, d := range slices.Backward(list) {
			key, v := fromDestination(k, d)
			order = append(order, key)
			found[key] = destinationOf{v, netstate.Connections{
				Active: uint32(d.ActiveConnections), Inactive: uint32(d.InactiveConnections),
			}}
		}
		complete := true
		for key := range known {
			_, ok := found[key]
			complete = complete && (ok || key.Service != k)
		}
		if complete {
			break
		}
	}
	if len(order) != len(found) {
		order = nil // no dump had them all
	}
	return found, order, nil
}

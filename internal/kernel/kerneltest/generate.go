package kerneltest

import (
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// StateGen makes states that a plan could want and every kernel can hold.
func StateGen() *rapid.Generator[netstate.State] {
	vips := rapid.SampledFrom([]netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
	})
	return rapid.Custom(func(t *rapid.T) netstate.State {
		s := netstate.New()
		for _, vip := range rapid.SliceOfNDistinct(vips, 0, 3, rapid.ID).Draw(t, "VIPs") {
			s.Guard[netstate.GuardKey{VIP: vip}] = netstate.Present{}
			s.Addresses[netstate.AddressKey{Link: netstate.DummyLink, Addr: vip}] = addressOf(t, vip)
			if rapid.Bool().Draw(t, "the kernel answers") {
				s.Addresses[netstate.AddressKey{Link: ContractNode.Interface, Addr: vip}] = netstate.Address{}
			}
			for range rapid.IntRange(0, 3).Draw(t, "services") {
				addService(t, s, vip)
			}
		}
		return s
	})
}

func addressOf(t *rapid.T, vip netip.Addr) netstate.Address {
	if vip.Is6() {
		return netstate.Address{}
	}
	return netstate.Address{Source: rapid.SampledFrom([]netip.Addr{
		{}, netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3"),
	}).Draw(t, "source")}
}

func addService(t *rapid.T, s netstate.State, vip netip.Addr) {
	k := netstate.ServiceKey{
		Key:      netstate.Key{Addr: vip},
		Protocol: rapid.SampledFrom([]netstate.Protocol{netstate.TCP, netstate.UDP, netstate.SCTP}).Draw(t, "protocol"),
		Port:     uint16(rapid.IntRange(1, 2).Draw(t, "port")),
		Marked:   rapid.Bool().Draw(t, "marked"),
	}
	v := netstate.Service{
		Scheduler:         rapid.SampledFrom([]string{"rr", "wrr", "wlc", "sh", "mh"}).Draw(t, "scheduler"),
		PersistencePrefix: uint8(vip.BitLen()),
		OnePacket:         k.Protocol == netstate.UDP && rapid.Bool().Draw(t, "one packet"),
		Persistence:       time.Duration(rapid.SampledFrom([]int{0, 1, 300}).Draw(t, "persistence")) * time.Second,
	}
	if v.Scheduler == "sh" || v.Scheduler == "mh" {
		v.Flags = rapid.SampledFrom([]netstate.SchedulerFlags{0, netstate.Port, netstate.Fallback}).Draw(t, "flags")
	}
	if v.Persistence > 0 {
		v.PersistencePrefix = uint8(rapid.IntRange(1, vip.BitLen()).Draw(t, "prefix"))
	}
	s.Services[k] = v
	s.Guard[netstate.GuardKey{VIP: vip, Protocol: k.Protocol, Port: k.Port}] = netstate.Present{}
	if k.Marked {
		s.Guard[netstate.GuardKey{VIP: vip, Protocol: k.Protocol, Port: k.Port, Marked: true}] = netstate.Present{}
	}
	for range rapid.IntRange(0, 3).Draw(t, "destinations") {
		addDestination(t, s, k)
	}
}

func addDestination(t *rapid.T, s netstate.State, service netstate.ServiceKey) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8"), netip.MustParseAddr("10.0.0.9")}
	if service.Key.Addr.Is6() {
		addrs = []netip.Addr{netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8::8")}
	}
	lower := rapid.Uint32Range(0, 2).Draw(t, "lower")
	k := netstate.DestinationKey{Service: service, Addr: rapid.SampledFrom(addrs).Draw(t, "server"), Port: service.Port}
	s.Destinations[k] = netstate.Destination{
		Method: rapid.SampledFrom([]netstate.Method{netstate.DR, netstate.TUN, netstate.NAT}).Draw(t, "method"),
		Weight: rapid.SampledFrom([]uint32{0, 1, 65535}).Draw(t, "weight"),
		Upper:  lower * 2,
		Lower:  lower,
	}
}

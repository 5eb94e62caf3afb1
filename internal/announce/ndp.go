package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ndpType is an ICMPv6 type of neighbour discovery.
type ndpType uint8

const (
	ndpSolicitation  ndpType = 135
	ndpAdvertisement ndpType = 136
)

// ndpFlags are the flags of a neighbour advertisement, as the first byte after
// the checksum has them.
type ndpFlags uint8

const (
	ndpRouter    ndpFlags = 0x80
	ndpSolicited ndpFlags = 0x40
	ndpOverride  ndpFlags = 0x20
)

// ndpPacket is a neighbour solicitation or advertisement (RFC 4861, 4.3 and
// 4.4) with the addresses of its frame and IPv6 header.
type ndpPacket struct {
	destination, source MAC
	from, to            netip.Addr
	kind                ndpType
	// flags are of advertisements only.
	flags  ndpFlags
	target netip.Addr
	// linkLayer is the sender's address in a solicitation (option 1), the
	// target's in an advertisement (option 2); zero is no such option.
	linkLayer MAC
}

const (
	ip6Len         = 40
	ndpLen         = 24
	ndpOptionLen   = 8
	protocolICMPv6 = 58
	// ndpHopLimit shows that no router has passed the packet on.
	ndpHopLimit = 255

	optionSourceLinkLayer = 1
	optionTargetLinkLayer = 2
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	noAddress6 = netip.IPv6Unspecified()

	errHopLimit = errors.New("hop limit is not 255")
	errChecksum = errors.New("wrong checksum")
	errInvalid  = errors.New("breaks a rule of RFC 4861, 7.1")
)

// solicitedNode returns the multicast group in which an address is asked for
// (RFC 4291, 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	low := addr.As16()
	copy(group[13:], low[13:])
	return netip.AddrFrom16(group)
}

// groupMAC returns the Ethernet address of an IPv6 multicast group (RFC 2464,
// 7).
func groupMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// decodeNDP reads an Ethernet frame and checks it as RFC 4861, 7.1, demands:
// what it returns was sent on this link, whole, and contradicts itself nowhere.
// Packets with extension headers are not for it: hosts send none here.
func decodeNDP(frame []byte) (ndpPacket, error) {
	destination, source, b, err := cutEthernet(frame, etherTypeIP6)
	if err != nil {
		return ndpPacket{}, err
	}
	p := ndpPacket{destination: destination, source: source}
	icmp, err := p.cutIP(b)
	if err != nil {
		return ndpPacket{}, err
	}
	if err := p.readICMP(icmp); err != nil {
		return ndpPacket{}, err
	}
	if err := p.validate(); err != nil {
		return ndpPacket{}, err
	}
	return p, nil
}

// cutIP reads the IPv6 header and returns its payload.
func (p *ndpPacket) cutIP(b []byte) ([]byte, error) {
	if len(b) < ip6Len {
		return nil, errShort
	}
	if b[0]>>4 != 6 || b[6] != protocolICMPv6 {
		return nil, errType
	}
	if b[7] != ndpHopLimit {
		return nil, errHopLimit
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if len(b)-ip6Len < length {
		return nil, errShort
	}
	p.from = netip.AddrFrom16([16]byte(b[8:24]))
	p.to = netip.AddrFrom16([16]byte(b[24:40]))
	return b[ip6Len : ip6Len+length], nil
}

// readICMP reads the ICMPv6 message.
func (p *ndpPacket) readICMP(b []byte) error {
	if len(b) < ndpLen {
		return errShort
	}
	if checksum(p.from, p.to, b) != 0 {
		return errChecksum
	}
	p.kind = ndpType(b[0])
	if p.kind != ndpSolicitation && p.kind != ndpAdvertisement {
		return errType
	}
	if b[1] != 0 {
		return fmt.Errorf("ICMPv6 code %d: %w", b[1], errInvalid)
	}
	if p.kind == ndpAdvertisement {
		p.flags = ndpFlags(b[4]) & (ndpRouter | ndpSolicited | ndpOverride)
	}
	p.target = netip.AddrFrom16([16]byte(b[8:24]))
	return p.readOptions(b[ndpLen:])
}

// readOptions takes the link-layer address from the options. Unknown ones are
// passed over, and so is an address that is not Ethernet's.
func (p *ndpPacket) readOptions(b []byte) error {
	for len(b) > 0 {
		if len(b) < 2 {
			return errShort
		}
		length := int(b[1]) * 8
		if length == 0 {
			return fmt.Errorf("option of length 0: %w", errInvalid)
		}
		if len(b) < length {
			return errShort
		}
		if b[0] == p.option() && length == ndpOptionLen {
			p.linkLayer = MAC(b[2:8])
		}
		b = b[length:]
	}
	return nil
}

// option returns the type of the option that holds linkLayer.
func (p *ndpPacket) option() uint8 {
	if p.kind == ndpAdvertisement {
		return optionTargetLinkLayer
	}
	return optionSourceLinkLayer
}

// validate checks what the parts of a packet say about each other.
func (p *ndpPacket) validate() error {
	switch {
	case p.target.IsMulticast():
		return fmt.Errorf("target is a group: %w", errInvalid)
	case p.kind == ndpAdvertisement && p.to.IsMulticast() && p.flags&ndpSolicited != 0:
		return fmt.Errorf("solicited, but to a group: %w", errInvalid)
	case p.kind == ndpSolicitation && p.from == noAddress6 && (p.to != solicitedNode(p.target) || !p.linkLayer.IsZero()):
		return fmt.Errorf("not how an address is probed: %w", errInvalid)
	case p.from.IsMulticast():
		return fmt.Errorf("sender is a group: %w", errInvalid)
	default:
		return nil
	}
}

// encode returns the packet as an Ethernet frame. All its addresses must be
// IPv6.
func (p ndpPacket) encode() []byte {
	length := ndpLen
	if !p.linkLayer.IsZero() {
		length += ndpOptionLen
	}
	frame := make([]byte, 0, ethernetLen+ip6Len+length)
	frame = appendEthernet(frame, p.destination, p.source, etherTypeIP6)
	frame = append(frame, 6<<4, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(length))
	frame = append(frame, protocolICMPv6, ndpHopLimit)
	frame = append(frame, p.from.AsSlice()...)
	frame = append(frame, p.to.AsSlice()...)

	icmp := len(frame)
	frame = append(frame, byte(p.kind), 0, 0, 0, byte(p.flags), 0, 0, 0)
	frame = append(frame, p.target.AsSlice()...)
	if !p.linkLayer.IsZero() {
		frame = append(frame, p.option(), 1)
		frame = append(frame, p.linkLayer[:]...)
	}
	binary.BigEndian.PutUint16(frame[icmp+2:], checksum(p.from, p.to, frame[icmp:]))
	return frame
}

// checksum returns the ICMPv6 checksum of a message and its pseudo-header (RFC
// 8200, 8.1): what belongs into the message's field if that is zero, and 0 if
// the field is right.
func checksum(from, to netip.Addr, message []byte) uint16 {
	var sum uint32
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	source, destination := from.As16(), to.As16()
	add(source[:])
	add(destination[:])
	add(message)
	sum += uint32(len(message)) + protocolICMPv6
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

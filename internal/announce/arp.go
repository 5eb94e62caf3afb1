package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// arpOp is what an ARP packet is.
type arpOp uint16

const (
	arpRequest arpOp = 1
	arpReply   arpOp = 2
)

// arpPacket is an ARP packet for IPv4 over Ethernet (RFC 826), with the
// Ethernet addresses of its frame.
type arpPacket struct {
	destination, source  MAC
	op                   arpOp
	senderMAC, targetMAC MAC
	senderIP, targetIP   netip.Addr
}

// arpLen is the length of an ARP packet for IPv4 over Ethernet. Frames are at
// least 46 bytes of payload on the wire: what follows is padding.
const arpLen = 28

// arpHead is hardware type Ethernet, protocol IPv4, and the lengths of their
// addresses.
const arpHead = 0x0001_0800_0604

var errNotIPv4Ethernet = errors.New("not IPv4 over Ethernet")

// decodeARP reads an Ethernet frame. It takes any padding, and nothing but
// requests and replies.
func decodeARP(frame []byte) (arpPacket, error) {
	destination, source, b, err := cutEthernet(frame, etherTypeARP)
	if err != nil {
		return arpPacket{}, err
	}
	if len(b) < arpLen {
		return arpPacket{}, errShort
	}
	if binary.BigEndian.Uint64(b)>>16 != arpHead {
		return arpPacket{}, errNotIPv4Ethernet
	}
	op := arpOp(binary.BigEndian.Uint16(b[6:]))
	if op != arpRequest && op != arpReply {
		return arpPacket{}, fmt.Errorf("ARP operation %d", op)
	}
	return arpPacket{
		destination: destination,
		source:      source,
		op:          op,
		senderMAC:   MAC(b[8:14]),
		senderIP:    netip.AddrFrom4([4]byte(b[14:18])),
		targetMAC:   MAC(b[18:24]),
		targetIP:    netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}

// encode returns the packet as an Ethernet frame. Both IPs must be IPv4.
func (p arpPacket) encode() []byte {
	frame := make([]byte, 0, ethernetLen+arpLen)
	frame = appendEthernet(frame, p.destination, p.source, etherTypeARP)
	frame = binary.BigEndian.AppendUint64(frame, arpHead<<16|uint64(p.op))
	frame = append(frame, p.senderMAC[:]...)
	frame = append(frame, p.senderIP.AsSlice()...)
	frame = append(frame, p.targetMAC[:]...)
	return append(frame, p.targetIP.AsSlice()...)
}

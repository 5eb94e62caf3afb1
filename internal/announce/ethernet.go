package announce

import (
	"encoding/binary"
	"errors"
)

// The layout of an Ethernet II header, without a VLAN tag: on a VLAN's
// interface the kernel has taken it off.
const (
	ethernetLen  = 14
	etherTypeARP = 0x0806
	etherTypeIP6 = 0x86dd
)

var (
	errShort = errors.New("frame is too short")
	errType  = errors.New("not of this protocol")
)

// appendEthernet appends an Ethernet header to frame.
func appendEthernet(frame []byte, destination, source MAC, etherType uint16) []byte {
	frame = append(frame, destination[:]...)
	frame = append(frame, source[:]...)
	return binary.BigEndian.AppendUint16(frame, etherType)
}

// cutEthernet takes the header off a frame of the wanted type.
func cutEthernet(frame []byte, etherType uint16) (destination, source MAC, payload []byte, err error) {
	if len(frame) < ethernetLen {
		return MAC{}, MAC{}, nil, errShort
	}
	if binary.BigEndian.Uint16(frame[12:]) != etherType {
		return MAC{}, MAC{}, nil, errType
	}
	return MAC(frame[:6]), MAC(frame[6:12]), frame[ethernetLen:], nil
}

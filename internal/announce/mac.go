package announce

import (
	"bytes"
	"fmt"
	"net"
)

// MAC is an Ethernet address. It is comparable; its zero value is no address.
type MAC [6]byte

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseMAC reads an Ethernet address in any form that net.ParseMAC knows.
// Longer addresses, such as InfiniBand's, are an error.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parsing MAC address: %w", err)
	}
	mac, ok := MACFrom(hw)
	if !ok {
		return MAC{}, fmt.Errorf("parsing MAC address: %s is not an Ethernet address", s)
	}
	return mac, nil
}

// MACFrom returns the Ethernet address in hw, and false if hw has another
// length than six bytes.
func MACFrom(hw net.HardwareAddr) (MAC, bool) {
	if len(hw) != len(MAC{}) {
		return MAC{}, false
	}
	return MAC(hw), true
}

// String returns the address as lower-case pairs with colons between them.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// compare orders addresses.
func (m MAC) compare(other MAC) int { return bytes.Compare(m[:], other[:]) }

// IsZero says whether m is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// isStation says whether m can be one station's address: neither none nor a
// group's.
func (m MAC) isStation() bool { return !m.IsZero() && m[0]&1 == 0 }

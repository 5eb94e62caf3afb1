package kernel

import (
	"net/netip"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// FirstMark is firstMark for tests from outside.
func FirstMark(vip netip.Addr, protocol netstate.Protocol, port uint16) uint32 {
	return firstMark(netstate.ServiceKey{Key: netstate.Key{Addr: vip}, Protocol: protocol, Port: port, Marked: true})
}

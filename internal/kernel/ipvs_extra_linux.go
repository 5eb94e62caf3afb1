package kernel

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
)

// Commands and attributes of IPVS's netlink interface that moby/ipvs has not,
// linux/ip_vs.h.
const (
	cmdGetInfo           = 15
	infoConnectionTable  = 2
	genlVersion          = 1
	genlHeaderLength     = 4
	attributeTypeMask    = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	connectionTableBytes = 4
)

// connectionTableSize asks for the number of buckets of the connection table
// (IPVS_CMD_GET_INFO).
func (c *Client) connectionTableSize(ctx context.Context) (int, error) {
	replies, err := c.genericIPVS(ctx, cmdGetInfo, 0, nil)
	if err != nil {
		return 0, fmt.Errorf("asking for IPVS's connection table: %w", err)
	}
	for _, reply := range replies {
		if size, ok := tableSize(reply); ok {
			return size, nil
		}
	}
	return 0, fmt.Errorf("asking for IPVS's connection table: %w: an answer without it", ErrUnsupported)
}

// tableSize finds the size in an answer to IPVS_CMD_GET_INFO.
func tableSize(reply []byte) (int, bool) {
	if len(reply) < genlHeaderLength {
		return 0, false
	}
	attributes, err := nl.ParseRouteAttr(reply[genlHeaderLength:])
	if err != nil {
		return 0, false
	}
	for _, a := range attributes {
		if a.Attr.Type&attributeTypeMask == infoConnectionTable && len(a.Value) >= connectionTableBytes {
			return int(binary.NativeEndian.Uint32(a.Value)), true
		}
	}
	return 0, false
}

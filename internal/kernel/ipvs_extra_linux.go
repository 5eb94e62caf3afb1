package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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
func (c *Client) connectionTableSize() (int, error) {
	family, err := c.ipvs.look()
	if err != nil {
		return 0, err
	}
	socket, err := nl.GetNetlinkSocketAt(c.netns.handle, -1, unix.NETLINK_GENERIC)
	if err != nil {
		return 0, fmt.Errorf("opening generic netlink: %w", err)
	}
	defer socket.Close()
	limit := unix.NsecToTimeval(c.opts.Timeout.Nanoseconds())
	if err := socket.SetReceiveTimeout(&limit); err != nil {
		return 0, fmt.Errorf("limiting generic netlink's time: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family), 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: socket}}
	req.AddData(&nl.Genlmsg{Command: cmdGetInfo, Version: genlVersion})
	replies, err := req.Execute(unix.NETLINK_GENERIC, 0)
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

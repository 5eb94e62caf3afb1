package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// SyncDaemon is what one of IPVS's synchronisation daemons works with. They are
// threads of the kernel, at most one of each role in a network namespace, and
// outlive whoever started them.
type SyncDaemon struct {
	// Interface is where datagrams are sent to the others and taken from them.
	Interface string `json:"interface"`
	// ID tells this set of directors from others on the segment. A backup of ID 0
	// takes what any set sends.
	ID uint8 `json:"id"`
	// Group is an IPv4 multicast address, Port the UDP port there; with the zero
	// Addr or 0 they are DefaultSyncGroup and DefaultSyncPort.
	Group netip.Addr `json:"group"`
	Port  uint16     `json:"port"`
	// TTL of the datagrams; 0 is 1: they do not leave the segment.
	TTL uint8 `json:"ttl,omitempty"`
	// MaxLen is the length of a datagram's payload in bytes; 0 is the kernel's
	// choice, which fits into a frame.
	MaxLen uint16 `json:"maxLen,omitempty"`
}

// DefaultSyncPort is IP_VS_SYNC_PORT of net/netfilter/ipvs/ip_vs_sync.c.
const DefaultSyncPort = 8848

// DefaultSyncGroup returns IP_VS_SYNC_GROUP of the same file.
func DefaultSyncGroup() netip.Addr { return netip.AddrFrom4([4]byte{224, 0, 0, 81}) }

// syncRole is IPVS_DAEMON_ATTR_STATE: IP_VS_STATE_MASTER or IP_VS_STATE_BACKUP of
// linux/ip_vs.h.
type syncRole uint32

const (
	syncMaster syncRole = 1 // sends
	syncBackup syncRole = 2 // receives
)

func (r syncRole) String() string {
	if r == syncMaster {
		return "master"
	}
	return "backup"
}

// The synchronisation daemons in IPVS's netlink interface, linux/ip_vs.h.
const (
	cmdNewDaemon = 9
	cmdDelDaemon = 10
	cmdGetDaemon = 11

	attrDaemon = 3 // IPVS_CMD_ATTR_DAEMON

	daemonState     = 1
	daemonInterface = 2
	daemonID        = 3
	daemonMaxLen    = 4
	daemonGroup     = 5
	daemonPort      = 7 // in the host's byte order
	daemonTTL       = 8
)

// filled returns the settings with what the kernel takes where there is nothing.
func (d SyncDaemon) filled() SyncDaemon {
	if !d.Group.IsValid() {
		d.Group = DefaultSyncGroup()
	}
	if d.Port == 0 {
		d.Port = DefaultSyncPort
	}
	if d.TTL == 0 {
		d.TTL = 1
	}
	return d
}

// matches says whether a daemon that runs works with these settings.
func (d SyncDaemon) matches(running SyncDaemon) bool {
	d = d.filled()
	if d.MaxLen == 0 {
		d.MaxLen = running.MaxLen
	}
	return d == running
}

// String returns the settings as a message needs them.
func (d SyncDaemon) String() string {
	return fmt.Sprintf("syncID %d to %s port %d on %s", d.ID, d.Group, d.Port, d.Interface)
}

// syncDaemons reads which daemons run (IPVS_CMD_GET_DAEMON).
func (c *Client) syncDaemons(ctx context.Context) (map[syncRole]SyncDaemon, error) {
	replies, err := c.genericIPVS(ctx, cmdGetDaemon, unix.NLM_F_DUMP, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the synchronisation daemons: %w", err)
	}
	running := map[syncRole]SyncDaemon{}
	for _, reply := range replies {
		role, daemon, err := parseDaemon(reply)
		if err != nil {
			return nil, fmt.Errorf("reading the synchronisation daemons: %w", err)
		}
		running[role] = daemon
	}
	return running, nil
}

// startDaemon starts a daemon (IPVS_CMD_NEW_DAEMON).
func (c *Client) startDaemon(ctx context.Context, role syncRole, d SyncDaemon) error {
	_, err := c.genericIPVS(ctx, cmdNewDaemon, unix.NLM_F_ACK, d.attributes(role))
	switch {
	case isErrno(err, unix.EEXIST):
		return fmt.Errorf("starting the synchronisation %s: %w", role, ErrSyncDaemonTaken)
	case isErrno(err, unix.EINVAL):
		return fmt.Errorf("starting the synchronisation %s: %w", role, ErrSyncRefused)
	case err != nil:
		return fmt.Errorf("starting the synchronisation %s (%s): %w", role, d, err)
	}
	return nil
}

// stopDaemon stops a daemon (IPVS_CMD_DEL_DAEMON); one that does not run is done.
func (c *Client) stopDaemon(ctx context.Context, role syncRole) error {
	state := nl.NewRtAttr(attrDaemon|unix.NLA_F_NESTED, nil)
	state.AddRtAttr(daemonState, nl.Uint32Attr(uint32(role)))
	_, err := c.genericIPVS(ctx, cmdDelDaemon, unix.NLM_F_ACK, state)
	if err != nil && !isErrno(err, unix.ESRCH) {
		return fmt.Errorf("stopping the synchronisation %s: %w", role, err)
	}
	return nil
}

// attributes are the settings in the kernel's form.
func (d SyncDaemon) attributes(role syncRole) *nl.RtAttr {
	d = d.filled()
	a := nl.NewRtAttr(attrDaemon|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(daemonState, nl.Uint32Attr(uint32(role)))
	a.AddRtAttr(daemonInterface, nl.ZeroTerminated(d.Interface))
	a.AddRtAttr(daemonID, nl.Uint32Attr(uint32(d.ID)))
	a.AddRtAttr(daemonGroup, d.Group.AsSlice())
	a.AddRtAttr(daemonPort, nl.Uint16Attr(d.Port))
	a.AddRtAttr(daemonTTL, nl.Uint8Attr(d.TTL))
	if d.MaxLen != 0 {
		a.AddRtAttr(daemonMaxLen, nl.Uint16Attr(d.MaxLen))
	}
	return a
}

// parseDaemon reads one daemon of an answer to IPVS_CMD_GET_DAEMON. One that
// multicasts by IPv6 has the zero Group.
func parseDaemon(reply []byte) (syncRole, SyncDaemon, error) {
	var role syncRole
	var daemon SyncDaemon
	if len(reply) < genlHeaderLength {
		return 0, SyncDaemon{}, fmt.Errorf("%w: an answer of %d bytes", ErrUnsupported, len(reply))
	}
	// Not netlink's own ParseRouteAttr: it reads beyond an answer that is cut off.
	outer, err := mdnetlink.NewAttributeDecoder(reply[genlHeaderLength:])
	if err != nil {
		return 0, SyncDaemon{}, err
	}
	for outer.Next() {
		if outer.Type() != attrDaemon {
			continue
		}
		outer.Nested(func(inner *mdnetlink.AttributeDecoder) error {
			for inner.Next() {
				if value := inner.Bytes(); inner.Type() == daemonState && len(value) >= 4 {
					role = syncRole(binary.NativeEndian.Uint32(value))
				} else {
					daemon.take(inner.Type(), value)
				}
			}
			return inner.Err()
		})
	}
	if err := outer.Err(); err != nil {
		return 0, SyncDaemon{}, err
	}
	if role != syncMaster && role != syncBackup {
		return 0, SyncDaemon{}, fmt.Errorf("%w: an answer of state %d", ErrUnsupported, uint32(role))
	}
	return role, daemon, nil
}

// take reads one attribute; one that is too short is passed over.
func (d *SyncDaemon) take(kind uint16, value []byte) {
	switch {
	case kind == daemonInterface:
		name, _, _ := bytes.Cut(value, []byte{0})
		d.Interface = string(name)
	case kind == daemonID && len(value) >= 4:
		d.ID = uint8(binary.NativeEndian.Uint32(value))
	case kind == daemonMaxLen && len(value) >= 2:
		d.MaxLen = binary.NativeEndian.Uint16(value)
	case kind == daemonGroup && len(value) >= 4:
		d.Group = netip.AddrFrom4([4]byte(value[:4]))
	case kind == daemonPort && len(value) >= 2:
		d.Port = binary.NativeEndian.Uint16(value)
	case kind == daemonTTL && len(value) >= 1:
		d.TTL = value[0]
	}
}

// genericIPVS is one exchange of IPVS's netlink interface that moby/ipvs has not,
// within the time that the client and ctx allow.
func (c *Client) genericIPVS(ctx context.Context, command uint8, flags int, payload *nl.RtAttr) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	family, err := c.ipvs.look()
	if err != nil {
		return nil, err
	}
	socket, err := nl.GetNetlinkSocketAt(c.netns.handle, -1, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("opening generic netlink: %w", err)
	}
	defer socket.Close()
	patience := c.opts.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		// A limit of 0 would be none.
		patience = max(min(patience, time.Until(deadline)), time.Millisecond)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := socket.SetReceiveTimeout(&limit); err != nil {
		return nil, fmt.Errorf("limiting generic netlink's time: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: socket}}
	req.AddData(&nl.Genlmsg{Command: command, Version: genlVersion})
	if payload != nil {
		req.AddData(payload)
	}
	replies, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if isErrno(err, unix.EAGAIN) {
		return nil, ErrLostReply
	}
	return replies, err
}

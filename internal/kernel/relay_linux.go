package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Relay says where packets of TCP connections go that are for a VIP and that
// this node's IPVS does not know: to the director that had the VIP before, whose
// kernel may know them. So a connection that was open when a VIP moved lives on
// although no state was shared. The zero Relay hands nothing on.
type Relay struct {
	// Interface is the announcement interface.
	Interface string
	// To are that director's addresses there, at most one of each family.
	To []netip.Addr
	// Directors are the MAC addresses of all other directors of the pool. What one
	// of them hands on is not handed on again: it is answered here, with a reset.
	Directors []net.HardwareAddr
}

// afterIPVS is the priority of the chain that relays: IPVS works at 98 and 99
// (NF_IP_PRI_NAT_SRC - 2 and - 1 of ip_vs_core.c), and lets through what it does
// not know.
const afterIPVS = nftables.ChainPriority(101)

// Of the TCP header: the offset of the flags, and SYN (RFC 9293).
const (
	tcpFlags = 13
	tcpSYN   = 0x02
)

// relayTables are the guard's tables of the families ip and ip6: only there can
// a packet be sent to another host (nft_dup_ipv4, nft_dup_ipv6).
func relayTables() map[string]*nftables.Table {
	return map[string]*nftables.Table{
		"4": {Name: guardTable, Family: nftables.TableFamilyIPv4},
		"6": {Name: guardTable, Family: nftables.TableFamilyIPv6},
	}
}

// relayVIPs is the set of VIPs in the relay's table of a family.
func relayVIPs(f family) *nftables.Set {
	return entrySet(relayTables()[f.name], "vips"+f.name, f.relaySet)
}

// relayChains are the relay's chain of each family. Without a relay that has been
// decided on, the rules that are there stay: an earlier process may have made
// them.
func relayChains(relay *Relay, link netlink.Link) []guardChain {
	var chains []guardChain
	for _, f := range []family{ipv4, ipv6} {
		accept := nftables.ChainPolicyAccept
		chain := guardChain{kept: relay == nil, chain: &nftables.Chain{
			Table: relayTables()[f.name], Name: "input", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(afterIPVS), Policy: &accept,
		}}
		if relay != nil {
			chain.rules = relay.rules(f, link)
		}
		chains = append(chains, chain)
	}
	return chains
}

// rules hand on what is no beginning of a connection and comes from no director.
func (r Relay) rules(f family, link netlink.Link) []guardRule {
	i := slices.IndexFunc(r.To, func(to netip.Addr) bool { return to.Is4() == (f.nfproto == unix.NFPROTO_IPV4) })
	if i < 0 || link == nil {
		return nil
	}
	// IPVS lets through, too, what it has chosen this node for, and nothing tells that
	// from what it does not know. So no packet of a marked service is handed on whose
	// port a process here listens on.
	rules := []guardRule{{"marked services of this node", concat(markIsOurs(), hasSocket(), accept())}}
	for _, mac := range r.Directors {
		rules = append(rules, guardRule{"relayed by " + mac.String(), concat(
			interfaceIs(r.Interface), senderIs(mac), accept(),
		)})
	}
	return append(rules, guardRule{fmt.Sprintf("relay to %s on %s (%d)", r.To[i], r.Interface, link.Attrs().Index), concat(
		interfaceIs(r.Interface), f.isVIP(f.dest), isTCPWithoutSYN(), counter(),
		sendTo(r.To[i], link.Attrs().Index), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
	)})
}

// hasSocket says that a socket here takes the packet, be it one that listens: the
// expression breaks off without one (nft_socket.c).
func hasSocket() []expr.Any {
	return []expr.Any{&expr.Socket{Key: expr.SocketKeyTransparent, Register: unix.NFT_REG_1}}
}

// senderIs compares the source address of the Ethernet header.
func senderIs(mac net.HardwareAddr) []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6, DestRegister: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: mac},
	}
}

func isTCPWithoutSYN() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1, DestRegister: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 1, Mask: []byte{tcpSYN}, Xor: []byte{0},
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0}},
	}
}

// sendTo sends a copy out of an interface to the MAC address of a host there; the
// packet itself is as it was.
func sendTo(to netip.Addr, link int) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: to.AsSlice()},
		&expr.Immediate{Register: unix.NFT_REG_2, Data: binaryutil.NativeEndian.PutUint32(uint32(link))},
		&expr.Dup{RegAddr: unix.NFT_REG_1, RegDev: unix.NFT_REG_2, IsRegDevSet: true},
	}
}

// SetRelay hands on as relay says from now on. It needs the guard: without one
// (see Prepare) it does nothing, nor later. A kernel that cannot do it is
// ErrNoGuard, and then nothing has changed.
func (c *Client) SetRelay(ctx context.Context, relay Relay) error {
	c.mu.Lock()
	node, before := c.node, c.relay
	if node == nil || !node.Guard {
		c.mu.Unlock()
		return nil
	}
	c.relay = &relay
	c.mu.Unlock()
	err := c.prepareGuard(ctx, *node)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	c.relay = before
	c.mu.Unlock()
	return fmt.Errorf("handing on unknown connections: %w", err)
}

// Probe has the kernel look whether a neighbour is still there, and says what it
// knew before: false if it had asked several times without an answer, which takes
// some three seconds (retrans_time_ms and ucast_solicit of its neighbour table).
// That may have been long ago.
func (c *Client) Probe(ctx context.Context, link string, addr netip.Addr) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	l, err := c.linkByName(link)
	if err != nil {
		return true, err
	}
	known, err := c.neighborEntry(l, addr)
	if err != nil {
		return true, err
	}
	const busy = unix.NUD_PROBE | unix.NUD_INCOMPLETE | unix.NUD_PERMANENT | unix.NUD_NOARP
	if known != nil && known.State&busy != 0 {
		return true, nil
	}
	failed := known != nil && known.State&unix.NUD_FAILED != 0
	ask := netlink.Neigh{LinkIndex: l.Attrs().Index, IP: addr.AsSlice(), Flags: netlink.NTF_USE}
	if known != nil && !failed {
		ask = *known
		ask.State = netlink.NUD_PROBE
	}
	if err := c.route.NeighSet(&ask); err != nil {
		return true, fmt.Errorf("probing %s on %s: %w", addr, link, err)
	}
	return !failed, nil
}

// neighborEntry is the kernel's entry for a neighbour, nil if there is none.
func (c *Client) neighborEntry(link netlink.Link, addr netip.Addr) (*netlink.Neigh, error) {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	neighbors, err := c.route.NeighList(link.Attrs().Index, family)
	if err != nil {
		return nil, fmt.Errorf("listing the neighbours on %s: %w", link.Attrs().Name, err)
	}
	for i := range neighbors {
		known, ok := netip.AddrFromSlice(neighbors[i].IP)
		if ok && known.Unmap() == addr {
			return &neighbors[i], nil
		}
	}
	return nil, nil
}

// relayLink is the link of the relay that was decided on, nil if there is none.
func (c *Client) relayLink(relay *Relay) (netlink.Link, error) {
	if relay == nil || len(relay.To) == 0 {
		return nil, nil
	}
	link, err := c.linkByName(relay.Interface)
	if errors.Is(err, ErrNoLink) {
		return nil, nil
	}
	return link, err
}

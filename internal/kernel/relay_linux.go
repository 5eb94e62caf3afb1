package kernel

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
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
	// To has for each VIP the address there, of the same family, of the director that
	// had it before: several VIPs may come from several directors.
	To map[netip.Addr]netip.Addr
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

// relayMap has the VIPs of a family of which packets are handed on, each with the
// address that they go to.
func relayMap(f family, to map[netip.Addr]netip.Addr) guardSet {
	kind := map[string]nftables.SetDatatype{"4": nftables.TypeIPAddr, "6": nftables.TypeIP6Addr}[f.name]
	m := guardSet{replaced: true, set: &nftables.Set{
		Table: relayTables()[f.name], Name: "relay" + f.name, ID: f.relayMap, IsMap: true,
		KeyType: kind, DataType: kind, KeyByteOrder: binaryutil.BigEndian,
	}}
	for _, vip := range slices.SortedFunc(maps.Keys(to), netip.Addr.Compare) {
		if f.has(vip) && f.has(to[vip]) {
			m.elements = append(m.elements, nftables.SetElement{Key: vip.AsSlice(), Val: to[vip].AsSlice()})
		}
	}
	return m
}

// has says whether an address is of the family.
func (f family) has(addr netip.Addr) bool { return addr.Is4() == (f.nfproto == unix.NFPROTO_IPV4) }

// relayParts are the relay's chain and map of each family. Without a relay that has
// been decided on, what is there stays: an earlier process may have made it.
func relayParts(relay *Relay, link netlink.Link) (chains []guardChain, sets []guardSet) {
	for _, f := range []family{ipv4, ipv6} {
		accept := nftables.ChainPolicyAccept
		chain := guardChain{kept: relay == nil, chain: &nftables.Chain{
			Table: relayTables()[f.name], Name: "input", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(afterIPVS), Policy: &accept,
		}}
		if relay != nil {
			m := relayMap(f, relay.To)
			chain.rules = relay.rules(f, m.elements, link)
			sets = append(sets, m)
		}
		chains = append(chains, chain)
	}
	return chains, sets
}

// rules hand on what is no beginning of a connection and comes from no director, as
// the elements of the relay's map say.
func (r Relay) rules(f family, elements []nftables.SetElement, link netlink.Link) []guardRule {
	if len(elements) == 0 || link == nil {
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
	h := fnv.New64a()
	for _, e := range elements {
		h.Write(slices.Concat(e.Key, e.Val))
	}
	comment := fmt.Sprintf("relay %d VIPs (%x) on %s (%d)", len(elements), h.Sum64(), r.Interface, link.Attrs().Index)
	return append(rules, guardRule{comment, concat(
		interfaceIs(r.Interface), isTCPWithoutSYN(), f.relayed(), counter(),
		sendOn(link.Attrs().Index), []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}},
	)})
}

// hasSocket says that a socket here takes the packet, be it one that listens: the
// expression breaks off without one (nft_socket.c).
func hasSocket() []expr.Any {
	return []expr.Any{&expr.Socket{Key: expr.SocketKeyTransparent, Register: unix.NFT_REG_1}}
}

// relayed looks the destination up in the relay's map; where it goes is in the
// first register then. What is not there does not match.
func (f family) relayed() []expr.Any {
	return []expr.Any{f.address(f.dest), &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, IsDestRegSet: true, SetName: "relay" + f.name,
	}}
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

// sendOn sends a copy out of an interface to the MAC address of the host there
// whose address is in the first register; the packet itself is as it was.
func sendOn(link int) []expr.Any {
	return []expr.Any{
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

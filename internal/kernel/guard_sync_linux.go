package kernel

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// syncSet holds the addresses that synchronisation is let in from. Its identifier
// counts within a transaction.
const (
	syncSet   = "sync"
	syncSetID = 20
)

// syncThreads is how many ports a daemon can take, from its own on: one for each of
// its threads (sync_ports; IPVS_SYNC_PORTS_MAX of net/netfilter/ipvs/ip_vs_sync.c).
const syncThreads = 64

// protectSync adds to the guard who may send connections here. Nothing in a
// datagram says whom it is from but its source, and what it says is entered into
// the table of connections. Without settings that were decided on, the rules that
// are there stay: an earlier process may have made them.
func (g *guard) protectSync(sync *Sync) {
	chain := guardChain{chain: baseChain(g.table, "sync", nftables.ChainHookPrerouting), kept: sync == nil}
	members := guardSet{replaced: sync != nil, set: &nftables.Set{
		Table: g.table, Name: syncSet, ID: syncSetID, KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian,
	}}
	if sync != nil && sync.Interface != "" {
		for _, member := range sync.ipv4Members() {
			members.elements = append(members.elements, nftables.SetElement{Key: member.AsSlice()})
		}
		chain.rules = sync.rules()
	}
	g.sets = append(g.sets, members)
	g.chains = append(g.chains, chain)
}

// ipv4Members are the members that can be: the group is an IPv4 one.
func (s Sync) ipv4Members() []netip.Addr {
	var members []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, member := range s.Members {
		if member.Is4() && !seen[member] {
			seen[member] = true
			members = append(members, member)
		}
	}
	return members
}

// rules let in what members send to the group and its ports, and drop the rest. A
// fragment that is not the first has no port, and is nothing without the first.
func (s Sync) rules() []guardRule {
	to := fmt.Sprintf("to %s port %d on %s", s.Group, s.Port, s.Interface)
	h := fnv.New64a()
	members := s.ipv4Members()
	for _, member := range members {
		h.Write(member.AsSlice())
	}
	return []guardRule{
		{fmt.Sprintf("synchronisation %s, %d members (%x)", to, len(members), h.Sum64()), concat(
			s.isSync(), []expr.Any{ipv4.address(ipv4.source), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: syncSet}},
			counter(), accept(),
		)},
		{"no member's synchronisation " + to, concat(s.isSync(), drop())},
	}
}

// isSync matches a datagram to the group and to a port of the daemon's threads.
func (s Sync) isSync() []expr.Any {
	last := uint16(min(int(s.Port)+syncThreads-1, 65535))
	return concat(ipv4.is(), interfaceIs(s.Interface), []expr.Any{
		ipv4.address(ipv4.dest),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: s.Group.AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, s.Port)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, last)},
	})
}

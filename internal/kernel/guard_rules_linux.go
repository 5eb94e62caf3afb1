package kernel

import (
	"fmt"
	"hash/fnv"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// guardTable is the name of the guard's table, of the family inet.
const guardTable = "lvs-operator"

// guard is what the guard is made of, besides its entries.
type guard struct {
	table  *nftables.Table
	sets   []guardSet
	chains []guardChain
}

type guardSet struct {
	set      *nftables.Set
	elements []nftables.SetElement
	// replaced says that no other elements than these are to be in it.
	replaced bool
}

type guardChain struct {
	chain *nftables.Chain
	rules []guardRule
	// kept says that the rules of a chain that is there are not looked at.
	kept bool
}

// guardRule is a rule; its comment stands for all of it, so a rule that changes
// gets another.
type guardRule struct {
	comment string
	exprs   []expr.Any
}

// newGuard describes the guard for the announcement interface and the others that
// take in what comes from a VIP, with the MAC addresses of the other directors, if
// they are known (markChains), and what relays (relayParts).
//
// Its chains come at the priority of raw (-300): before connection tracking,
// whose NAT rules (kube-proxy's, host ports, masquerade) and verdicts (INVALID,
// for a director sees half of a conversation) then pass untracked packets by.
func newGuard(links []string, directors *[]net.HardwareAddr, relay []guardChain, relayed []guardSet) guard {
	table := &nftables.Table{Name: guardTable, Family: nftables.TableFamilyINet}
	g := guard{table: table}
	for i, name := range []string{"vips4", "vips6", "services4", "services6"} {
		g.sets = append(g.sets, guardSet{set: entrySet(table, name, uint32(i+1))})
	}
	protocols := guardSet{set: &nftables.Set{Table: table, Name: "protocols", ID: 5, KeyType: nftables.TypeInetProto}}
	for _, p := range []netstate.Protocol{netstate.TCP, netstate.UDP, netstate.SCTP} {
		protocols.elements = append(protocols.elements, nftables.SetElement{Key: []byte{byte(p)}})
	}
	g.sets = append(g.sets, protocols, linkSet(table, links), directorSet(table, directors),
		guardSet{set: markMap(table, "marks4", marks4ID)}, guardSet{set: markMap(table, "marks6", marks6ID)})
	g.sets = append(g.sets, relayed...)
	g.chains = append([]guardChain{
		{chain: baseChain(table, "prerouting", nftables.ChainHookPrerouting), rules: preroutingRules(links)},
		{chain: baseChain(table, "output", nftables.ChainHookOutput), rules: outputRules()},
	}, append(markChains(table, directors), relay...)...)
	return g
}

// entrySet is one of the sets that hold entries. The identifier counts within a
// transaction only; it is given here because the library would number its sets
// by a variable that it does not lock.
func entrySet(table *nftables.Table, name string, id uint32) *nftables.Set {
	types := map[string]nftables.SetDatatype{
		"vips4":     nftables.TypeIPAddr,
		"vips6":     nftables.TypeIP6Addr,
		"services4": nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService),
		"services6": nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService),
	}
	return &nftables.Set{Table: table, Name: name, ID: id, KeyType: types[name], KeyByteOrder: binaryutil.BigEndian}
}

// linkSet is the set of the interfaces that take in what comes from a VIP.
func linkSet(table *nftables.Table, links []string) guardSet {
	s := guardSet{set: &nftables.Set{Table: table, Name: "links", ID: 8, KeyType: nftables.TypeIFName}, replaced: true}
	for _, link := range links {
		s.elements = append(s.elements, nftables.SetElement{Key: interfaceName(link)})
	}
	return s
}

func baseChain(table *nftables.Table, name string, hook *nftables.ChainHook) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Table: table, Name: name, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRaw, Policy: &accept,
	}
}

// setOf returns the set that holds an entry.
func setOf(k netstate.GuardKey) *nftables.Set {
	name := "vips"
	switch {
	case k.Marked:
		name = "marks"
	case k.Protocol != 0 || k.Port != 0:
		name = "services"
	}
	if k.VIP.Is4() {
		name += "4"
	} else {
		name += "6"
	}
	if k.Marked {
		return markMap(&nftables.Table{Name: guardTable, Family: nftables.TableFamilyINet}, name, 1)
	}
	return entrySet(&nftables.Table{Name: guardTable, Family: nftables.TableFamilyINet}, name, 1)
}

// entrySets returns the sets that hold entries.
func (g guard) entrySets() []*nftables.Set {
	var sets []*nftables.Set
	for _, s := range g.sets {
		if !slices.Contains([]string{"protocols", "links", "directors"}, s.set.Name) && s.set.Table == g.table {
			sets = append(sets, s.set)
		}
	}
	return sets
}

// build queues what makes the guard, whatever of it is there.
func (g guard) build(conn *nftables.Conn) error {
	conn.AddTable(g.table)
	for _, table := range relayTables() {
		conn.AddTable(table)
	}
	for _, s := range g.sets {
		if err := s.build(conn); err != nil {
			return err
		}
	}
	for _, c := range g.chains {
		conn.AddChain(c.chain)
		if c.kept {
			continue
		}
		conn.FlushChain(c.chain)
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{
				Table: c.chain.Table, Chain: c.chain, Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
			})
		}
	}
	return nil
}

// build queues the set and its elements, in messages that are short enough: the
// length of an attribute, such as the list of elements, is a 16-bit number.
func (s guardSet) build(conn *nftables.Conn) error {
	const each = 500
	if err := conn.AddSet(s.set, nil); err != nil {
		return err
	}
	if s.replaced {
		conn.FlushSet(s.set)
	}
	for elements := range slices.Chunk(s.elements, each) {
		if err := conn.SetAddElements(s.set, elements); err != nil {
			return err
		}
	}
	return nil
}

// family is what the rules of one address family differ in.
type family struct {
	nfproto        byte
	name           string
	source, dest   uint32 // offsets in the network header
	size           uint32
	protocolInPort uint32 // 32-bit register of the protocol, after the address
	relayMap       uint32 // identifier of the relay's map within a transaction
}

var (
	ipv4 = family{unix.NFPROTO_IPV4, "4", 12, 16, 4, unix.NFT_REG32_00 + 1, 6}
	ipv6 = family{unix.NFPROTO_IPV6, "6", 8, 24, 16, unix.NFT_REG32_00 + 4, 7}
)

// preroutingRules, in order: neither the segment nor a pod may speak with this
// node's own addresses (which accept_local alone would let it); what comes from a
// VIP is not tracked, whichever way it comes; a fragment that is not the first has no port to judge by; what is
// for a service is not tracked, and is let through; the rest of TCP, UDP and
// SCTP for a VIP is for no service and dropped. Everything else passes, all of
// ICMP and ICMPv6 first of all: IPVS hands errors on to the real servers.
func preroutingRules(links []string) []guardRule {
	rules := []guardRule{{"drop spoofed sources on " + digest(links), concat(
		ipv4.is(), interfaceIn("links"), ipv4.isNoVIP(ipv4.source), sourceIsLocal(), drop(),
	)}}
	for _, f := range []family{ipv4, ipv6} {
		rules = append(rules, guardRule{"untracked from a VIP, IPv" + f.name, concat(
			f.is(), f.isVIP(f.source), untracked(),
		)})
	}
	rules = append(rules,
		guardRule{"later fragments, IPv4", concat(ipv4.is(), ipv4.isVIP(ipv4.dest), laterFragment4(), accept())},
		guardRule{"later fragments, IPv6", concat(ipv6.is(), ipv6.isVIP(ipv6.dest), laterFragment6(), accept())},
	)
	for _, f := range []family{ipv4, ipv6} {
		rules = append(rules,
			guardRule{"services, IPv" + f.name, concat(f.is(), f.isService(), counter(), untracked(), accept())},
			guardRule{"no service, IPv" + f.name, concat(f.is(), f.isVIP(f.dest), protocolHasPorts(), drop())},
		)
	}
	return rules
}

// outputRules keep what the host itself sends to a VIP, and from one, untracked.
func outputRules() []guardRule {
	var rules []guardRule
	for _, f := range []family{ipv4, ipv6} {
		rules = append(rules,
			guardRule{"untracked to a VIP, IPv" + f.name, concat(f.is(), f.isVIP(f.dest), untracked())},
			guardRule{"untracked from a VIP, IPv" + f.name, concat(f.is(), f.isVIP(f.source), untracked())},
		)
	}
	return rules
}

func concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func (f family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{f.nfproto}},
	}
}

func (f family) address(offset uint32) *expr.Payload {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size, DestRegister: unix.NFT_REG_1}
}

func (f family) isVIP(offset uint32) []expr.Any {
	return []expr.Any{f.address(offset), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "vips" + f.name}}
}

func (f family) isNoVIP(offset uint32) []expr.Any {
	return []expr.Any{f.address(offset), &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "vips" + f.name, Invert: true}}
}

// isService loads address, protocol and destination port into neighbouring
// registers, which is how a concatenation is looked up.
func (f family) isService() []expr.Any {
	return []expr.Any{
		f.address(f.dest),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: f.protocolInPort},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: f.protocolInPort + 1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "services" + f.name},
	}
}

// digest tells one list of interfaces from another, in few bytes: a comment has
// room for no more.
func digest(links []string) string {
	if len(links) == 1 {
		return links[0]
	}
	h := fnv.New64a()
	for _, link := range links {
		h.Write([]byte(link + "\n"))
	}
	return fmt.Sprintf("%d interfaces (%x)", len(links), h.Sum64())
}

func interfaceIs(name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: interfaceName(name)},
	}
}

func interfaceIn(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set},
	}
}

// interfaceName is the name of an interface as the kernel compares it.
func interfaceName(name string) []byte {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return padded
}

func sourceIsLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: unix.NFT_REG_1, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func protocolHasPorts() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: "protocols"},
	}
}

// laterFragment4 masks the fragment offset of the IPv4 header (RFC 791).
func laterFragment4() []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2, DestRegister: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 2,
			Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0},
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0, 0}},
	}
}

// laterFragment6 masks the fragment offset of the fragment header (RFC 8200).
func laterFragment6() []expr.Any {
	return []expr.Any{
		&expr.Exthdr{Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6, DestRegister: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 2,
			Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0},
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0, 0}},
	}
}

func untracked() []expr.Any { return []expr.Any{&expr.Notrack{}} }

func counter() []expr.Any { return []expr.Any{&expr.Counter{}} }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

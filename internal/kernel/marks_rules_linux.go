package kernel

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

const (
	// beforeIPVS is the priority of the chain that marks: after everybody's filters,
	// and before IPVS at 98 and 99 (see afterIPVS).
	beforeIPVS = nftables.ChainPriority(90)
	// beforeOthers is the priority of the chain that takes marks off: before the first
	// chains of others at that of raw.
	beforeOthers = nftables.ChainPriority(-310)
)

// Identifiers of sets within a transaction, besides those that newGuard counts.
const (
	marks4ID = iota + 9
	marks6ID
	directorsID
)

// markMap is the map from services of a family to their marks.
func markMap(table *nftables.Table, name string, id uint32) *nftables.Set {
	services := entrySet(table, map[string]string{"marks4": "services4", "marks6": "services6"}[name], id)
	services.Name, services.IsMap, services.DataType = name, true, nftables.TypeMark
	return services
}

// directorSet is the set of the MAC addresses of the pool's other directors. Until
// it is known which these are, what an earlier process put in stays.
func directorSet(table *nftables.Table, directors *[]net.HardwareAddr) guardSet {
	s := guardSet{
		set:      &nftables.Set{Table: table, Name: "directors", ID: directorsID, KeyType: nftables.TypeEtherAddr},
		replaced: directors != nil,
	}
	if directors != nil {
		for _, mac := range *directors {
			s.elements = append(s.elements, nftables.SetElement{Key: mac})
		}
	}
	return s
}

// markChains mark what is for a marked service and was not sent by a director of
// the pool: only such packets are scheduled. What a director sends it has
// scheduled already, and this node is the real server that it chose. When IPVS
// sends a packet on the mark comes off. Until the directors are known the rules of
// an earlier process stay.
func markChains(table *nftables.Table, directors *[]net.HardwareAddr) []guardChain {
	policy := nftables.ChainPolicyAccept
	mark := guardChain{kept: directors == nil, chain: &nftables.Chain{
		Table: table, Name: "mark", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(beforeIPVS), Policy: &policy,
	}}
	if directors != nil {
		mark.rules = append(mark.rules, guardRule{"sent by one of " + digestMACs(*directors), concat(senderIn("directors"), accept())})
		for _, f := range []family{ipv4, ipv6} {
			mark.rules = append(mark.rules, guardRule{"marked services, IPv" + f.name, concat(f.is(), f.setMark())})
		}
	}
	unmark := guardChain{chain: &nftables.Chain{
		Table: table, Name: "unmark", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRef(beforeOthers), Policy: &policy,
	}, rules: []guardRule{{"marks of ours come off", concat(markIsOurs(), clearMark())}}}
	return []guardChain{mark, unmark}
}

// digestMACs tells one set of directors from another.
func digestMACs(macs []net.HardwareAddr) string {
	names := make([]string, 0, len(macs))
	for _, mac := range macs {
		names = append(names, mac.String())
	}
	slices.Sort(names)
	return fmt.Sprintf("%d directors (%s)", len(names), digest(names))
}

// senderIn looks the source address of the Ethernet header up. It does not match
// what came by an interface without such headers.
func senderIn(set string) []expr.Any {
	return []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6, DestRegister: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set},
	}
}

// setMark gives a packet the mark of its service, and leaves all others alone.
func (f family) setMark() []expr.Any {
	find := f.isService()
	find[len(find)-1] = &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, IsDestRegSet: true, SetName: "marks" + f.name,
	}
	return append(find, &expr.Counter{}, &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: unix.NFT_REG_1})
}

func markIsOurs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: unix.NFT_REG_1},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(markMask), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(markPrefix)},
	}
}

func clearMark() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: make([]byte, 4)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: unix.NFT_REG_1},
	}
}

// element is an entry of the guard as an element of its set.
func (c *Client) element(k netstate.GuardKey) nftables.SetElement {
	element := nftables.SetElement{Key: elementKey(k)}
	if k.Marked {
		element.Val = binaryutil.NativeEndian.PutUint32(c.marks.get(markedService(k)))
	}
	return element
}

// SetDirectors says which MAC addresses the other directors of the pool have: what
// they send for a marked service is not scheduled again. It needs the guard:
// without one (see Prepare) it does nothing, and Prepare makes up for it. It can be
// called before Prepare. Until it is called what an earlier process said holds; a
// guard that is made anew meanwhile marks nothing, so marked services schedule
// nothing.
func (c *Client) SetDirectors(ctx context.Context, directors []net.HardwareAddr) error {
	for _, mac := range directors {
		if len(mac) != 6 {
			return fmt.Errorf("naming the directors: %w: the MAC address %s", ErrUnsupported, mac)
		}
	}
	directors = slices.Clone(directors)
	c.mu.Lock()
	node, before := c.node, c.directors
	c.directors = &directors
	c.mu.Unlock()
	if node == nil || !node.Guard {
		return nil
	}
	err := c.prepareGuard(ctx, *node)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	c.directors = before
	c.mu.Unlock()
	return fmt.Errorf("naming the directors: %w", err)
}

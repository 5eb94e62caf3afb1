package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// batchSize is room for a transaction in the socket's buffer. Of the usual 208 KiB
// some thousand entries are too many, and a transaction is sent in one piece.
const batchSize = 16 << 20

// nft opens a connection for one batch of the guard's table.
func (c *Client) nft() (*nftables.Conn, error) {
	conn, err := nftables.New(
		nftables.WithNetNSFd(c.netns.fd()),
		nftables.WithSockOptions(func(conn *mdnetlink.Conn) error {
			return errors.Join(conn.SetDeadline(time.Now().Add(c.opts.Timeout)), conn.SetWriteBuffer(batchSize))
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return conn, nil
}

// prepareGuard brings the guard's table about, or takes it away if none is
// wanted. Rules that are as they should be are left alone; else all of them are
// replaced in one transaction, and elements of the sets stay. A guard that is made
// anew is whole at once (see adopt).
func (c *Client) prepareGuard(ctx context.Context, node netstate.Node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !node.Guard {
		return c.removeGuard(ctx)
	}
	conn, err := c.nft()
	if err != nil {
		return err
	}
	c.mu.Lock()
	relay, directors, sharing := c.relay, c.directors, c.sharing
	c.mu.Unlock()
	link, err := c.relayLink(relay)
	if err != nil {
		return err
	}
	chains, sets := relayParts(relay, link)
	g := newGuard(append([]string{node.Interface}, node.Links...), directors, chains, sets)
	g.protectSync(sharing)
	if g.upToDate(conn) {
		return nil
	}
	if err := errors.Join(c.adopt(ctx, conn, g), g.build(conn)); err != nil {
		return fmt.Errorf("building the guard: %w", err)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("building the guard: %w", orNoGuard(err))
	}
	return nil
}

// orNoGuard marks the answers of a kernel that lacks nf_tables, the inet family
// or an expression.
func orNoGuard(err error) error {
	if isErrno(err, unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("%w: %w", ErrNoGuard, err)
	}
	return err
}

func (c *Client) removeGuard(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := c.nft()
	if err != nil {
		return err
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		conn.DelTable(&nftables.Table{Name: guardTable, Family: family})
		err = conn.Flush()
		// A kernel that has no nftables has no guard either.
		if err != nil && !errors.Is(orNoGuard(err), ErrNoGuard) {
			return fmt.Errorf("removing the guard: %w", err)
		}
	}
	return nil
}

func (c *Client) applyGuard(ctx context.Context, op netstate.GuardChange) error {
	err := c.changeGuard(op)
	if !isErrno(err, unix.ENOENT) {
		return err
	}
	if op.Verb == netstate.Del {
		return nil // the entry or the whole table is gone already
	}
	c.mu.Lock()
	node := c.node
	c.mu.Unlock()
	if node == nil || !node.Guard {
		return fmt.Errorf("%w: the guard was not prepared", ErrUnsupported)
	}
	// Somebody flushed the ruleset since Prepare.
	if err := c.prepareGuard(ctx, *node); err != nil {
		return err
	}
	return c.changeGuard(op)
}

func (c *Client) changeGuard(op netstate.GuardChange) error {
	conn, err := c.nft()
	if err != nil {
		return err
	}
	element := []nftables.SetElement{c.element(op.Entry)}
	change := conn.SetAddElements
	if op.Verb == netstate.Del {
		change = conn.SetDeleteElements
	}
	if err := change(setOf(op.Entry), element); err != nil {
		return err
	}
	return conn.Flush()
}

// elementKey is an entry in the kernel's form: the address, and for a service
// protocol and port, each padded to 32 bits.
func elementKey(k netstate.GuardKey) []byte {
	key := k.VIP.AsSlice()
	if k.Protocol == 0 && k.Port == 0 {
		return key
	}
	key = append(key, byte(k.Protocol), 0, 0, 0)
	key = binary.BigEndian.AppendUint16(key, k.Port)
	return append(key, 0, 0)
}

// parseElement is the reverse; false for a key of another length.
func parseElement(key []byte) (netstate.GuardKey, bool) {
	size := 16
	if len(key) == 4 || len(key) == 12 {
		size = 4
	}
	if len(key) != size && len(key) != size+8 {
		return netstate.GuardKey{}, false
	}
	vip, _ := netip.AddrFromSlice(key[:size])
	k := netstate.GuardKey{VIP: vip}
	if rest := key[size:]; len(rest) > 0 {
		k.Protocol = netstate.Protocol(rest[0])
		k.Port = binary.BigEndian.Uint16(rest[4:])
	}
	return k, true
}

// listGuard reads all entries of the guard; none if it is not there.
func (c *Client) listGuard(ctx context.Context) ([]netstate.GuardKey, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := c.nft()
	if err != nil {
		return nil, err
	}
	var keys []netstate.GuardKey
	for _, set := range newGuard(nil, nil, nil, nil).entrySets() {
		// Asked first because the library keeps no errno of a dump.
		_, err := conn.GetSetByName(set.Table, set.Name)
		// EINVAL is what nfnetlink.c says of a subsystem that is not there.
		if err != nil && (errors.Is(orNoGuard(err), ErrNoGuard) || isErrno(err, unix.EINVAL)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking for the guard's set %s: %w", set.Name, err)
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("listing the guard's entries: %w", err)
		}
		for _, e := range elements {
			k, ok := parseElement(e.Key)
			if !ok {
				continue
			}
			if k.Marked = set.IsMap; k.Marked && len(e.Val) == 4 {
				c.marks.learn(markedService(k), binaryutil.NativeEndian.Uint32(e.Val))
			}
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// readGuard puts those of known into seen that the kernel has. It asks for each
// by its key: the cost does not depend on the size of the sets.
func (c *Client) readGuard(ctx context.Context, known, seen map[netstate.GuardKey]netstate.Present) error {
	if len(known) == 0 {
		return ctx.Err()
	}
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{NetNS: c.netns.fd()})
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	if err := conn.SetDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
		return fmt.Errorf("limiting nftables' time: %w", err)
	}
	for k := range known {
		if err := ctx.Err(); err != nil {
			return err
		}
		found, err := hasElement(conn, k)
		if err != nil {
			return fmt.Errorf("reading %s: %w", k, err)
		}
		if found {
			seen[k] = netstate.Present{}
		}
	}
	return nil
}

// hasElement asks for one element of a set (NFT_MSG_GETSETELEM with a key,
// linux/netfilter/nf_tables.h), which the nftables library does not do.
func hasElement(conn *mdnetlink.Conn, k netstate.GuardKey) (bool, error) {
	set := setOf(k)
	attributes := mdnetlink.NewAttributeEncoder()
	attributes.String(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
	attributes.String(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	attributes.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(list *mdnetlink.AttributeEncoder) error {
		list.Nested(unix.NFTA_LIST_ELEM, func(element *mdnetlink.AttributeEncoder) error {
			element.Nested(unix.NFTA_SET_ELEM_KEY, func(data *mdnetlink.AttributeEncoder) error {
				data.Bytes(unix.NFTA_DATA_VALUE, elementKey(k))
				return nil
			})
			return nil
		})
		return nil
	})
	data, err := attributes.Encode()
	if err != nil {
		return false, err
	}
	const header = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM
	_, err = conn.Execute(mdnetlink.Message{
		Header: mdnetlink.Header{Type: header, Flags: mdnetlink.Request},
		// struct nfgenmsg: family, version, resource id.
		Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if isErrno(err, unix.ENOENT) || (err != nil && errors.Is(orNoGuard(err), ErrNoGuard)) {
		return false, nil
	}
	return err == nil, err
}

// upToDate says whether the chains hold the rules that build would make, by
// their comments.
func (g guard) upToDate(conn *nftables.Conn) bool {
	for _, chain := range g.chains {
		// A dump of the rules of a chain that does not exist is empty.
		if _, err := conn.ListChain(chain.chain.Table, chain.chain.Name); err != nil {
			return false
		}
		if chain.kept {
			continue
		}
		rules, err := conn.GetRules(chain.chain.Table, chain.chain)
		if err != nil {
			return false
		}
		var have, want []string
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			have = append(have, comment)
		}
		for _, r := range chain.rules {
			want = append(want, r.comment)
		}
		if !slices.Equal(have, want) {
			return false
		}
	}
	return true
}

// adopt takes what the kernel holds already into the sets: the VIPs and services
// of this node if there is no guard, as after a flush of the ruleset. With entries
// that came one by one, with the audit, VIPs without their services would be dropped
// meanwhile.
func (c *Client) adopt(ctx context.Context, conn *nftables.Conn, g guard) error {
	// Asked first because the library keeps no errno of a dump.
	if _, err := conn.GetSetByName(g.table, g.sets[0].set.Name); err == nil {
		return nil
	}
	vips, err := c.vipsOn(ctx, netstate.DummyLink)
	if err != nil {
		return err
	}
	ours := map[netstate.Key]bool{}
	for _, vip := range vips {
		ours[netstate.Key{Addr: vip}] = true
		c.put(g, netstate.GuardKey{VIP: vip})
	}
	services, err := c.listServices(ctx, func(k netstate.Key) bool { return ours[k] })
	if err != nil {
		return err
	}
	for k := range services {
		c.put(g, netstate.GuardKey{VIP: k.Key.Addr, Protocol: k.Protocol, Port: k.Port})
		if k.Marked {
			c.put(g, netstate.GuardKey{VIP: k.Key.Addr, Protocol: k.Protocol, Port: k.Port, Marked: true})
		}
	}
	return nil
}

// put adds an entry to the set that it belongs to.
func (c *Client) put(g guard, k netstate.GuardKey) {
	want := setOf(k)
	for i, s := range g.sets {
		if s.set.Table == g.table && s.set.Name == want.Name {
			g.sets[i].elements = append(s.elements, c.element(k))
		}
	}
}

package kernel

import (
	"context"
	"fmt"
	"slices"

	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchGuard listens to the kernel's own reports. (The library's monitor decodes
// every rule and element of everybody, and passes no deletion alone.)
func (c *Client) watchGuard(ctx context.Context) (<-chan struct{}, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, &mdnetlink.Config{NetNS: c.netns.fd()})
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, fmt.Errorf("watching the guard: %w", join(err, conn.Close()))
	}
	gone := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	go func() {
		defer close(gone)
		defer func() {
			if stop() {
				_ = conn.Close()
			}
		}()
		for {
			messages, err := conn.Receive()
			if err != nil && !isErrno(err, unix.ENOBUFS) {
				return
			}
			// With ENOBUFS messages were lost, and what they said is unknown.
			if err == nil && !anyDeletesGuard(messages) {
				continue
			}
			select {
			case gone <- struct{}{}:
			default: // one is waiting to be received
			}
		}
	}()
	return gone, nil
}

func anyDeletesGuard(messages []mdnetlink.Message) bool {
	for _, m := range messages {
		if deletesGuard(m) {
			return true
		}
	}
	return false
}

// deletesGuard says whether a message is the deletion of a table of the guard's: a
// struct nfgenmsg, then attributes (linux/netfilter/nf_tables.h).
func deletesGuard(m mdnetlink.Message) bool {
	const (
		deletion     = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
		headerLength = 4
	)
	if m.Header.Type != deletion || len(m.Data) < headerLength ||
		!slices.Contains([]byte{unix.NFPROTO_INET, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}, m.Data[0]) {
		return false
	}
	attributes, err := mdnetlink.NewAttributeDecoder(m.Data[headerLength:])
	if err != nil {
		return false
	}
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_TABLE_NAME && attributes.String() == guardTable {
			return true
		}
	}
	return false
}

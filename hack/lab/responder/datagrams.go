package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// largestDatagram is all that UDP can carry.
const largestDatagram = 65535

// datagrams are the sockets of both families. They are two, since a host that
// has its VIPs on lo must choose the source of an answer, and does so with the
// control messages of a family.
type datagrams struct {
	v4 inet4
	v6 inet6
}

type inet4 struct{ conn *ipv4.PacketConn }

type inet6 struct{ conn *ipv6.PacketConn }

func listenDatagrams(ctx context.Context, address string) (datagrams, error) {
	var config net.ListenConfig
	first, err := config.ListenPacket(ctx, "udp4", address)
	if err != nil {
		return datagrams{}, fmt.Errorf("listening for datagrams of IPv4: %w", err)
	}
	second, err := config.ListenPacket(ctx, "udp6", address)
	if err != nil {
		return datagrams{}, errors.Join(fmt.Errorf("listening for datagrams of IPv6: %w", err), first.Close())
	}
	d := datagrams{v4: inet4{ipv4.NewPacketConn(first)}, v6: inet6{ipv6.NewPacketConn(second)}}
	if err := errors.Join(d.v4.conn.SetControlMessage(ipv4.FlagDst, true), d.v6.conn.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return datagrams{}, errors.Join(fmt.Errorf("asking for the address that was asked: %w", err), first.Close(), second.Close())
	}
	return d, nil
}

// answer answers each datagram from the address that it was sent to. One that
// can't be answered is the sender's loss alone: the address may be gone since,
// or have been a broadcast's.
func (s inet4) answer(body []byte) error {
	buffer := make([]byte, largestDatagram)
	for {
		_, asked, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("reading datagrams: %w", err)
		}
		_, err = s.conn.WriteTo(body, &ipv4.ControlMessage{Src: asked.Dst}, from)
		logUnanswered(from, err)
	}
}

func (s inet6) answer(body []byte) error {
	buffer := make([]byte, largestDatagram)
	for {
		_, asked, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("reading datagrams: %w", err)
		}
		_, err = s.conn.WriteTo(body, &ipv6.ControlMessage{Src: asked.Dst}, from)
		logUnanswered(from, err)
	}
}

func logUnanswered(from net.Addr, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "responder: answering %s: %v\n", from, err)
	}
}

package announce

import "net/netip"

// roles says what we are to each VIP: the pool's, and those of them that we
// announce. What is announced is held too.
type roles struct {
	held, announced map[netip.Addr]struct{}
}

func (r roles) holds(addr netip.Addr) bool     { _, ok := r.held[addr]; return ok }
func (r roles) announces(addr netip.Addr) bool { _, ok := r.announced[addr]; return ok }

// asker is a neighbour that wants to know where a VIP is.
type asker struct {
	vip, addr netip.Addr
}

// reaction is what follows from a received frame. Each part may be missing.
type reaction struct {
	// answer is the frame to send for answered.
	answer   []byte
	answered netip.Addr
	// claimed is the VIP that claimant spoke for, in the form kind.
	claimed  netip.Addr
	claimant MAC
	kind     Kind
	// asked is who asked, from which MAC.
	asked    asker
	askedMAC MAC
}

// onARP decides about a received ARP packet. mac is our own: what comes from
// it is ours or our kernel's, and asks and claims nothing.
func (r roles) onARP(p arpPacket, mac MAC) reaction {
	if p.senderMAC == mac || p.source == mac || !p.senderMAC.isStation() {
		return reaction{}
	}
	var out reaction
	if r.holds(p.senderIP) {
		out.claimed, out.claimant, out.kind = p.senderIP, p.senderMAC, arpKind(p)
	}
	// One who announces an address is not asking for it.
	asks := p.op == arpRequest && p.senderIP != p.targetIP && r.holds(p.targetIP)
	toUs := p.destination == mac || p.destination == broadcast
	if !asks || !toUs {
		return out
	}
	if !p.senderIP.IsUnspecified() {
		out.asked, out.askedMAC = asker{vip: p.targetIP, addr: p.senderIP}, p.senderMAC
	}
	if r.announces(p.targetIP) {
		out.answered = p.targetIP
		out.answer = arpPacket{
			destination: p.senderMAC, source: mac, op: arpReply,
			senderMAC: mac, senderIP: p.targetIP,
			targetMAC: p.senderMAC, targetIP: p.senderIP,
		}.encode()
	}
	return out
}

// arpKind returns how p claims its sender's address.
func arpKind(p arpPacket) Kind {
	switch {
	case p.senderIP == p.targetIP:
		return Gratuitous
	case p.op == arpReply:
		return Answer
	default:
		return Source
	}
}

// onNDP decides about a received solicitation or advertisement, as onARP does.
func (r roles) onNDP(p ndpPacket, mac MAC) reaction {
	if p.source == mac || p.linkLayer == mac {
		return reaction{}
	}
	// An asker that leaves its address out, as it may in a unicast probe, is
	// where its frame came from.
	sender := p.linkLayer
	if sender.IsZero() {
		sender = p.source
	}
	if !sender.isStation() {
		return reaction{}
	}
	if p.kind == ndpAdvertisement {
		return r.onAdvertisement(p, sender)
	}
	return r.onSolicitation(p, sender, mac)
}

func (r roles) onAdvertisement(p ndpPacket, sender MAC) reaction {
	if !r.holds(p.target) {
		return reaction{}
	}
	// What is sent to all may be the answer to a probe from ::, or unasked.
	kind := Answer
	if p.flags&ndpSolicited == 0 {
		kind = Gratuitous
	}
	return reaction{claimed: p.target, claimant: sender, kind: kind}
}

func (r roles) onSolicitation(p ndpPacket, sender, mac MAC) reaction {
	var out reaction
	if r.holds(p.from) {
		out.claimed, out.claimant, out.kind = p.from, sender, Source
	}
	toUs := p.destination == mac || p.destination == groupMAC(solicitedNode(p.target))
	if !r.holds(p.target) || !toUs {
		return out
	}
	probed := p.from == noAddress6
	if !probed {
		out.asked, out.askedMAC = asker{vip: p.target, addr: p.from}, sender
	}
	if !r.announces(p.target) {
		return out
	}
	out.answered = p.target
	if probed {
		// Who probes has no address yet to be answered at (RFC 4861, 7.2.4).
		out.answer = advertisement(mac, p.target, groupMAC(allNodes), allNodes, ndpOverride)
	} else {
		out.answer = advertisement(mac, p.target, sender, p.from, ndpSolicited|ndpOverride)
	}
	return out
}

package announce

import "net/netip"

// gratuitous returns the frames that tell everybody on the segment that vip is
// at mac. Of ARP's two forms some stacks take only one, so IPv4 sends both
// (RFC 5227, 3, and RFC 5944, 4.6: a reply must repeat the sender's MAC as the
// target's, and Linux checks that).
func gratuitous(mac MAC, vip netip.Addr) [][]byte {
	if vip.Is4() {
		p := arpPacket{
			destination: broadcast, source: mac, op: arpRequest,
			senderMAC: mac, senderIP: vip, targetIP: vip,
		}
		request := p.encode()
		p.op, p.targetMAC = arpReply, mac
		return [][]byte{request, p.encode()}
	}
	return [][]byte{advertisement(mac, vip, groupMAC(allNodes), allNodes, ndpOverride)}
}

// advertisement returns a neighbour advertisement for vip. The router flag is
// never set: a neighbour would take a director for a default router.
func advertisement(mac MAC, vip netip.Addr, destination MAC, to netip.Addr, flags ndpFlags) []byte {
	return ndpPacket{
		destination: destination, source: mac, from: vip, to: to,
		kind: ndpAdvertisement, flags: flags, target: vip, linkLayer: mac,
	}.encode()
}

// directed returns a frame that asks one neighbour for its own address on
// behalf of vip, which makes it learn where vip is (RFC 826; RFC 4861, 7.2.3).
// Neighbours that ignore what they did not ask for still heed a question. A
// zero neighbourMAC is not known: then everybody is asked.
func directed(mac MAC, vip, neighbour netip.Addr, neighbourMAC MAC) []byte {
	if vip.Is4() {
		p := arpPacket{
			destination: neighbourMAC, source: mac, op: arpRequest,
			senderMAC: mac, senderIP: vip, targetIP: neighbour,
		}
		if neighbourMAC.IsZero() {
			p.destination = broadcast
		}
		return p.encode()
	}
	p := ndpPacket{
		destination: neighbourMAC, source: mac, from: vip, to: neighbour,
		kind: ndpSolicitation, target: neighbour, linkLayer: mac,
	}
	if neighbourMAC.IsZero() {
		p.to = solicitedNode(neighbour)
		p.destination = groupMAC(p.to)
	}
	return p.encode()
}

// question returns a frame that asks everybody for target, on behalf of the
// node's own address from. If that is the zero Addr it names no sender, so that
// nobody learns from it.
func question(mac MAC, from, target netip.Addr) []byte {
	if target.Is4() {
		if !from.IsValid() {
			from = netip.IPv4Unspecified()
		}
		return arpPacket{
			destination: broadcast, source: mac, op: arpRequest,
			senderMAC: mac, senderIP: from, targetIP: target,
		}.encode()
	}
	group := solicitedNode(target)
	p := ndpPacket{
		destination: groupMAC(group), source: mac, from: noAddress6, to: group,
		kind: ndpSolicitation, target: target,
	}
	if from.IsValid() {
		p.from, p.linkLayer = from, mac
	}
	return p.encode()
}

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

// probe returns a question for vip that names no sender, so that nobody learns
// from it (RFC 5227, 2.1.1; RFC 4862, 5.4.2).
func probe(mac MAC, vip netip.Addr) []byte {
	if vip.Is4() {
		return arpPacket{
			destination: broadcast, source: mac, op: arpRequest,
			senderMAC: mac, senderIP: netip.IPv4Unspecified(), targetIP: vip,
		}.encode()
	}
	group := solicitedNode(vip)
	return ndpPacket{
		destination: groupMAC(group), source: mac, from: noAddress6, to: group,
		kind: ndpSolicitation, target: vip,
	}.encode()
}

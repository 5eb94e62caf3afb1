package announce

import "golang.org/x/net/bpf"

// The filters let through what the decoders take. They decide nothing: they
// keep the rest of IPv6 traffic, and what is not for this station, from waking
// the reader. Frames for others (PACKET_OTHERHOST) are seen on an interface in
// promiscuous mode, with VLAN tags that nobody here has too; our own
// (PACKET_OUTGOING) on some kernels.

// packetMulticast is the last of the packet types that are for this host:
// PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST (linux/if_packet.h).
const packetMulticast = 2

// arpFilter passes ARP requests and replies to this host.
func arpFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: packetMulticast, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeARP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(arpReply), SkipTrue: 1},
		bpf.RetConstant{Val: frameLimit},
		bpf.RetConstant{Val: 0},
	}
}

// ndpFilter passes neighbour solicitations and advertisements to this host.
func ndpFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: packetMulticast, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeIP6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 2}, // Next header and hop limit.
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6<<8 | ndpHopLimit, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ethernetLen + ip6Len, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(ndpSolicitation), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(ndpAdvertisement), SkipTrue: 1},
		bpf.RetConstant{Val: frameLimit},
		bpf.RetConstant{Val: 0},
	}
}

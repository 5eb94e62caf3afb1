package announce

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testRoles hold vip4 and vip6, announced, and vip4b and vip6b, not.
func testRoles() roles {
	return roles{
		held:      setOf([]netip.Addr{vip4, vip4b, vip6, vip6b}),
		announced: setOf([]netip.Addr{vip4, vip6}),
	}
}

var compareReaction = cmp.AllowUnexported(reaction{}, asker{})

func TestARPReactions(t *testing.T) {
	ask := func(destination MAC, vip netip.Addr) arpPacket {
		return arpPacket{
			destination: destination, source: client, op: arpRequest,
			senderMAC: client, senderIP: client4, targetIP: vip,
		}
	}
	answer := arpPacket{
		destination: client, source: ours, op: arpReply,
		senderMAC: ours, senderIP: vip4, targetMAC: client, targetIP: client4,
	}
	toProbe := answer
	toProbe.targetIP = nobody4
	probing := ask(broadcast, vip4)
	probing.senderIP = nobody4
	claimed := func(op arpOp, sender, target netip.Addr) arpPacket {
		return arpPacket{destination: broadcast, source: peer, op: op, senderMAC: peer, senderIP: sender, targetIP: target}
	}
	own := claimed(arpReply, vip4, vip4)
	own.source, own.senderMAC = ours, ours
	group := ask(broadcast, vip4)
	group.senderMAC = broadcast

	tests := map[string]struct {
		packet arpPacket
		want   reaction
	}{
		"a broadcast request is answered": {ask(broadcast, vip4), reaction{
			answered: vip4, answer: answer.encode(), asked: asker{vip4, client4}, askedMAC: client,
		}},
		"a unicast probe of a neighbour cache is answered": {ask(ours, vip4), reaction{
			answered: vip4, answer: answer.encode(), asked: asker{vip4, client4}, askedMAC: client,
		}},
		"a probe without a sender is answered and teaches nothing": {probing, reaction{
			answered: vip4, answer: toProbe.encode(),
		}},
		"a request for a VIP of a standby is remembered": {ask(broadcast, vip4b), reaction{
			asked: asker{vip4b, client4}, askedMAC: client,
		}},
		"a request to another station is not ours":     {ask(peer, vip4), reaction{}},
		"a request for somebody else is not ours":      {ask(broadcast, router4), reaction{}},
		"a sender that is no station gets no answer":   {group, reaction{}},
		"what our kernel says is no claim":             {own, reaction{}},
		"a probe for our VIP by a peer is no claim":    {claimed(arpRequest, nobody4, vip4b), reaction{}},
		"a gratuitous request is a claim, no question": {claimed(arpRequest, vip4, vip4), reaction{claimed: vip4, claimant: peer, kind: Gratuitous}},
		"a gratuitous reply is a claim":                {claimed(arpReply, vip4b, vip4b), reaction{claimed: vip4b, claimant: peer, kind: Gratuitous}},
		"an answer for our VIP is a claim":             {claimed(arpReply, vip4, client4), reaction{claimed: vip4, claimant: peer, kind: Answer}},
		"a request sent from our VIP is a claim":       {claimed(arpRequest, vip4, router4), reaction{claimed: vip4, claimant: peer, kind: Source}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := testRoles().onARP(tc.packet, ours)
			if diff := cmp.Diff(tc.want, got, compareReaction, compareAddrs); diff != "" {
				t.Errorf("reaction (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNDPReactions(t *testing.T) {
	ask := func(vip netip.Addr) ndpPacket {
		group := solicitedNode(vip)
		return ndpPacket{
			destination: groupMAC(group), source: client, from: client6, to: group,
			kind: ndpSolicitation, target: vip, linkLayer: client,
		}
	}
	unicast := ask(vip6)
	unicast.destination, unicast.to, unicast.linkLayer = ours, vip6, MAC{}
	foreign := ask(vip6)
	foreign.destination = peer
	probing := ask(vip6)
	probing.from, probing.linkLayer = noAddress6, MAC{}
	probingStandby := ask(vip6b)
	probingStandby.from, probingStandby.linkLayer = noAddress6, MAC{}
	unsolicited := ndpPacket{
		destination: groupMAC(allNodes), source: peer, from: vip6, to: allNodes,
		kind: ndpAdvertisement, flags: ndpOverride, target: vip6, linkLayer: peer,
	}
	bare := unsolicited
	bare.linkLayer = MAC{}
	solicited := unsolicited
	solicited.destination, solicited.to, solicited.flags = ours, router6, ndpOverride|ndpSolicited
	own := unsolicited
	own.source, own.linkLayer = ours, ours
	source := ask(router6)
	source.from, source.source, source.linkLayer = vip6b, peer, peer

	toClient := advertisement(ours, vip6, client, client6, ndpSolicited|ndpOverride)
	tests := map[string]struct {
		packet ndpPacket
		want   reaction
	}{
		"a solicitation is answered": {ask(vip6), reaction{
			answered: vip6, answer: toClient, asked: asker{vip6, client6}, askedMAC: client,
		}},
		"a unicast probe without an option is answered to where it came from": {unicast, reaction{
			answered: vip6, answer: toClient, asked: asker{vip6, client6}, askedMAC: client,
		}},
		"duplicate address detection is answered to all, unsolicited": {probing, reaction{
			answered: vip6, answer: advertisement(ours, vip6, groupMAC(allNodes), allNodes, ndpOverride),
		}},
		"duplicate address detection on a standby is left alone": {probingStandby, reaction{}},
		"a solicitation for a VIP of a standby is remembered": {ask(vip6b), reaction{
			asked: asker{vip6b, client6}, askedMAC: client,
		}},
		"a solicitation to another station is not ours":     {foreign, reaction{}},
		"a solicitation for somebody else is not ours":      {ask(router6), reaction{}},
		"an unsolicited advertisement is a claim":           {unsolicited, reaction{claimed: vip6, claimant: peer, kind: Gratuitous}},
		"one without an option is a claim by its sender":    {bare, reaction{claimed: vip6, claimant: peer, kind: Gratuitous}},
		"an answer for our VIP is a claim":                  {solicited, reaction{claimed: vip6, claimant: peer, kind: Answer}},
		"a solicitation sent from our VIP is a claim":       {source, reaction{claimed: vip6b, claimant: peer, kind: Source}},
		"what our kernel advertises is no claim":            {own, reaction{}},
		"an advertisement of another address is no concern": {ndpPacket{source: peer, kind: ndpAdvertisement, target: router6, linkLayer: peer}, reaction{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := testRoles().onNDP(tc.packet, ours)
			if diff := cmp.Diff(tc.want, got, compareReaction, compareAddrs); diff != "" {
				t.Errorf("reaction (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDirectedFramesAskTheNeighbour(t *testing.T) {
	request := arpPacket{
		destination: router, source: ours, op: arpRequest,
		senderMAC: ours, senderIP: vip4, targetIP: router4,
	}
	toAll := request
	toAll.destination = broadcast
	solicit := ndpPacket{
		destination: router, source: ours, from: vip6, to: router6,
		kind: ndpSolicitation, target: router6, linkLayer: ours,
	}
	toGroup := solicit
	toGroup.to = solicitedNode(router6)
	toGroup.destination = MAC{0x33, 0x33, 0xff, 0, 0, 0xfe}
	tests := map[string]struct {
		vip, neighbour netip.Addr
		mac            MAC
		want           []byte
	}{
		"IPv4":                  {vip4, router4, router, request.encode()},
		"IPv4, MAC not known":   {vip4, router4, MAC{}, toAll.encode()},
		"IPv6":                  {vip6, router6, router, solicit.encode()},
		"IPv6, its MAC unknown": {vip6, router6, MAC{}, toGroup.encode()},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, directed(ours, tc.vip, tc.neighbour, tc.mac)); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProbesNameNoSender(t *testing.T) {
	p4, err := decodeARP(question(ours, netip.Addr{}, vip4))
	if err != nil || p4.senderIP != nobody4 || p4.targetIP != vip4 || p4.destination != broadcast {
		t.Errorf("ARP probe: %+v, %v", p4, err)
	}
	p6, err := decodeNDP(question(ours, netip.Addr{}, vip6))
	if err != nil || p6.from != noAddress6 || p6.target != vip6 || !p6.linkLayer.IsZero() {
		t.Errorf("neighbour probe: %+v, %v", p6, err)
	}
}

func TestBondsThatRewriteARPAreRefused(t *testing.T) {
	tests := map[string]bool{
		"": true, "balance-rr": true, "active-backup": true, "balance-xor": true, "broadcast": true, "802.3ad": true,
		"balance-tlb": false, "balance-alb": false,
	}
	for mode, want := range tests {
		if err := CheckBondMode(mode); (err == nil) != want || !want && !errors.Is(err, ErrBondMode) {
			t.Errorf("mode %q: got %v, want it accepted: %v", mode, err, want)
		}
	}
}

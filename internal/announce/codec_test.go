package announce

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"pgregory.net/rapid"
)

// The stations of the tests: us, a peer director, a client, a router.
var (
	ours   = MAC{0x02, 0, 0, 0, 0, 0x01}
	peer   = MAC{0x02, 0, 0, 0, 0, 0x02}
	client = MAC{0x02, 0, 0, 0, 0, 0x0c}
	router = MAC{0x02, 0, 0, 0, 0, 0xfe}

	vip4, vip4b  = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	client4      = netip.MustParseAddr("192.0.2.100")
	router4      = netip.MustParseAddr("192.0.2.1")
	vip6, vip6b  = netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::11")
	client6      = netip.MustParseAddr("fe80::c")
	router6      = netip.MustParseAddr("fe80::fe")
	nobody4      = netip.IPv4Unspecified()
	compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	compareARP   = cmp.AllowUnexported(arpPacket{})
	compareNDP   = cmp.AllowUnexported(ndpPacket{})
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARPFramesAreAsRFC826HasThem(t *testing.T) {
	tests := map[string]struct {
		packet arpPacket
		frame  string
	}{
		"a request": {
			packet: arpPacket{
				destination: broadcast, source: client, op: arpRequest,
				senderMAC: client, senderIP: client4, targetIP: vip4,
			},
			frame: "ffffffffffff 02000000000c 0806 0001 0800 06 04 0001 02000000000c c0000264 000000000000 c000020a",
		},
		"a reply": {
			packet: arpPacket{
				destination: client, source: ours, op: arpReply,
				senderMAC: ours, senderIP: vip4, targetMAC: client, targetIP: client4,
			},
			frame: "02000000000c 020000000001 0806 0001 0800 06 04 0002 020000000001 c000020a 02000000000c c0000264",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			want := unhex(t, tc.frame)
			if diff := cmp.Diff(want, tc.packet.encode()); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			padded := append(bytes.Clone(want), make([]byte, 60-len(want))...)
			for _, frame := range [][]byte{want, padded} {
				got, err := decodeARP(frame)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tc.packet, got, compareARP, compareAddrs); diff != "" {
					t.Errorf("decoded (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestGratuitousFramesTellTheWholeSegment(t *testing.T) {
	tests := map[string]struct {
		vip  netip.Addr
		want []string
	}{
		"IPv4 in both forms, the reply with its own MAC as target": {
			vip: vip4,
			want: []string{
				"ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c000020a 000000000000 c000020a",
				"ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 c000020a 020000000001 c000020a",
			},
		},
		// Override, neither solicited nor router. The checksum was worked out
		// apart from this code.
		"IPv6 to all nodes": {
			vip: vip6,
			want: []string{
				"333300000001 020000000001 86dd 60000000 0020 3a ff 20010db8000000000000000000000010 ff020000000000000000000000000001" +
					"88 00 f90c 20000000 20010db8000000000000000000000010 02 01 020000000001",
			},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := gratuitous(ours, tc.vip)
			var want [][]byte
			for _, frame := range tc.want {
				want = append(want, unhex(t, frame))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
}

// A solicitation as Linux sends it.
const solicitationFrame = "3333ff000010 02000000000c 86dd 60000000 0020 3a ff fe80000000000000000000000000000c ff0200000000000000000001ff000010" +
	"87 00 4b2d 00000000 20010db8000000000000000000000010 01 01 02000000000c"

func TestSolicitationIsDecodedAndChecked(t *testing.T) {
	good := unhex(t, solicitationFrame)
	want := ndpPacket{
		destination: groupMAC(solicitedNode(vip6)), source: client, from: client6, to: solicitedNode(vip6),
		kind: ndpSolicitation, target: vip6, linkLayer: client,
	}
	got, err := decodeNDP(good)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, compareNDP, compareAddrs); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(good, want.encode()); diff != "" {
		t.Errorf("encoded (-want +got):\n%s", diff)
	}

	tests := map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"one that came through a router": {func(b []byte) []byte { b[21] = 254; return b }, errHopLimit},
		"a broken one":                   {func(b []byte) []byte { b[70] ^= 1; return b }, errChecksum},
		"one cut off":                    {func(b []byte) []byte { return b[:len(b)-1] }, errShort},
		"an option of length 0":          {func(b []byte) []byte { b[79] = 0; return sum(b) }, errInvalid},
		"an option that is too long":     {func(b []byte) []byte { b[79] = 2; return sum(b) }, errShort},
		"a code":                         {func(b []byte) []byte { b[55] = 1; return sum(b) }, errInvalid},
		"a group as target":              {func(b []byte) []byte { b[62] = 0xff; return sum(b) }, errInvalid},
		"a probe with a sender's MAC": {func(b []byte) []byte {
			copy(b[22:38], make([]byte, 16))
			return sum(b)
		}, errInvalid},
		"an advertisement that is solicited by all": {func(b []byte) []byte {
			b[54], b[58], b[78] = byte(ndpAdvertisement), byte(ndpSolicited), optionTargetLinkLayer
			return sum(b)
		}, errInvalid},
		"an echo request": {func(b []byte) []byte { b[54] = 128; return sum(b) }, errType},
		"IPv4":            {func(b []byte) []byte { b[12], b[13] = 8, 0; return b }, errType},
	}
	for name, tc := range tests {
		t.Run(name+" is refused", func(t *testing.T) {
			if _, err := decodeNDP(tc.change(bytes.Clone(good))); !errors.Is(err, tc.want) {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
		})
	}
}

// sum sets the checksum of a frame right.
func sum(frame []byte) []byte {
	icmp := frame[ethernetLen+ip6Len:]
	icmp[2], icmp[3] = 0, 0
	from, to := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	c := checksum(from, to, icmp)
	icmp[2], icmp[3] = byte(c>>8), byte(c)
	return frame
}

func drawMAC(t *rapid.T, name string) MAC {
	return MAC(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, name))
}

func draw4(t *rapid.T, name string) netip.Addr {
	return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name)))
}

func draw6(t *rapid.T, name string) netip.Addr {
	return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name)))
}

func TestARPDecodesWhatItEncodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := arpPacket{
			destination: drawMAC(t, "destination"), source: drawMAC(t, "source"),
			op:        rapid.SampledFrom([]arpOp{arpRequest, arpReply}).Draw(t, "op"),
			senderMAC: drawMAC(t, "sender MAC"), senderIP: draw4(t, "sender"),
			targetMAC: drawMAC(t, "target MAC"), targetIP: draw4(t, "target"),
		}
		padding := make([]byte, rapid.IntRange(0, 40).Draw(t, "padding"))
		got, err := decodeARP(append(want.encode(), padding...))
		if err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func drawNDP(t *rapid.T) ndpPacket {
	p := ndpPacket{
		destination: drawMAC(t, "destination"), source: drawMAC(t, "source"),
		from: draw6(t, "from"), to: draw6(t, "to"), target: draw6(t, "target"),
		kind:      rapid.SampledFrom([]ndpType{ndpSolicitation, ndpAdvertisement}).Draw(t, "kind"),
		linkLayer: drawMAC(t, "link layer"),
	}
	if p.kind == ndpAdvertisement {
		p.flags = ndpFlags(rapid.Byte().Draw(t, "flags")) & (ndpRouter | ndpSolicited | ndpOverride)
	}
	return p
}

func TestNDPDecodesWhatItEncodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Custom(drawNDP).Filter(func(p ndpPacket) bool { return p.validate() == nil }).Draw(t, "packet")
		got, err := decodeNDP(want.encode())
		if err != nil || got != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func FuzzDecodeARP(f *testing.F) {
	f.Add(gratuitous(ours, vip4)[0])
	f.Add(gratuitous(ours, vip4)[1])
	f.Add(question(ours, netip.Addr{}, vip4)[:30])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		p, err := decodeARP(frame)
		if err != nil {
			return
		}
		if again, err := decodeARP(p.encode()); err != nil || again != p {
			t.Errorf("%+v decodes to %+v, %v", p, again, err)
		}
		testRoles().onARP(p, ours)
	})
}

func FuzzDecodeNDP(f *testing.F) {
	f.Add(gratuitous(ours, vip6)[0])
	f.Add(unhex(f, solicitationFrame))
	f.Add(question(ours, netip.Addr{}, vip6))
	f.Add(directed(ours, vip6, router6, router))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > ethernetLen+ip6Len+ndpLen {
			// Without a right checksum nothing gets past it.
			frame = sum(frame)
		}
		p, err := decodeNDP(frame)
		if err != nil {
			return
		}
		if again, err := decodeNDP(p.encode()); err != nil || again != p {
			t.Errorf("%+v decodes to %+v, %v", p, again, err)
		}
		testRoles().onNDP(p, ours)
	})
}

func FuzzParseMAC(f *testing.F) {
	for _, seed := range []string{"02:00:00:00:00:01", "0200.0000.0001", "", "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mac, err := ParseMAC(s)
		if err != nil {
			return
		}
		if again, err := ParseMAC(mac.String()); err != nil || again != mac {
			t.Errorf("%q is %s, which is %s, %v", s, mac, again, err)
		}
	})
}

// The packet type is the kernel's knowledge, so the first two instructions are
// tested where there is one.
func TestFiltersPassWhatTheDecodersTake(t *testing.T) {
	echo := sum(func() []byte { b := unhex(t, solicitationFrame); b[54] = 128; return b }())
	routed := unhex(t, solicitationFrame)
	routed[21] = 64
	other := gratuitous(ours, vip4)[0]
	other[21] = 8 // InARP
	tests := map[string]struct {
		filter []bpf.Instruction
		frame  []byte
		want   bool
	}{
		"a request":                       {arpFilter(), gratuitous(ours, vip4)[0], true},
		"a reply":                         {arpFilter(), gratuitous(ours, vip4)[1], true},
		"another ARP operation":           {arpFilter(), other, false},
		"IPv6 on the ARP socket":          {arpFilter(), unhex(t, solicitationFrame), false},
		"a solicitation":                  {ndpFilter(), unhex(t, solicitationFrame), true},
		"an advertisement":                {ndpFilter(), gratuitous(ours, vip6)[0], true},
		"an echo request":                 {ndpFilter(), echo, false},
		"a solicitation from elsewhere":   {ndpFilter(), routed, false},
		"ARP on the neighbours' socket":   {ndpFilter(), gratuitous(ours, vip4)[0], false},
		"a frame too short for the field": {ndpFilter(), unhex(t, solicitationFrame)[:54], false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			vm, err := bpf.NewVM(tc.filter[2:])
			if err != nil {
				t.Fatal(err)
			}
			n, err := vm.Run(tc.frame)
			if err != nil {
				t.Fatal(err)
			}
			if got := n > 0; got != tc.want {
				t.Errorf("passed %v, want %v", got, tc.want)
			}
			if _, err := bpf.Assemble(tc.filter); err != nil {
				t.Errorf("assembling: %v", err)
			}
		})
	}
}

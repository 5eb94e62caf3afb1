package plan

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseRange(t *testing.T) {
	for text, tc := range map[string]struct {
		in, out []string
	}{
		"192.168.11.200":                {in: []string{"192.168.11.200"}, out: []string{"192.168.11.199", "192.168.11.201", "::ffff:192.168.11.200"}},
		"192.168.11.200-192.168.11.220": {in: []string{"192.168.11.200", "192.168.11.210", "192.168.11.220"}, out: []string{"192.168.11.199", "192.168.11.221", "192.168.12.210"}},
		"192.168.11.0/24":               {in: []string{"192.168.11.0", "192.168.11.255"}, out: []string{"192.168.10.255", "192.168.12.0", "fd00::1"}},
		"192.168.11.8/29":               {in: []string{"192.168.11.8", "192.168.11.15"}, out: []string{"192.168.11.7", "192.168.11.16"}},
		"0.0.0.0/0":                     {in: []string{"0.0.0.0", "255.255.255.255"}, out: []string{"::", "::ffff:1.2.3.4"}},
		"10.0.0.1/32":                   {in: []string{"10.0.0.1"}, out: []string{"10.0.0.0", "10.0.0.2"}},
		"fd00:11::/120":                 {in: []string{"fd00:11::", "fd00:11::ff"}, out: []string{"fd00:11::100", "fd00:10:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:11::1%eth0"}},
		"fd00:11::1-fd00:11::3":         {in: []string{"fd00:11::2"}, out: []string{"fd00:11::", "fd00:11::4"}},
	} {
		t.Run(text, func(t *testing.T) {
			r, err := ParseRange(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, addr := range tc.in {
				if !r.Contains(netip.MustParseAddr(addr)) {
					t.Errorf("%s is not in %s", addr, r)
				}
			}
			for _, addr := range tc.out {
				if r.Contains(netip.MustParseAddr(addr)) {
					t.Errorf("%s is in %s", addr, r)
				}
			}
		})
	}
}

func TestParseRangeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                "",
		"a name":                 "all",
		"half a range":           "192.168.11.200-",
		"three ends":             "192.168.11.1-192.168.11.2-192.168.11.3",
		"a range that goes back": "192.168.11.220-192.168.11.200",
		"two families":           "192.168.11.200-fd00::1",
		"blanks":                 "192.168.11.200 - 192.168.11.220",
		"a short end":            "192.168.11.200-220",
		"host bits":              "192.168.11.1/24",
		"a long prefix":          "192.168.11.0/33",
		"no prefix":              "192.168.11.0/",
		"a zone":                 "fe80::1%eth0",
		"a mapped address":       "::ffff:192.168.11.1",
		"a mapped network":       "::ffff:192.168.11.0/120",
		"another spelling":       "fd00:0::1",
		"a range of networks":    "192.168.11.0/25-192.168.11.128/25",
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := ParseRange(text); err == nil {
				t.Errorf("ParseRange(%q) = %s, want an error", text, r)
			}
		})
	}
}

func TestZeroRangeContainsNothing(t *testing.T) {
	for _, addr := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if (Range{}).Contains(addr) || (Ranges{}).Contains(addr) {
			t.Errorf("the zero range contains %v", addr)
		}
	}
}

func TestCIDRContainsWhatItsPrefixContains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := drawAddr(t, "network")
		prefix := netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "bits")).Masked()
		r, err := ParseRange(prefix.String())
		if err != nil {
			t.Fatal(err)
		}
		other := drawAddr(t, "other")
		if r.Contains(other) != prefix.Contains(other) {
			t.Errorf("%s contains %s: %t, its prefix: %t", r, other, r.Contains(other), prefix.Contains(other))
		}
	})
}

// drawAddr draws addresses that are close to each other often enough.
func drawAddr(t *rapid.T, label string) netip.Addr {
	last := rapid.Uint16().Draw(t, label)
	if rapid.Bool().Draw(t, label+" is IPv6") {
		return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x11, 14: byte(last >> 8), 15: byte(last)})
	}
	return netip.AddrFrom4([4]byte{192, 168, byte(last >> 8), byte(last)})
}

func FuzzParseRange(f *testing.F) {
	for _, text := range []string{
		"192.168.11.200", "192.168.11.200-192.168.11.220", "192.168.11.0/24", "fd00:11::/120", "::/0", "0.0.0.0/0",
		"fd00::1-fd00::2", "-", "/", "1.2.3.4-", "::ffff:1.2.3.4/96", "fe80::1%eth0",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRange(text)
		if err != nil {
			return
		}
		if !r.Contains(r.first) || !r.Contains(r.last) {
			t.Errorf("%q does not contain its ends", text)
		}
		if !strings.Contains(text, "-") && !strings.Contains(text, "/") && r.String() != text {
			t.Errorf("address %q became %s", text, r)
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r {
			t.Errorf("%q is written %s and read back as %v, %v", text, r, again, err)
		}
	})
}

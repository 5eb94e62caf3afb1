package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
)

// Range is a run of addresses of one family, both ends included. The zero
// Range contains nothing.
type Range struct {
	first, last netip.Addr
}

// ParseRange reads what an allow entry of a DirectorPool holds: an address
// ("192.168.11.200"), two addresses with a hyphen between them
// ("192.168.11.200-192.168.11.220") or a CIDR ("192.168.11.0/24"). It is
// strict, because a range that is read as more than its author meant gives an
// address away: no zones, no IPv4-mapped addresses, no host bits behind a
// prefix, no range that runs backwards or from one family to the other.
func ParseRange(s string) (Range, error) {
	if strings.Contains(s, "/") {
		return parsePrefix(s)
	}
	from, to, isRun := strings.Cut(s, "-")
	first, err := parseAddr(from)
	if err != nil {
		return Range{}, err
	}
	if !isRun {
		return Range{first: first, last: first}, nil
	}
	last, err := parseAddr(to)
	switch {
	case err != nil:
		return Range{}, err
	case first.BitLen() != last.BitLen():
		return Range{}, fmt.Errorf("range %q has ends of different families", s)
	case last.Less(first):
		return Range{}, fmt.Errorf("range %q ends before it begins", s)
	}
	return Range{first: first, last: last}, nil
}

func parsePrefix(s string) (Range, error) {
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return Range{}, fmt.Errorf("range %q: %w", s, err)
	case prefix.Addr().Is4In6():
		return Range{}, fmt.Errorf("range %q is IPv4 in the clothes of IPv6", s)
	case prefix != prefix.Masked():
		return Range{}, fmt.Errorf("range %q has bits set behind its prefix: did you mean %s?", s, prefix.Masked())
	}
	last := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return Range{first: prefix.Addr(), last: end}, nil
}

// parseAddr reads an address in its canonical form only: two spellings of one
// address would be two claims of it.
func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("%q is no IP address", s)
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("address %q has a zone", s)
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("address %q is IPv4 in the clothes of IPv6: write %s", s, addr.Unmap())
	case addr.String() != s:
		return netip.Addr{}, fmt.Errorf("address %q is not in canonical form: write %s", s, addr)
	}
	return addr, nil
}

// Contains says whether the address lies in the range. An IPv4 address is
// never in an IPv6 range, nor the other way round.
func (r Range) Contains(addr netip.Addr) bool {
	return r.first.IsValid() && addr.IsValid() && addr.Zone() == "" &&
		addr.BitLen() == r.first.BitLen() &&
		r.first.Compare(addr) <= 0 && addr.Compare(r.last) <= 0
}

// String returns a form that ParseRange reads back: an address, or both ends.
func (r Range) String() string {
	if r.first == r.last {
		return r.first.String()
	}
	return r.first.String() + "-" + r.last.String()
}

// Ranges is a set of addresses.
type Ranges []Range

// Contains says whether the address lies in one of the ranges.
func (rs Ranges) Contains(addr netip.Addr) bool {
	return slices.ContainsFunc(rs, func(r Range) bool { return r.Contains(addr) })
}

// parseRanges reads those that can be read. One that can't be gives nothing
// away and takes nothing from the others.
func parseRanges(texts []v1alpha1.AddressRange) Ranges {
	ranges := make(Ranges, 0, len(texts))
	for _, text := range texts {
		if r, err := ParseRange(string(text)); err == nil {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// First returns the first address of the range; the zero Addr of the zero
// Range.
func (r Range) First() netip.Addr { return r.first }

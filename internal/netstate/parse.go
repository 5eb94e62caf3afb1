package netstate

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// UnmarshalText replaces the state by what text says. Empty lines and lines that
// begin with # mean nothing. Unknown words, and an entry that comes twice, are
// errors (ErrText) that name the line; the state is then left as it was.
func (s *State) UnmarshalText(text []byte) error {
	parsed := New()
	for i, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		r := wordReader{words: words[1:]}
		switch words[0] {
		case "guard":
			r.guard(parsed)
		case "address":
			r.addressEntry(parsed)
		case "service":
			r.service(parsed)
		case "destination":
			r.destination(parsed)
		default:
			r.fail("an unknown entry %q", words[0])
		}
		if len(r.words) > 0 {
			r.fail("too much: %q", r.words[0])
		}
		if r.err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrText, i+1, r.err)
		}
	}
	*s = parsed
	return nil
}

// wordReader takes words from the front and keeps the first error.
type wordReader struct {
	words []string
	err   error
}

func (r *wordReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// next takes a word; "" after the last.
func (r *wordReader) next() string {
	if len(r.words) == 0 {
		r.fail("something is missing at the end")
		return ""
	}
	word := r.words[0]
	r.words = r.words[1:]
	return word
}

// optional takes a word if it is the next one.
func (r *wordReader) optional(word string) bool {
	if len(r.words) == 0 || r.words[0] != word {
		return false
	}
	r.words = r.words[1:]
	return true
}

func (r *wordReader) address() netip.Addr {
	addr, err := netip.ParseAddr(r.next())
	if err != nil {
		r.fail("%w", err)
	}
	return addr
}

func (r *wordReader) addrPort() (netip.Addr, uint16) {
	ap, err := netip.ParseAddrPort(r.next())
	if err != nil {
		r.fail("%w", err)
	}
	return ap.Addr(), ap.Port()
}

func (r *wordReader) number(limit uint64) uint64 {
	word := r.next()
	n, err := strconv.ParseUint(word, 0, 64)
	if err != nil || n > limit {
		r.fail("%q is not a number up to %d", word, limit)
	}
	return n
}

// optionalNumber takes a name and a number, or nothing and returns usual.
func (r *wordReader) optionalNumber(name string, limit, usual uint64) uint64 {
	if !r.optional(name) {
		return usual
	}
	return r.number(limit)
}

// numbered reads one of names by its word, or "other-N" by its number.
func numbered[T ~uint8](r *wordReader, other string, names map[string]T) T {
	word := r.next()
	if v, ok := names[word]; ok {
		return v
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(word, other+"-"), 10, 8)
	if err != nil || !strings.HasPrefix(word, other+"-") {
		r.fail("an unknown %s %q", other, word)
	}
	return T(n)
}

func (r *wordReader) protocol() Protocol {
	return numbered(r, "protocol", map[string]Protocol{"TCP": TCP, "UDP": UDP, "SCTP": SCTP})
}

func (r *wordReader) serviceKey() ServiceKey {
	if r.optional("fwmark") {
		mark := uint32(r.number(math.MaxUint32))
		if mark == 0 {
			r.fail("fwmark 0 is none")
		}
		return ServiceKey{Key: Key{Mark: mark}}
	}
	k := ServiceKey{Marked: r.optional("marked")}
	k.Protocol = r.protocol()
	k.Key.Addr, k.Port = r.addrPort()
	return k
}

func (r *wordReader) guard(s State) {
	if len(r.words) == 1 {
		put(r, s.Guard, GuardKey{VIP: r.address()}, Present{})
		return
	}
	k := GuardKey{Marked: r.optional("marked"), Protocol: r.protocol()}
	k.VIP, k.Port = r.addrPort()
	if !k.isService() {
		r.fail("a service without protocol and port")
	}
	put(r, s.Guard, k, Present{})
}

func (r *wordReader) addressEntry(s State) {
	k, v := AddressKey{Addr: r.address()}, Address{}
	if !r.optional("dev") {
		r.fail("dev is missing")
	}
	k.Link = r.next()
	if r.optional("src") {
		v.Source = r.address()
	}
	put(r, s.Addresses, k, v)
}

func (r *wordReader) service(s State) {
	k := r.serviceKey()
	v := Service{Scheduler: r.next()}
	v.Flags = SchedulerFlags(r.optionalNumber("flags", math.MaxUint32, 0))
	v.OnePacket = r.optional("one-packet")
	const longest = math.MaxInt64 / uint64(time.Second)
	v.Persistence = time.Duration(r.optionalNumber("persistence", longest, 0)) * time.Second
	v.PersistencePrefix = uint8(r.optionalNumber("prefix", math.MaxUint8, uint64(usualPrefix(k))))
	put(r, s.Services, k, v)
}

func (r *wordReader) destination(s State) {
	k := DestinationKey{Service: r.serviceKey()}
	k.Addr, k.Port = r.addrPort()
	v := Destination{Method: numbered(r, "method", map[string]Method{"DR": DR, "TUN": TUN, "NAT": NAT})}
	if !r.optional("weight") {
		r.fail("weight is missing")
	}
	v.Weight = uint32(r.number(math.MaxUint32))
	v.LastWeight = uint32(r.optionalNumber("last", math.MaxUint32, 0))
	v.Upper = uint32(r.optionalNumber("upper", math.MaxUint32, 0))
	v.Lower = uint32(r.optionalNumber("lower", math.MaxUint32, 0))
	put(r, s.Destinations, k, v)
}

func put[K entry, V any](r *wordReader, entries map[K]V, k K, v V) {
	if r.err != nil {
		return
	}
	if _, twice := entries[k]; twice {
		r.fail("%s comes twice", k)
	}
	entries[k] = v
}

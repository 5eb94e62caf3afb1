package netstate

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrText means that a state can't be written as text or that a text is none.
var ErrText = errors.New("not a state's text form")

// MarshalText writes the state one entry a line, in canonical order, much as
// `ipvsadm -Sn` does and with the guard and the addresses besides:
//
//	guard 192.0.2.1
//	guard TCP 192.0.2.1:80
//	address 192.0.2.1 dev dummy-lvs src 10.0.0.2
//	service TCP 192.0.2.1:80 wrr persistence 300 prefix 24
//	destination TCP 192.0.2.1:80 10.0.0.7:80 DR weight 1
//	guard marked TCP 192.0.2.1:443
//	service marked TCP 192.0.2.1:443 wrr
//
// What has its usual value is left out. Equal states have equal texts. It is an
// error (ErrText) if a name has white space in it or is empty, an address is
// missing, or a persistence is not in whole seconds.
func (s State) MarshalText() ([]byte, error) {
	var w textWriter
	for _, k := range slices.SortedFunc(maps.Keys(s.Guard), compareGuard) {
		w.address(k.VIP)
		if k.Marked && !k.isService() {
			w.fail("%s is marked and no service", k)
		}
		w.line(k.String())
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Addresses), compareAddresses) {
		w.addressEntry(k, s.Addresses[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Services), compareServices) {
		w.service(k, s.Services[k])
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Destinations), compareDestinations) {
		w.destination(k, s.Destinations[k])
	}
	return w.text.Bytes(), w.err
}

// textWriter keeps the first error.
type textWriter struct {
	text bytes.Buffer
	err  error
}

func (w *textWriter) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: "+format, append([]any{ErrText}, args...)...)
	}
}

func (w *textWriter) line(words ...string) {
	w.text.WriteString(strings.Join(words, " "))
	w.text.WriteByte('\n')
}

func (w *textWriter) word(what, s string) {
	if s == "" || strings.ContainsFunc(s, unicode.IsSpace) {
		w.fail("%s %q is not one word", what, s)
	}
}

func (w *textWriter) address(a netip.Addr) {
	if !a.IsValid() {
		w.fail("an address is missing")
	}
	w.word("address", a.String())
}

// serviceKey checks that exactly one of address and mark names the service.
func (w *textWriter) serviceKey(k ServiceKey) {
	if k.Key.Mark == 0 {
		w.address(k.Key.Addr)
	} else if k.Key.Addr.IsValid() || k.Protocol != 0 || k.Port != 0 || k.Marked {
		w.fail("service %s has a mark and more", k.Key)
	}
}

func (w *textWriter) addressEntry(k AddressKey, v Address) {
	w.address(k.Addr)
	w.word("link", k.Link)
	words := []string{k.String()}
	if v.Source.IsValid() {
		w.word("source", v.Source.String())
		words = append(words, "src", v.Source.String())
	}
	w.line(words...)
}

func (w *textWriter) service(k ServiceKey, v Service) {
	w.serviceKey(k)
	w.word("scheduler", v.Scheduler)
	words := []string{k.String(), v.Scheduler}
	if v.Flags != 0 {
		words = append(words, "flags", fmt.Sprintf("%#x", uint32(v.Flags)))
	}
	if v.OnePacket {
		words = append(words, "one-packet")
	}
	if v.Persistence%time.Second != 0 {
		w.fail("persistence %s of %s is not in whole seconds", v.Persistence, k)
	}
	if v.Persistence != 0 {
		words = append(words, "persistence", strconv.FormatInt(int64(v.Persistence/time.Second), 10))
	}
	if v.PersistencePrefix != usualPrefix(k) {
		words = append(words, "prefix", strconv.Itoa(int(v.PersistencePrefix)))
	}
	w.line(words...)
}

// usualPrefix is the whole of an address.
func usualPrefix(k ServiceKey) uint8 {
	if k.Key.Addr.Is6() {
		return 128
	}
	return 32
}

func (w *textWriter) destination(k DestinationKey, v Destination) {
	w.serviceKey(k.Service)
	w.address(k.Addr)
	words := []string{
		k.String(), strings.ReplaceAll(v.Method.String(), " ", "-"),
		"weight", strconv.FormatUint(uint64(v.Weight), 10),
	}
	if v.LastWeight != 0 {
		words = append(words, "last", strconv.FormatUint(uint64(v.LastWeight), 10))
	}
	if v.Upper != 0 {
		words = append(words, "upper", strconv.FormatUint(uint64(v.Upper), 10))
	}
	if v.Lower != 0 {
		words = append(words, "lower", strconv.FormatUint(uint64(v.Lower), 10))
	}
	w.line(words...)
}

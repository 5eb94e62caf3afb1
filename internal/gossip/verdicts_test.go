package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

var addr = cmpopts.EquateComparable(netip.Addr{})

// web is the service on port 80 of the i-th VIP.
func web(i int) Service {
	vip := [4]byte{10}
	binary.BigEndian.PutUint16(vip[2:], uint16(i))
	return Service{VIP: netip.AddrFrom4(vip), Protocol: 6, Port: 80}
}

func verdictsExample() verdictsMessage {
	return verdictsMessage{
		Node: "lb-1", Started: 1764300000000000000, Number: 12, Verdicts: []Verdicts{
			{Service: web(1), Servers: 300, Down: "\x05"},
			{Service: Service{VIP: netip.MustParseAddr("fd00::1"), Protocol: 132, Port: 5060, Marked: true}},
		},
	}
}

// verdictsOne is what the first version that tells verdicts sends. It has to be
// readable for ever.
const verdictsOne = "\x08\x02\x12\x04lb-1\x20\x80\x80\xe3\xc9\x89\xb0\x83\xbe\x18\x28\x0c\x58\x01" +
	"b\x10\n\x04\n\x00\x00\x01\x10\x06\x18\x50\x28\xac\x02\x32\x01\x05" +
	"b\x1a\n\x10\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x10\x84\x01\x18\xc4\x27\x20\x01"

func TestTheFirstVerdictsAreReadAndWritten(t *testing.T) {
	got, err := decodeVerdicts([]byte(verdictsOne))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(verdictsExample(), got, addr); diff != "" {
		t.Errorf("decodeVerdicts() (-want +got):\n%s", diff)
	}
	encoded, err := encodeVerdicts(verdictsExample())
	if err != nil || len(encoded) != 1 || string(encoded[0]) != verdictsOne {
		t.Errorf("encodeVerdicts() = %q, %v", encoded, err)
	}
}

func anyVerdicts() *rapid.Generator[[]Verdicts] {
	one := rapid.Custom(func(t *rapid.T) Verdicts {
		vip := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "IPv4")))
		if rapid.Bool().Draw(t, "six") {
			vip = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "IPv6")))
		}
		down := rapid.SliceOfN(rapid.Byte(), 0, MaxServers/8).Draw(t, "down")
		return Verdicts{
			Service: Service{vip, rapid.Uint8Min(1).Draw(t, "protocol"), rapid.Uint16().Draw(t, "port"), rapid.Bool().Draw(t, "marked")},
			Servers: rapid.Uint64().Draw(t, "servers"), Down: strings.TrimRight(string(down), "\x00"),
		}
	})
	return rapid.SliceOfN(one, 0, 40)
}

func TestVerdictsAreSaidInAsManyPacketsAsItTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := verdictsMessage{Node: strings.Repeat("n", maxName), Started: 1, Number: 7, Verdicts: anyVerdicts().Draw(t, "verdicts")}
		messages, err := encodeVerdicts(want)
		if err != nil {
			t.Fatal(err)
		}
		var got []Verdicts
		for i, encoded := range messages {
			if about, err := kindOf(encoded); err != nil || about != kindVerdicts {
				t.Fatalf("kindOf() = %d, %v", about, err)
			}
			m, err := decodeVerdicts(encoded)
			if err != nil {
				t.Fatalf("of %d bytes: %v", len(encoded), err)
			}
			if m.Number != want.Number+uint64(i) || m.Node != want.Node || m.Started != want.Started {
				t.Fatalf("message %d is %d of %s", i, m.Number, m.Node)
			}
			got = append(got, m.Verdicts...)
		}
		if diff := cmp.Diff(want.Verdicts, got, addr, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("decodeVerdicts() (-want +got):\n%s", diff)
		}
		for _, v := range want.Verdicts {
			if len(v.encode())+3 > v.size() {
				t.Fatalf("it takes %d bytes, and is said to take %d", len(v.encode()), v.size())
			}
		}
	})
}

func TestWhatIsNoStateIsNotTakenForOne(t *testing.T) {
	if m, err := decode([]byte(verdictsOne)); err == nil {
		t.Errorf("decode() = %+v", m)
	}
	if about, err := kindOf([]byte(versionOne)); err != nil || about != kindState {
		t.Errorf("kindOf() = %d, %v", about, err)
	}
}

func TestVerdictsOfALaterVersionAreUnderstood(t *testing.T) {
	later := protowire.AppendFixed64(protowire.AppendTag([]byte(verdictsOne), 100, protowire.Fixed64Type), 1)
	got, err := decodeVerdicts(later)
	if diff := cmp.Diff(verdictsExample(), got, addr); err != nil || diff != "" {
		t.Errorf("decodeVerdicts() = %v (-want +got):\n%s", err, diff)
	}
	if _, err := decodeVerdicts(append([]byte{0x08, needs + 1}, verdictsOne[2:]...)); !errors.Is(err, errNewer) {
		t.Errorf("decodeVerdicts() = %v, want errNewer", err)
	}
}

func TestVerdictsThatNoDirectorSaysAreRefused(t *testing.T) {
	for name, change := range map[string]func(*verdictsMessage){
		"no node":           func(m *verdictsMessage) { m.Node = "" },
		"no number":         func(m *verdictsMessage) { m.Number = 0 },
		"no VIP":            func(m *verdictsMessage) { m.Verdicts[0].Service.VIP = netip.Addr{} },
		"a zone":            func(m *verdictsMessage) { m.Verdicts[0].Service.VIP = netip.MustParseAddr("fe80::1%eth0") },
		"no protocol":       func(m *verdictsMessage) { m.Verdicts[0].Service.Protocol = 0 },
		"zeros at the end":  func(m *verdictsMessage) { m.Verdicts[0].Down = "\x01\x00" },
		"too many servers":  func(m *verdictsMessage) { m.Verdicts[0].Down = strings.Repeat("a", MaxServers/8+1) },
		"a name that is no": func(m *verdictsMessage) { m.Node = "\xff" },
	} {
		m := verdictsExample()
		change(&m)
		if messages, err := encodeVerdicts(m); err == nil {
			t.Errorf("%s: it is said: %q", name, messages)
		}
	}
	for name, buf := range map[string]string{
		"half a message":      verdictsOne[:len(verdictsOne)-1],
		"an address of 5":     strings.Replace(verdictsOne, "\n\x04\n\x00\x00\x01\x10\x06", "\n\x05\n\x00\x00\x01\x10\x10", 1),
		"zeros at the end":    strings.Replace(verdictsOne, "\x32\x01\x05", "\x32\x01\x00", 1),
		"a service of number": strings.Replace(verdictsOne, "\x58\x01", "\x58\x01\x60\x01", 1),
		"more than a packet":  verdictsOne + string(protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), strings.Repeat("a", maxBytes))),
	} {
		if m, err := decodeVerdicts([]byte(buf)); err == nil {
			t.Errorf("%s: decodeVerdicts() = %+v", name, m)
		}
	}
}

func FuzzDecodeVerdicts(f *testing.F) {
	f.Add([]byte(verdictsOne))
	f.Add([]byte(versionOne))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, buf []byte) {
		_, _ = kindOf(buf)
		m, err := decodeVerdicts(buf)
		if err != nil || len(m.Verdicts) == 0 {
			return
		}
		messages, err := encodeVerdicts(m)
		if err != nil {
			t.Fatalf("what was read cannot be said: %v", err)
		}
		var again []Verdicts
		for _, message := range messages {
			part, err := decodeVerdicts(message)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, part.Verdicts...)
		}
		if !slices.Equal(m.Verdicts, again) {
			t.Errorf("%+v became %+v", m.Verdicts, again)
		}
	})
}

func TestVerdictsAreSaidAtOnceWhenTheyChangeAndInRounds(t *testing.T) {
	now := time.Unix(1000, 0)
	var r recital
	said := func() []Verdicts { now = now.Add(beatActive); return r.due(now) }
	up, down := Verdicts{Service: web(1)}, Verdicts{Service: web(1), Down: "\x01"}
	other := Verdicts{Service: web(2)}
	if !r.set([]Verdicts{other, up}) || r.set([]Verdicts{up, other}) {
		t.Error("it is not news the first time, or it is the second")
	}
	want := func(when string, want ...Verdicts) {
		t.Helper()
		if got := said(); !slices.Equal(want, got) {
			t.Errorf("%s: %v is said, want %v", when, got, want)
		}
	}
	want("at first", up, other, up, other) // as news, and in the round
	want("at first, again", up, other)
	want("at first, a third time", up, other)
	want("when all is said")
	if !r.set([]Verdicts{down, other}) {
		t.Error("a server that is down is no news")
	}
	for range repeats + 1 {
		want("after a change", down)
	}
	want("and then")
	now = now.Add(roundEvery)
	want("in the next round", down, other)
	want("after it")
	r.again()
	want("when somebody came", down, other)
	r.set(nil)
	now = now.Add(time.Minute)
	want("when there is nothing more to say")
}

func TestARoundIsSpreadOverBeats(t *testing.T) {
	var r recital
	var list []Verdicts
	for i := range MaxServices + 10 {
		list = append(list, Verdicts{Service: web(i), Servers: uint64(i + 1), Down: strings.Repeat("a", 32)})
	}
	r.set(list)
	now := time.Unix(1000, 0)
	times, beats := map[Service]int{}, 0
	for ; beats < 200; beats++ {
		now = now.Add(time.Millisecond)
		say, size := r.due(now), 0
		for _, v := range say {
			times[v.Service]++
			size += len(v.encode())
		}
		if size > beatBytes {
			t.Fatalf("%d bytes are said in one beat", size)
		}
		if len(say) == 0 {
			break
		}
	}
	if len(times) != MaxServices || beats < 10 {
		t.Fatalf("%d services were told of in %d beats", len(times), beats)
	}
	for service, n := range times {
		if n != repeats+2 {
			t.Errorf("%v was told of %d times", service, n)
		}
	}
}

func TestTheNewestVerdictCounts(t *testing.T) {
	b := newBook("lb-9")
	now := time.Unix(1000, 0)
	say := func(started int64, number uint64, down string) bool {
		return b.takeVerdicts(verdictsMessage{
			Node: "lb-1", Started: started, Number: number, Verdicts: []Verdicts{{Service: web(1), Down: down}},
		}, now)
	}
	want := func(when, want string, there bool) {
		t.Helper()
		got, heard := b.verdicts("lb-1", now)[web(1)]
		if got.Down != want || heard != there {
			t.Errorf("%s: %q, %t, want %q", when, got.Down, heard, want)
		}
	}
	want("before anything", "", false)
	if !say(5, 2, "\x01") || say(5, 3, "\x01") {
		t.Error("news are none, or none are news")
	}
	want("heard", "\x01", true)
	say(5, 1, "\x02")
	want("late", "\x01", true)
	say(4, 9, "\x03")
	want("of an earlier process", "\x01", true)
	say(6, 1, "\x04")
	want("of a later process", "\x04", true)
	now = now.Add(olderAfter)
	say(5, 1, "\x05")
	want("when its clock was set back", "\x05", true)
	now = now.Add(VerdictsLast)
	want("in time", "\x05", true)
	now = now.Add(time.Nanosecond)
	want("too late", "", false)
	if !say(5, 1, "\x05") {
		t.Error("what was forgotten is no news")
	}
	if b.takeVerdicts(verdictsMessage{Node: "lb-9", Verdicts: []Verdicts{{Service: web(1)}}}, now) || b.verdicts("lb-9", now) != nil {
		t.Error("it listens to itself")
	}
}

func TestNoMemberIsRememberedByMoreThanSoManyServices(t *testing.T) {
	b := newBook("lb-9")
	now := time.Unix(1000, 0)
	say := func(from int) {
		m := verdictsMessage{Node: "lb-1", Started: 1, Number: 1}
		for i := range MaxServices {
			m.Verdicts = append(m.Verdicts, Verdicts{Service: web(from + i)})
		}
		b.takeVerdicts(m, now)
	}
	say(0)
	say(5000)
	if n := len(b.verdicts("lb-1", now)); n != MaxServices {
		t.Errorf("it remembers %d services", n)
	}
	now = now.Add(VerdictsLast + 1)
	say(5000)
	if _, there := b.verdicts("lb-1", now)[web(5000)]; !there {
		t.Error("what is too old keeps what is new out")
	}
}

func TestAllHearTheVerdictsOfOne(t *testing.T) {
	s := newSegment(t)
	first, second := s.start(1, 3, nil), s.start(2, 3, nil)
	var list []Verdicts
	for i := range 100 {
		list = append(list, Verdicts{Service: web(i), Servers: uint64(i), Down: strings.Repeat("\x01", i%8)})
	}
	first.TellVerdicts(list)
	heard := func(d *director, want []Verdicts) func(View) bool {
		return func(View) bool {
			got := d.Verdicts("lb-1")
			for _, v := range want {
				if got[v.Service].Verdicts != v {
					return false
				}
			}
			return len(got) == len(want)
		}
	}
	second.await("it heard of all services", heard(second, list))
	changed := slices.Clone(list)
	changed[7].Down = "\x10"
	first.TellVerdicts(changed)
	second.await("it heard of the change", heard(second, changed))
	third := s.start(3, 3, nil)
	third.await("one that joins heard of all services", heard(third, changed))
	if second.faults()+third.faults() != 0 {
		t.Error("something went wrong")
	}
}

func TestAKindThatNobodyKnowsIsPassedOver(t *testing.T) {
	s := newSegment(t)
	var refused bool
	d := s.start(1, 1, func(c *Config) { c.Count = func(e Event) { refused = refused || e == Refused } })
	d.read(number(number(nil, fieldNeeds, 9), fieldKind, 77), true)
	if refused {
		t.Error("it is refused")
	}
	d.read([]byte{0xff}, true)
	if !refused {
		t.Error("garbage is not")
	}
}

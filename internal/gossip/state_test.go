package gossip

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

func example() message {
	return message{
		State: State{
			Node: "lb-1", Instance: "0b9f", MAC: "02:00:00:00:00:0b", Candidate: true, Cordoned: true, APIReachable: true, Priority: -3,
			Claims: []Claim{{Group: 0, Epoch: 7, Confirmed: true}, {Group: 31, Epoch: 1 << 40, Yielding: true}},
		},
		Started: 1764300000000000000, Number: 12, Every: beatActive,
	}
}

// versionOne is what the first version sends. It has to be readable for ever:
// directors are updated one after the other.
const versionOne = "\x08\x01\x12\x04lb-1\x1a\x040b9f\x20\x80\x80\xe3\xc9\x89\xb0\x83\xbe\x18\x28\x0c\x30\x32\x38\x15\x40\x05" +
	"J\x1102:00:00:00:00:0bR\x04\x10\x07\x18\x01R\x0b\x08\x1f\x10\x80\x80\x80\x80\x80\x20\x18\x02"

func TestTheFirstVersionIsReadAndWritten(t *testing.T) {
	got, err := decode([]byte(versionOne))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got); diff != "" {
		t.Errorf("decode() (-want +got):\n%s", diff)
	}
	encoded, err := encode(example())
	if err != nil || string(encoded) != versionOne {
		t.Errorf("encode() = %q, %v", encoded, err)
	}
}

func messages() *rapid.Generator[message] {
	name := rapid.StringMatching(`[a-z0-9.-]{1,253}`)
	return rapid.Custom(func(t *rapid.T) message {
		m := message{
			State: State{
				Node: name.Draw(t, "node"), Instance: name.Draw(t, "instance"), MAC: rapid.SampledFrom([]string{"", "02:00:00:00:00:0b"}).Draw(t, "mac"),
				Candidate: rapid.Bool().Draw(t, "candidate"), Impaired: rapid.Bool().Draw(t, "impaired"),
				Cordoned: rapid.Bool().Draw(t, "cordoned"), Cold: rapid.Bool().Draw(t, "cold"),
				APIReachable: rapid.Bool().Draw(t, "api"), Priority: rapid.Int32().Draw(t, "priority"),
			},
			Started: rapid.Int64Min(1).Draw(t, "started"), Number: rapid.Uint64Min(1).Draw(t, "number"),
			Every: time.Duration(rapid.IntRange(1, 5000).Draw(t, "every")) * time.Millisecond, Leaving: rapid.Bool().Draw(t, "leaving"),
		}
		for group := range MaxGroups {
			if rapid.Bool().Draw(t, "claims") {
				m.Claims = append(m.Claims, Claim{
					Group: group, Epoch: rapid.Int64Min(0).Draw(t, "epoch"),
					Confirmed: rapid.Bool().Draw(t, "confirmed"), Yielding: rapid.Bool().Draw(t, "yielding"),
				})
			}
		}
		if rapid.Bool().Draw(t, "says of directors") {
			m.Directors = []MAC{}
			for range rapid.IntRange(0, MaxDirectors).Draw(t, "directors") {
				m.Directors = append(m.Directors, MAC{2, 0, 0, rapid.Byte().Draw(t, "mac"), 0, byte(len(m.Directors))})
			}
			slices.SortFunc(m.Directors, MAC.compare)
		}
		return m
	})
}

func TestTheLongestStateFitsIntoAPacket(t *testing.T) {
	m := message{
		State: State{
			Node: strings.Repeat("n", maxName), Instance: strings.Repeat("i", maxName), MAC: strings.Repeat("0", maxMAC),
			Candidate: true, Impaired: true, Cordoned: true, Cold: true, APIReachable: true, Priority: math.MinInt32,
		},
		Started: math.MaxInt64, Number: math.MaxUint64, Every: maxEvery, Leaving: true,
	}
	for group := range MaxGroups {
		m.Claims = append(m.Claims, Claim{Group: group, Epoch: math.MaxInt64, Confirmed: true, Yielding: true})
	}
	for i := range MaxDirectors {
		m.Directors = append(m.Directors, MAC{byte(i)})
	}
	encoded, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decode(encoded); err != nil {
		t.Errorf("of %d bytes: %v", len(encoded), err)
	}
}

func TestWhatIsSaidIsHeardAndFitsIntoAPacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := messages().Draw(t, "message")
		encoded, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("decode() (-want +got):\n%s", diff)
		}
		if !got.equal(want.State) {
			t.Fatal("it is not equal to itself")
		}
		// A label and what encryption adds take less than 110 bytes.
		if len(encoded) > packetSize-110 {
			t.Fatalf("it takes %d bytes", len(encoded))
		}
	})
}

func TestADirectorOfALaterVersionIsUnderstood(t *testing.T) {
	encoded, _ := encode(example())
	later := protowire.AppendString(protowire.AppendTag(encoded, 99, protowire.BytesType), "what nobody knows yet")
	later = protowire.AppendFixed64(protowire.AppendTag(later, 100, protowire.Fixed64Type), 1)
	inner := protowire.AppendVarint(protowire.AppendTag([]byte{0x08, 0x1f}, 50, protowire.VarintType), 5)
	later = bytes.Replace(later, []byte("R\x0b\x08\x1f"), append([]byte{'R', byte(0x0b + len(inner) - 2)}, inner...), 1)
	later = bytes.Replace(later, []byte("\x38\x15"), []byte("\x38\x95\x08"), 1) // a flag more
	got, err := decode(later)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(example(), got); diff != "" {
		t.Errorf("decode() (-want +got):\n%s", diff)
	}
	// One that cannot be understood says so.
	if _, err := decode(append([]byte{0x08, needs + 1}, encoded[2:]...)); !errors.Is(err, errNewer) {
		t.Errorf("decode() = %v, want errNewer", err)
	}
}

func TestWhatNoDirectorSaysIsRefused(t *testing.T) {
	encoded, _ := encode(example())
	for name, buf := range map[string][]byte{
		"nothing":                   nil,
		"garbage":                   []byte("GET / HTTP/1.1\r\n\r\n"),
		"half a message":            encoded[:len(encoded)/2],
		"a field twice":             append(bytes.Clone(encoded), 0x08, 0x01),
		"a name that is a number":   append([]byte{0x10, 0x01}, encoded[8:]...),
		"no name":                   append([]byte{0x12, 0x00}, encoded[8:]...),
		"a name that is no text":    bytes.Replace(encoded, []byte("lb-1"), []byte("lb-\xff"), 1),
		"a group that is too high":  bytes.Replace(encoded, []byte("\x08\x1f"), []byte("\x08\x20"), 1),
		"a group twice":             append(bytes.Clone(encoded), "R\x02\x08\x1f"...),
		"an epoch below 0":          append(bytes.Clone(encoded[:len(encoded)-13]), "R\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"...),
		"half a MAC address":        append(bytes.Clone(encoded), "j\x03abc"...),
		"no number":                 bytes.Replace(encoded, []byte("\x28\x0c"), []byte("\x28\x00"), 1),
		"its next one after a year": bytes.Replace(encoded, []byte("\x30\x32"), []byte("\x30\xff\xff\xff\x7f"), 1),
		"more than a packet":        protowire.AppendString(protowire.AppendTag(bytes.Clone(encoded), 99, protowire.BytesType), strings.Repeat("a", maxBytes)),
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := decode(buf); err == nil {
				t.Errorf("decode() = %+v, want an error", m)
			}
		})
	}
	for name, change := range map[string]func(*message){
		"no instance":            func(m *message) { m.Instance = "" },
		"claims out of order":    func(m *message) { m.Claims[0].Group = 31 },
		"an epoch below 0":       func(m *message) { m.Claims[0].Epoch = -1 },
		"directors out of order": func(m *message) { m.Directors = []MAC{{2}, {1}} },
		"a director twice":       func(m *message) { m.Directors = []MAC{{2}, {2}} },
		"too many directors":     func(m *message) { m.Directors = make([]MAC, MaxDirectors+1) },
		"a long MAC":             func(m *message) { m.MAC = strings.Repeat("0", maxMAC+1) },
	} {
		m := example()
		if change(&m); m.validate() == nil {
			t.Errorf("%s: it is let through", name)
		} else if _, err := encode(m); err == nil {
			t.Errorf("%s: it is sent", name)
		}
	}
}

func TestABundleIsReadUpToWhatIsBroken(t *testing.T) {
	want := [][]byte{[]byte("one"), {}, []byte("three")}
	buf := bundle(want)
	if got := unbundle(buf); !cmp.Equal(want, got) {
		t.Errorf("unbundle() = %q", got)
	}
	if got := unbundle(buf[:len(buf)-1]); !cmp.Equal(want[:2], got) {
		t.Errorf("unbundle() of a part = %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(versionOne))
	f.Add([]byte("\x08\x02"))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, buf []byte) {
		m, err := decode(buf)
		if err != nil {
			return
		}
		encoded, err := encode(m)
		if err != nil {
			t.Fatalf("what was read cannot be said: %v", err)
		}
		again, err := decode(encoded)
		if err != nil || !cmp.Equal(m, again) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
		unbundle(buf)
	})
}

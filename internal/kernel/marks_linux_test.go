package kernel

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func markedPort(port uint16) netstate.ServiceKey {
	return netstate.ServiceKey{
		Key: netstate.Key{Addr: netip.MustParseAddr("192.0.2.1")}, Protocol: netstate.TCP, Port: port, Marked: true,
	}
}

// TestMarksAreApart has so many services that some have the same hash.
func TestMarksAreApart(t *testing.T) {
	var m marks
	seen := map[uint32]netstate.ServiceKey{}
	moved := 0
	for port := range uint16(20000) {
		k := markedPort(port + 1)
		mark := m.get(k)
		if other, again := seen[mark]; again || !isOurs(mark) {
			t.Fatalf("%s has mark %#x, as %s has", k, mark, other)
		}
		if seen[mark] = k; mark != firstMark(k) {
			moved++
		}
	}
	if moved == 0 {
		t.Error("no two services have the same hash: the test shows nothing")
	}
	for mark, k := range seen {
		if got := m.get(k); got != mark {
			t.Fatalf("%s has mark %#x, and then %#x", k, mark, got)
		}
		if got, owned := m.service(mark); !owned || got != k {
			t.Fatalf("mark %#x is of %s, want %s", mark, got, k)
		}
	}
}

// TestMarksFollowAModel gives out, learns and forgets marks in any order.
func TestMarksFollowAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m marks
		model := map[netstate.ServiceKey]uint32{}
		taken := func(mark uint32) bool {
			for _, other := range model {
				if other == mark {
					return true
				}
			}
			return false
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			k := markedPort(uint16(rapid.IntRange(1, 4).Draw(t, "port")))
			known, there := model[k]
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				got := m.get(k)
				if there && got != known || !there && taken(got) || !isOurs(got) {
					t.Fatalf("%s has mark %#x; known are %#x", k, got, model)
				}
				model[k] = got
			case 1:
				mark := rapid.SampledFrom([]uint32{7, markPrefix | 1, markPrefix | 2, firstMark(markedPort(1))}).Draw(t, "mark")
				m.learn(k, mark)
				if !there && !taken(mark) && isOurs(mark) {
					model[k] = mark
				}
			case 2:
				m.forget(k)
				delete(model, k)
			}
			for k, mark := range model {
				if got, owned := m.service(mark); !owned || got != k {
					t.Fatalf("mark %#x is of %s (%t), want %s", mark, got, owned, k)
				}
			}
		}
	})
}

func TestAMarkIsOneThatEveryDirectorGives(t *testing.T) {
	// What directors of different versions have to agree on.
	for want, k := range map[uint32]netstate.ServiceKey{
		0x4c795ea3: markedPort(80),
		0x4cd46db7: {
			Key: netstate.Key{Addr: netip.MustParseAddr("2001:db8::1")}, Protocol: netstate.UDP, Port: 53, Marked: true,
		},
	} {
		if got := firstMark(k); got != want {
			t.Errorf("%s has mark %#x, want %#x", k, got, want)
		}
	}
}

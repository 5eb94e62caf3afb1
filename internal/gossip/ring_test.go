package gossip

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"

	"github.com/lvs-operator/lvs-operator/internal/gossip/keylist"
)

// key is a key of one byte repeated.
func key(b byte) []byte { return bytes.Repeat([]byte{b}, keylist.KeySize) }

func keyList(letters string) [][]byte {
	var list [][]byte
	for _, b := range []byte(letters) {
		list = append(list, key(b))
	}
	return list
}

func letters(list [][]byte) string {
	var text []byte
	for _, key := range list {
		text = append(text, key[0])
	}
	return string(text)
}

func TestNewKeysComeIntoUseStepByStep(t *testing.T) {
	r := newRing(keyList("a"))
	expect := func(d time.Duration, want string) {
		t.Helper()
		if got := letters(r.at(after(d), time.Second)); got != want {
			t.Errorf("after %s: %q, want %q", d, got, want)
		}
	}
	expect(0, "a")
	r.set(keyList("ba"), after(0), time.Second)
	expect(0, "ab")
	expect(time.Second, "ba")
	r.set(keyList("ba"), after(3*time.Second), time.Second) // the same
	expect(3*time.Second, "ba")
	r.set(keyList("c"), after(4*time.Second), time.Second)
	expect(4*time.Second, "bca")
	expect(5*time.Second, "cba")
	expect(6*time.Second, "c")
	// Another change before the last has come into use.
	r.set(keyList("d"), after(7*time.Second), time.Second)
	r.set(keyList("e"), after(7*time.Second), time.Second)
	expect(7*time.Second, "ced")
	expect(8*time.Second, "ecd")
	expect(9*time.Second, "e")
}

// TestTwoDirectorsUnderstandEachOther exchanges keys any number of times, with
// each director hearing of it within the grace.
func TestTwoDirectorsUnderstandEachOther(t *testing.T) {
	const grace = 10
	rapid.Check(t, func(t *rapid.T) {
		rings := [2]ring{newRing(keyList("a")), newRing(keyList("a"))}
		now := 0
		for range rapid.IntRange(1, 4).Draw(t, "exchanges") {
			next := keyList(string(rapid.SliceOfNDistinct(rapid.ByteRange('a', 'f'), 1, 3, rapid.ID).Draw(t, "keys")))
			late := rapid.IntRange(0, grace-1).Draw(t, "late")
			for step := range 3 * grace {
				for i := range rings {
					if step == late*i {
						rings[i].set(next, after(time.Duration(now)), grace)
					}
				}
				a, b := rings[0].at(after(time.Duration(now)), grace), rings[1].at(after(time.Duration(now)), grace)
				for _, pair := range [][2][][]byte{{a, b}, {b, a}} {
					if !slices.ContainsFunc(pair[1], func(k []byte) bool { return bytes.Equal(k, pair[0][0]) }) {
						t.Fatalf("%q is spoken and only %q understood", letters(pair[0][:1]), letters(pair[1]))
					}
				}
				now++
			}
			if got := letters(rings[0].at(after(time.Duration(now)), grace)); got != letters(next) {
				t.Fatalf("in the end there is %q, want %q", got, letters(next))
			}
		}
	})
}

func TestAKeyringHoldsWhatIsInstalled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring, err := memberlist.NewKeyring(nil, key('a'))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			want := keyList(string(rapid.SliceOfNDistinct(rapid.ByteRange('a', 'f'), 1, 5, rapid.ID).Draw(t, "keys")))
			held, copied := ring.GetKeys(), letters(ring.GetKeys())
			if err := install(ring, want); err != nil {
				t.Fatal(err)
			}
			if got := letters(ring.GetKeys()); got != letters(want) {
				t.Fatalf("it holds %q, want %q", got, letters(want))
			}
			if letters(held) != copied {
				t.Fatalf("who read %q reads %q now", copied, letters(held))
			}
		}
	})
}

package director

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/announce"
)

// village is a segment on which everybody answers, once it can be asked.
type village struct {
	segment

	mu     sync.Mutex
	deaf   bool
	probes int
}

func (v *village) Probe(_ context.Context, targets []netip.Addr) (announce.Probed, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.probes++
	if v.deaf {
		return announce.Probed{}, announce.ErrSilent
	}
	found := announce.Probed{Answers: map[netip.Addr][]announce.MAC{}}
	for _, addr := range targets {
		found.Answers[addr] = []announce.MAC{{2, 0, 0, 0, 0, 1}}
	}
	return found, nil
}

func (v *village) probed() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.probes
}

// A director takes over early only beside third machines that answered before. One
// that has just started may have to.
func TestThirdMachinesAreKnownSoonAfterTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, "lb-1", newNode(11), &leases{}, t.TempDir())
		p.Join(pool())
		s := &session{d: p.Director, sounder: sounder{asked: make(chan struct{}, 1)}}
		ctx, cancel := context.WithCancel(t.Context())
		wire, ended := &village{deaf: true}, make(chan struct{})
		go func() {
			defer close(ended)
			s.soundOut(ctx, wire)
		}()
		pass(time.Second)
		wire.mu.Lock()
		wire.deaf = false
		wire.mu.Unlock()
		p.plan(vip1)
		pass(3 * time.Second)
		cancel()
		<-ended
		if third := s.acquaintances(); !slices.Contains(third, rs1) {
			t.Errorf("3 s after there are real servers, %v are known, want %s among them", third, rs1)
		}
	})
}

func TestThirdMachinesAreLeftInPeaceLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, "lb-1", newNode(11), &leases{}, t.TempDir())
		p.Join(pool())
		p.plan(vip1)
		s := &session{d: p.Director, sounder: sounder{asked: make(chan struct{}, 1)}}
		wire := &village{}
		go s.soundOut(t.Context(), wire)
		pass(2 * acquaintEvery)
		before := wire.probed()
		pass(10 * acquaintEvery)
		if got := wire.probed() - before; got != 10 {
			t.Errorf("%d probes in ten times %s, want 10", got, acquaintEvery)
		}
	})
}

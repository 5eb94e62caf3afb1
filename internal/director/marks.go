package director

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// ErrDirectorsUnknown says that no service can be marked yet: the guard has to
// tell what other directors send from what clients do, and not all of them have
// told their MAC addresses.
var ErrDirectorsUnknown = errors.New("the MAC addresses of the pool's directors are not known yet")

// directorsRetry is how soon naming the directors is tried again after the kernel
// refused.
const directorsRetry = 30 * time.Second

// naming is what a session told its kernel of the pool's other directors.
type naming struct {
	// done are their MAC addresses as the kernel was told, in order; nil before, and
	// then what an earlier process told it stays.
	done []string
	// told are those for the other directors; nil if nothing is to be said.
	told []gossip.MAC
	// tried is when it was last told, problem why that failed.
	tried   time.Time
	problem string
}

// nameDirectors tells the kernel which MAC addresses are directors', if that
// changed, and the worker whether they are all known.
func (s *session) nameDirectors(ctx context.Context) {
	macs, complete, known := s.d.directorMACs()
	if !known {
		s.d.worker.DirectorsKnown(false)
		return
	}
	names := make([]string, 0, len(macs))
	for _, mac := range macs {
		names = append(names, mac.String())
	}
	s.mu.Lock()
	done := s.naming.done != nil && slices.Equal(s.naming.done, names)
	wait := s.naming.problem != "" && time.Since(s.naming.tried) < directorsRetry
	s.mu.Unlock()
	if !done && !wait {
		done = s.tellDirectors(ctx, macs, names)
	}
	s.d.worker.DirectorsKnown(done && complete)
}

func (s *session) tellDirectors(ctx context.Context, macs []net.HardwareAddr, names []string) (done bool) {
	err := s.d.cfg.Kernel.SetDirectors(ctx, macs)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.naming.tried = time.Now()
	if err == nil {
		s.naming.done, s.naming.told, s.naming.problem = names, toldOf(macs), ""
		s.d.cfg.Log.Info("Told the guard which MAC addresses are directors'", "macs", strings.Join(names, " "))
		return true
	}
	if s.naming.problem != err.Error() {
		s.d.cfg.Log.Warn("Services that need marks cannot be served", "error", err)
	}
	s.naming.problem = err.Error()
	return false
}

// toldOf returns the MAC addresses that a guard was given as they are told to others;
// nil if they are too many to be told.
func toldOf(macs []net.HardwareAddr) []gossip.MAC {
	if len(macs) > gossip.MaxDirectors {
		return nil
	}
	told := make([]gossip.MAC, 0, len(macs))
	for _, mac := range macs {
		told = append(told, gossip.MAC(mac))
	}
	return told
}

// unknownTo names a director that is there and whose guard, by its own word, does not
// know the MAC address of this one; empty if there is none. To become active then
// would be to send it what its clients do, as it sees it, and get it back. One that
// does not say whom its guard knows is not waited for: it is of an older version,
// has too many to tell, or has just started, and adds no marked service before it
// knows all.
func (s *session) unknownTo() string {
	s.mu.Lock()
	own := s.node.link.MAC
	s.mu.Unlock()
	if len(own) != len(gossip.MAC{}) {
		return ""
	}
	for _, m := range s.gossip.view().Members {
		says := m.Alive && !m.Relayed && m.State.Directors != nil
		if says && !slices.Contains(m.State.Directors, gossip.MAC(own)) && s.d.worker.marks() {
			return m.Node
		}
	}
	return ""
}

// marks says whether any service that is planned is a marked one.
func (w *Worker) marks() bool {
	return slices.ContainsFunc(w.Plans(), func(desired plan.Desired) bool {
		for service := range desired.State.Services {
			if service.Marked {
				return true
			}
		}
		return false
	})
}

// directorMACs returns, in order, the MAC addresses of the pool's other directors,
// as the API server tells them and as they tell them themselves by gossip, and
// whether those of all that are live are among them. Known is false until it is
// known which directors there are.
func (d *Director) directorMACs() (macs []net.HardwareAddr, complete, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	complete = true
	view := d.gossipView()
	for _, member := range view.Members {
		macs = appendMAC(macs, member.State.MAC)
	}
	for _, peer := range d.peers {
		before := len(macs)
		macs = appendMAC(macs, peer.MAC)
		member, _ := view.Member(peer.Node)
		complete = complete && (!peer.Live || len(macs) > before || appendMAC(nil, member.State.MAC) != nil)
	}
	slices.SortFunc(macs, func(a, b net.HardwareAddr) int { return slices.Compare(a, b) })
	return slices.CompactFunc(macs, func(a, b net.HardwareAddr) bool { return slices.Equal(a, b) }), complete, d.peersKnown
}

// appendMAC appends an address if it is one of Ethernet.
func appendMAC(macs []net.HardwareAddr, text string) []net.HardwareAddr {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != len(gossip.MAC{}) {
		return macs
	}
	return append(macs, mac)
}

// DirectorsKnown says whether the guard knows the MAC addresses of the pool's other
// directors. Until it does no marked service is added; those that are there are kept
// as planned.
func (w *Worker) DirectorsKnown(known bool) {
	w.mu.Lock()
	before := w.directorsKnown
	w.directorsKnown = known
	w.mu.Unlock()
	if known && !before {
		w.Audit()
	}
}

// waits says that a pass ended without what it needs, which is no refusal of the
// kernel: the key is queued again when it is there.
func waits(err error) bool {
	return errors.Is(err, ErrUnconfirmed) || errors.Is(err, ErrDirectorsUnknown)
}

// awaitsDirectors returns ErrDirectorsUnknown if a marked service would be added
// before the directors are known.
func (w *Worker) awaitsDirectors(have, want netstate.State) error {
	w.mu.Lock()
	known := w.directorsKnown
	w.mu.Unlock()
	if known {
		return nil
	}
	for service := range want.Services {
		if _, there := have.Services[service]; service.Marked && !there {
			return fmt.Errorf("adding %s: %w", service, ErrDirectorsUnknown)
		}
	}
	return nil
}

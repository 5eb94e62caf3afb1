package director

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/lvs-operator/lvs-operator/internal/election"
	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/health"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
	"github.com/lvs-operator/lvs-operator/internal/plan"
)

// roster is the servers of a service in a plan, in order.
type roster []netstate.DestinationKey

// rosters returns those of the services whose scheduler is netstate.Ordered.
func rosters(desired plan.Desired) map[netstate.ServiceKey]roster {
	all := map[netstate.ServiceKey]roster{}
	for key := range desired.State.Destinations {
		if desired.State.Services[key.Service].Ordered() {
			all[key.Service] = append(all[key.Service], key)
		}
	}
	for _, servers := range all {
		slices.SortFunc(servers, func(a, b netstate.DestinationKey) int {
			return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
		})
	}
	return all
}

// hash is the same for the same servers, on every director and in every version.
func (r roster) hash() uint64 {
	h := fnv.New64a()
	for _, server := range r {
		addr := server.Addr.As16()
		h.Write(addr[:])
		h.Write(binary.BigEndian.AppendUint16(nil, server.Port))
	}
	return h.Sum64()
}

// verdictsIn returns what the kernel holds of the Ordered services of a plan, for the
// other directors: the servers that get no new connections there are down, why ever
// that is. Of a service that is not in the kernel it says nothing.
func verdictsIn(desired plan.Desired, have netstate.State) []gossip.Verdicts {
	if !hasOrdered(desired) {
		return nil
	}
	var all []gossip.Verdicts
	for key, servers := range rosters(desired) {
		if _, there := have.Services[key]; !there {
			continue
		}
		down := make([]byte, (len(servers)+7)/8)
		for i, server := range servers {
			if have.Destinations[server].Weight == 0 {
				down[i/8] |= 1 << (i % 8)
			}
		}
		all = append(all, gossip.Verdicts{
			Service: gossiped(key), Servers: servers.hash(), Down: strings.TrimRight(string(down), "\x00"),
		})
	}
	return all
}

// gossiped returns a service as gossip names it.
func gossiped(key netstate.ServiceKey) gossip.Service {
	return gossip.Service{VIP: key.Key.Addr, Protocol: uint8(key.Protocol), Port: key.Port, Marked: key.Marked}
}

// understood returns what heard tells of the servers of a plan. Of a service that has
// other servers there it tells nothing: the tables differ anyway until both
// directors have the same plan.
func understood(desired plan.Desired, heard func(gossip.Service) (gossip.Verdicts, bool)) map[netstate.DestinationKey]health.Verdict {
	all := map[netstate.DestinationKey]health.Verdict{}
	for key, servers := range rosters(desired) {
		said, known := heard(gossiped(key))
		if !known || said.Servers != servers.hash() {
			continue
		}
		for i, server := range servers {
			all[server] = health.Up
			if i/8 < len(said.Down) && said.Down[i/8]>>(i%8)&1 != 0 {
				all[server] = health.Down
			}
		}
	}
	return all
}

// Verdicts returns what this director's kernel holds of the services whose scheduler
// is netstate.Ordered, of all VIPs that are served.
func (w *Worker) Verdicts() []gossip.Verdicts {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []gossip.Verdicts
	for _, e := range w.entries {
		if e.phase == served {
			all = append(all, e.verdicts...)
		}
	}
	return all
}

// word is what the active director last said of a service, and whether this one has
// taken its place since.
type word struct {
	gossip.Heard
	succeeded bool
}

// fresh says whether a word is still to be gone by.
func (w word) fresh(now time.Time) bool { return now.Sub(w.At) <= gossip.VerdictsLast }

// speaker returns the node of the other director that claims a group best by its own
// word; empty if none does. It may be dead: until somebody takes over, its last word
// is what its table was.
func speaker(view gossip.View, group int) string {
	node, best := "", gossip.Claim{}
	for _, m := range view.Members {
		if m.Left || m.Relayed || m.HeardAt.IsZero() {
			continue
		}
		for _, c := range m.State.Claims {
			better := c.Epoch > best.Epoch || c.Epoch == best.Epoch && c.Confirmed && !best.Confirmed
			if c.Group == group && (node == "" || better) {
				node, best = m.Node, c
			}
		}
	}
	return node
}

// converse tells the other directors which servers this one gives new connections to,
// for the groups that it announces, and hears of the others' groups.
func (s *session) converse() {
	if s.d.cfg.Gossip == nil {
		return
	}
	s.mu.Lock()
	announced := make([]bool, len(s.groups))
	for i, g := range s.groups {
		announced[i] = g.decision.Announce
	}
	s.mu.Unlock()
	groupOf := func(vip netip.Addr) int { return election.GroupOf(vip, len(announced)) }

	told := slices.DeleteFunc(s.d.worker.Verdicts(), func(v gossip.Verdicts) bool { return !announced[groupOf(v.Service.VIP)] })
	s.gossip.tellVerdicts(told)

	view := s.gossip.view()
	speakers := make([]string, len(announced))
	for i := range announced {
		if !announced[i] {
			speakers[i] = speaker(view, i)
		}
	}
	said := map[gossip.Service]gossip.Heard{}
	for _, node := range slices.Compact(slices.Sorted(slices.Values(speakers))) {
		for service, heard := range s.gossip.verdicts(node) {
			if speakers[groupOf(service.VIP)] == node {
				said[service] = heard
			}
		}
	}
	s.heed(said, func(vip netip.Addr) bool { return announced[groupOf(vip)] })
}

// heed notes what was said, and has those VIPs looked at of which something else is
// to be believed now. What was said before lasts until something newer is, or until
// it is too old.
func (s *session) heed(said map[gossip.Service]gossip.Heard, announced func(netip.Addr) bool) {
	now := s.now()
	s.mu.Lock()
	next := make(map[gossip.Service]word, len(said))
	for service, before := range s.words {
		if before.fresh(now) {
			next[service] = word{before.Heard, announced(service.VIP)}
		}
	}
	for service, heard := range said {
		if w := (word{Heard: heard}); w.fresh(now) {
			next[service] = w
		}
	}
	changed := map[netip.Addr]bool{}
	for service, w := range next {
		if before, there := s.words[service]; !there || before.Verdicts != w.Verdicts || before.succeeded != w.succeeded {
			changed[service.VIP] = true
		}
	}
	for service := range s.words {
		if _, lasts := next[service]; !lasts {
			changed[service.VIP] = true
		}
	}
	s.words = next
	s.mu.Unlock()
	for _, vip := range slices.SortedFunc(maps.Keys(changed), netip.Addr.Compare) {
		s.d.worker.Enqueue(netstate.Key{Addr: vip})
	}
}

// hears returns what the active director says of the servers of a plan. This one's
// own verdicts count more once it has taken its place: its word only stands in for
// those that are missing.
func (d *Director) hears(desired plan.Desired) hearsay {
	s := d.present()
	if s == nil {
		return hearsay{}
	}
	now := s.now()
	s.mu.Lock()
	words, announced := s.words, s.of(desired.Key.Addr).decision.Announce
	s.mu.Unlock()
	verdicts := understood(desired, func(service gossip.Service) (gossip.Verdicts, bool) {
		w, known := words[service]
		return w.Verdicts, known && w.fresh(now)
	})
	return hearsay{verdicts, announced}
}
